from pathlib import Path

import pytest
from fuzz.shapes import SHAPES
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEEDS = sorted(path for path in (Path(__file__).parent / "seeds").rglob("*") if path.is_file())


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=100, deadline=5000, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_hostile_file_ends_in_an_export_error_or_is_read(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(SHAPES[name]))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_kept_seed_no_longer_breaks_its_reader(seed: Path) -> None:
    TARGETS[seed.parent.name](seed.read_bytes())
