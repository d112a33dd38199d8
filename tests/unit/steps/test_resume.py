"""A quantize step that was killed goes on at the layer where it was, to the bytes of an undisturbed run."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import resumed
from resumed import BATCHES, LAYERS, QUICK, files, quantize

from lf_export.errors import StepError
from lf_export.steps import journal
from lf_export.steps.journal import FOLDER, RunJournal
from lf_export.walk.hidden import HiddenStates
from lf_export.walk.stream import _Forward

STATE = f"{FOLDER}/state.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resumed.model(tmp_path_factory.mktemp("resume") / "model")


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    quantize(model, out, memory=10**9)
    return files(out)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The index of every layer that runs on a batch; runs that measure a damage for mixed precision do not count."""
    seen: list[int] = []
    through = _Forward._through

    def counted(self: _Forward, module: Any, index: int, batch: Any) -> Any:
        seen.append(index)
        return through(self, module, index, batch)

    monkeypatch.setattr(_Forward, "_through", counted)
    return seen


@pytest.fixture
def killed(model: Path, tmp_path: Path) -> Callable[..., tuple[Path, list[str]]]:
    """Run the plan in a child that kills itself; returns its output folder and what it said."""

    def kill(where: str, layer: int, **options: Any) -> tuple[Path, list[str]]:
        out = tmp_path / "out"
        said = resumed.kill(model, out, where, layer, **options)
        assert not [path for path in out.iterdir() if not path.name.startswith(".")]
        return out, said

    return kill


@pytest.mark.parametrize("where", ["forward", "layer"])
@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_run_killed_inside_a_layer_goes_on_at_that_layer(
    model: Path, undisturbed: dict[str, bytes], killed: Any, runs: list[int], where: str, layer: int
) -> None:
    out, _ = killed(where, layer)
    said = quantize(model, out)
    assert files(out) == undisturbed
    assert runs == [index for index in range(layer, LAYERS) for _ in range(BATCHES)]
    if layer:
        assert said.lines[0] == f"going on at layer {layer + 1} of {LAYERS}"
    else:
        assert said.lines[0] == "starting over, removing what a killed run left: no layer was done"


@pytest.mark.parametrize("where", ["finish", "end"])
def test_a_run_killed_after_the_last_layer_only_finishes(
    model: Path, undisturbed: dict[str, bytes], killed: Any, runs: list[int], where: str
) -> None:
    out, _ = killed(where, 0)
    said = quantize(model, out)
    assert files(out) == undisturbed
    assert runs == []
    assert said.lines == [f"going on after layer {LAYERS} of {LAYERS}"]


def test_every_format_goes_on_in_one_plan(model: Path, killed: Any, tmp_path: Path) -> None:
    formats = tuple(resumed.FORMATS)
    out, _ = killed("layer", 1, formats=formats)
    assert quantize(model, out, formats).lines[0] == f"going on at layer 2 of {LAYERS}"
    quantize(model, tmp_path / "whole", formats)
    assert files(out) == files(tmp_path / "whole")


def test_a_run_can_be_killed_twice_and_in_another_memory(
    model: Path, undisturbed: dict[str, bytes], killed: Any
) -> None:
    killed("forward", 1)
    out, _ = killed("layer", 2)
    quantize(model, out, memory=1)
    assert files(out) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_says_how_to_go_on(
    model: Path, undisturbed: dict[str, bytes], killed: Any, number: int
) -> None:
    out, said = killed("layer", 1, number=number)
    assert said[-2:] == [
        f"interrupted: run the same command again to go on at layer 2 of {LAYERS}",
        "KeyboardInterrupt",
    ]
    assert quantize(model, out).lines[0] == f"going on at layer 2 of {LAYERS}"
    assert files(out) == undisturbed


def test_an_interruption_before_a_layer_is_done_leaves_nothing(killed: Any) -> None:
    out, said = killed("layer", 0, number=signal.SIGTERM)
    assert said == ["KeyboardInterrupt"]
    assert list(out.iterdir()) == []


