"""What does not fit is refused before anything is written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from models import tiny_adapter, tiny_model
from resumed import Calibration

from lf_export.calibration.build import CalibrationSet
from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError, StepError
from lf_export.steps import estimate
from lf_export.steps.disk import check_disk
from lf_export.steps.merge import MergeOptions, merge_model
from lf_export.steps.quantize import TargetPlan, quantize_model


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Say how much is free."""
    return lambda count: monkeypatch.setattr(shutil, "disk_usage", lambda _path: _Usage(10**12, 0, count))


def test_outputs_of_one_file_system_are_added_up(tmp_path: Path, free: Callable[[int], None]) -> None:
    free(100)
    check_disk({tmp_path / "a" / "deep": 60, tmp_path / "b": 40})
    with pytest.raises(StepError, match=r"needs 101 B of disk, 100 B are free") as error:
        check_disk({tmp_path / "a": 60, tmp_path / "b": 41})
    assert str(tmp_path) in error.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_merge_and_a_quantize_that_do_not_fit_touch_nothing(tmp_path: Path, free: Callable[[int], None]) -> None:
    model = tiny_model(tmp_path / "model")
    adapter = tiny_adapter(tmp_path / "adapter", model)
    free(10_000)
    with pytest.raises(StepError, match="are free"):
        merge_model(MergeOptions(model, (adapter,), tmp_path / "place" / "merged"))
    with pytest.raises(StepError, match="are free"):
        quantize_model(model, [TargetPlan("q8", "gguf", tmp_path / "place" / "q8", {"type": "Q8_0"})])
    assert not (tmp_path / "place").exists()


def test_too_little_memory_is_refused_with_what_would_be_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tmp_path / "model")
    target = TargetPlan("four", "gptq", tmp_path / "place" / "four", {"bits": 4, "group_size": 32})
    floor = estimate.quantize_memory(open_checkpoint(model), [target], 0, 0)
    with pytest.raises(InputError, match=r"100 MB are not enough.* need about 60\d MB") as error:
        quantize_model(model, [target], memory=100_000_000)
    assert "--memory 0.7GB" in str(error.value.hint)
    assert not (tmp_path / "place").exists()
    monkeypatch.setattr(CalibrationSet, "load", lambda _path: Calibration())
    for name in ("calibration.json", "tokens.npz"):
        (tmp_path / name).write_bytes(b"")
    quantize_model(model, [target], calibration=tmp_path, memory=floor + 1)
    assert target.out.is_dir()
