"""The hidden states between layers: held where they fit, on disk otherwise, and never lost by half a layer."""

from pathlib import Path

import pytest
import torch

from lf_export.errors import StepError
from lf_export.walk.budget import default_budget, parse_size
from lf_export.walk.hidden import HiddenStates

SHAPE = (10, 4)
BATCHES = (slice(0, 3), slice(3, 10))


def _layer(hidden: HiddenStates, added: float) -> None:
    for tokens in BATCHES:
        hidden.write(tokens, hidden.read(tokens) + added)
    hidden.turn()


def _begun(hidden: HiddenStates) -> torch.Tensor:
    torch.manual_seed(0)
    states = torch.randn(SHAPE)
    hidden.write(slice(0, 10), states)
    hidden.turn()
    return states


@pytest.mark.parametrize("memory", [None, 160, 159, 1])
@pytest.mark.parametrize("on_disk", [True, False])
def test_each_layer_reads_what_the_last_one_wrote(tmp_path: Path, memory: int | None, on_disk: bool) -> None:
    hidden = HiddenStates(SHAPE, tmp_path if on_disk else None, memory)
    states = _begun(hidden)
    for _ in range(3):
        _layer(hidden, 1.0)
        states = states + 1.0
    assert torch.equal(torch.cat([hidden.read(tokens) for tokens in BATCHES]), states)


def test_states_past_the_memory_are_not_held(tmp_path: Path) -> None:
    assert not HiddenStates(SHAPE, tmp_path, 160).spilled
    hidden = HiddenStates(SHAPE, tmp_path, 159)
    assert hidden.spilled
    _begun(hidden)
    _layer(hidden, 1.0)
    held = [value for value in vars(hidden).values() if isinstance(value, torch.Tensor)]
    assert held == []
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {160}


@pytest.mark.parametrize("memory", [None, 1])
def test_half_a_layer_leaves_its_input_on_disk(tmp_path: Path, memory: int | None) -> None:
    hidden = HiddenStates(SHAPE, tmp_path, memory)
    states = _begun(hidden)
    _layer(hidden, 1.0)
    side = hidden.side
    hidden.write(BATCHES[0], torch.zeros(3, 4))  # a layer that does not come to its end
    again = HiddenStates(SHAPE, tmp_path, memory, side=side)
    again.load()
    assert torch.equal(torch.cat([again.read(tokens) for tokens in BATCHES]), states + 1.0)


def test_a_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    hidden = HiddenStates(SHAPE, tmp_path, 1)
    _begun(hidden)
    (tmp_path / "hidden-1.bin").write_bytes(b"\0" * 100)
    with pytest.raises(StepError, match=r"hidden-1\.bin: truncated"):
        hidden.read(slice(0, 10))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("512MB", 512 * 10**6),
        ("1.5 GiB", 3 << 29),
        ("2kb", 2000),
        ("7", 7),
        ("7B", 7),
        ("1TB", 10**12),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "4XB", "-1GB", "0", "0.1B", "4 G B", "1e9", "4 GI GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected one such as 4GB or 512MB"):
        parse_size(text)


def test_the_default_is_a_quarter_of_what_is_available(tmp_path: Path) -> None:
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    group.mkdir()
    meminfo.write_text("MemTotal:       8000 kB\nMemAvailable:   4000 kB\n")
    assert default_budget(meminfo, group) == 1000 * 1024
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5\n")
    assert default_budget(meminfo, group) == 1000 * 1024
    (group / "memory.max").write_text("1000005\n")
    assert default_budget(meminfo, group) == 250_000
    assert default_budget(tmp_path / "none", tmp_path / "none") == 1 << 30