def test_an_error_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StepError("failed")

    monkeypatch.setattr(RunJournal, "finished", fail)
    with pytest.raises(StepError, match="failed"):
        quantize(model, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("change", [{"group_size": 16}, {"calibration": resumed.Calibration(digest="1" * 64)}])
def test_other_options_or_data_start_over(model: Path, killed: Any, tmp_path: Path, change: Any) -> None:
    out, _ = killed("layer", 1)
    assert quantize(model, out, **change).lines[0] == (
        "starting over, removing what a killed run left: its inputs, options or versions were other ones"
    )
    quantize(model, tmp_path / "whole", **change)
    assert files(out) == files(tmp_path / "whole")


def test_a_model_that_has_changed_starts_over(model: Path, undisturbed: dict[str, bytes], killed: Any) -> None:
    out, _ = killed("layer", 1)
    os.utime(model / "model.safetensors")
    assert "its inputs, options or versions were other ones" in quantize(model, out).lines[0]
    assert files(out) == undisturbed


@pytest.mark.parametrize(
    ("victim", "why"),
    [
        (f"gptq/{STATE}", "is damaged"),
        (f"gptq/{FOLDER}/hidden-0.bin", "hidden-0.bin is truncated"),
        (f"gptq/{FOLDER}/arrays", "is damaged"),
        ("gptq/model.safetensors", "model.safetensors is truncated"),
        ("awq/model.safetensors", "model.safetensors is truncated"),
        ("gguf/tiny-Q4_K_M.gguf", "tiny-Q4_K_M.gguf is truncated"),
    ],
)
def test_a_truncated_file_starts_over(
    model: Path, undisturbed: dict[str, bytes], killed: Any, victim: str, why: str
) -> None:
    out, _ = killed("forward", 2)
    name, _, rest = victim.partition("/")
    (folder,) = out.glob(f".{name}.staging-*")
    (path,) = folder.glob(f"{rest}*")
    size = path.stat().st_size
    if path.name.startswith("arrays"):  # one that is as long as it was, and is no archive
        path.write_bytes(b"\0" * size)
    else:
        os.truncate(path, size * 2 // 3)
    said = quantize(model, out)
    assert said.lines[0].startswith("starting over, removing what a killed run left: ")
    assert why in said.lines[0]
    assert files(out) == undisturbed


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": 1}', '{"digest": "0", "state": {}}', "\x00"])
def test_a_state_that_is_none_starts_over(model: Path, killed: Any, text: str) -> None:
    out, _ = killed("layer", 1, formats=["gptq", "awq"])
    (folder,) = out.glob(".gptq.staging-*")
    (folder / STATE).write_text(text)
    assert quantize(model, out, ["gptq", "awq"]).lines[0].endswith("state.json is damaged")


def test_a_state_that_was_edited_starts_over(model: Path, killed: Any) -> None:
    out, _ = killed("layer", 1, formats=["gptq", "awq"])
    (folder,) = out.glob(".gptq.staging-*")
    value = json.loads((folder / STATE).read_text())
    value["state"]["layers"] = 2
    (folder / STATE).write_text(json.dumps(value))
    assert quantize(model, out, ["gptq", "awq"]).lines[0].endswith("state.json is damaged")


@pytest.mark.parametrize("lost", ["gptq", "imatrix"])
def test_targets_go_on_together_or_not_at_all(
    model: Path, undisturbed: dict[str, bytes], killed: Any, lost: str
) -> None:
    out, _ = killed("layer", 2)
    (folder,) = out.glob(f".{lost}.staging-*")
    folder.rename(out.parent / "lost")
    assert "starting over" in quantize(model, out).lines[0]
    assert files(out) == undisturbed


def test_what_a_killed_run_left_stays_when_another_target_cannot_be_made(
    model: Path, undisturbed: dict[str, bytes], killed: Any
) -> None:
    out, _ = killed("layer", 1)
    (out / "imatrix").mkdir()
    with pytest.raises(Exception, match="exists already"):
        quantize(model, out)
    (out / "imatrix").rmdir()
    assert quantize(model, out).lines[0] == f"going on at layer 2 of {LAYERS}"
    assert files(out) == undisturbed


def test_activations_past_the_memory_are_on_disk_and_change_nothing(
    model: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spilled: list[bool] = []
    turn = HiddenStates.turn

    def seen(self: HiddenStates) -> None:
        spilled.append(self.spilled)
        turn(self)

    monkeypatch.setattr(HiddenStates, "turn", seen)
    quantize(model, tmp_path / "out", memory=10_000)
    assert spilled == [True] * (LAYERS + 1)
    assert files(tmp_path / "out") == undisturbed
    spilled.clear()
    quantize(model, tmp_path / "held", QUICK, memory=10**9)
    assert spilled == [False] * (LAYERS + 1)


def test_an_interruption_right_after_a_layer_is_noted_is_gone_on_with(
    model: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = journal._replace

    def interrupted(path: Path, text: str) -> None:
        replace(path, text)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quantize(model, tmp_path / "out")
    said = quantize(model, tmp_path / "out")
    assert f"going on at layer 2 of {LAYERS}" in said.lines
    assert files(tmp_path / "out") == undisturbed
