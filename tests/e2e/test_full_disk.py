"""The disk is full at the n-th write: nothing has an artifact's name, and the next run makes what it should."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from full_disk import full_disk
from models import tiny_adapter, tiny_model
from resumed import Calibration, files, plans

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import StepError
from lf_export.steps.calibrate import CalibrateOptions, calibrate_model
from lf_export.steps.merge import MergeOptions, merge_model
from lf_export.steps.quantize import quantize_targets

Work = Callable[[Path], Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("full") / "base", max_position_embeddings=2048, num_hidden_layers=1)


@pytest.fixture(scope="module")
def works(model: Path) -> dict[str, Work]:
    """Each step by name: it makes a folder."""
    adapter = tiny_adapter(model.parent / "adapter", model)
    calls = model.parent / "chat.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"{at}?"}, {"role": "assistant", "content": "It is warm. " * 9}]}
        for at in range(6)
    ]
    calls.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def calibrate(out: Path) -> None:
        calibrate_model(CalibrateOptions(model, num_samples=12, out=out))

    def quantize(name: str) -> Work:
        def work(out: Path) -> None:
            (plan,) = plans(out.parent, [name])
            calibration: Any = Calibration()
            quantize_targets(open_checkpoint(model), [plan], calibration)
            (out.parent / name).rename(out)

        return work

    made: dict[str, Work] = {
        "merge": lambda out: merge_model(MergeOptions(model, (adapter,), out)),
        "calibrate": calibrate,
    }
    return made | {name: quantize(name) for name in ("gptq", "mixed", "awq", "gguf", "imatrix")}


def _failed(work: Work, place: Path, at: int) -> StepError | None:
    """What ended the work when write `at` failed."""
    with full_disk(place, at):
        try:
            work(place / "out")
        except StepError as error:
            return error
    return None


# Every so many writes: each is a run of its own, and to try every one would take an hour.
@pytest.mark.parametrize(
    ("name", "every"),
    [("merge", 2), ("calibrate", 8), ("gptq", 11), ("mixed", 29), ("awq", 17), ("gguf", 9), ("imatrix", 13)],
)
def test_a_disk_that_is_full_at_any_write_leaves_nothing_and_the_next_run_finishes(
    works: dict[str, Work], tmp_path: Path, name: str, every: int
) -> None:
    work = works[name]
    with full_disk(tmp_path / "undisturbed") as counted:
        work(tmp_path / "undisturbed" / "out")
    expected = files(tmp_path / "undisturbed")
    assert counted.count > 5
    for at in range(0, counted.count, every):
        place = tmp_path / "place"
        error = _failed(work, place, at)
        where = counted.places[at]
        if error is None:  # what is written for a later run's sake, or is removed anyway
            assert files(place) == expected, where
        else:
            assert error.status == 5
            assert "disk full" in error.message, where
            assert str(place) in error.message, where
            assert " free" in error.message, where
            assert files(place) == {}, where
            work(place / "out")
            assert files(place) == expected, where
        shutil.rmtree(place)
