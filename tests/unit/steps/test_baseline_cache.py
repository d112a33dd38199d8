"""What is kept of a baseline is whole, is of this baseline, and takes no more than its room."""

import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from said import Said

from lf_export.calibration.suites import EvalItem
from lf_export.checkpoint import staging as staging_module
from lf_export.functions.answers import prose
from lf_export.metrics.kept import keep
from lf_export.progress import reporting
from lf_export.steps import baseline_cache
from lf_export.steps.baseline_cache import BaselineCache, baseline_key, cache_folder
from lf_export.steps.prompts import Group, Prompt
from lf_export.steps.recorded import Recorded
from lf_export.steps.workload import Workload

KEY, OTHER = "a" * 64, "b" * 64
RECORDED = Recorded(
    {"one": ((1, 2, 3), "<b>é\U0001f600\ufffd"), "two": ((), "")}, [0.1, 1 / 3], 7, 0.25, {"chat": ((4, 5), "Fine.")}, 9
)


@pytest.fixture
def distributions(tmp_path: Path) -> Path:
    folder = tmp_path / "distributions"
    folder.mkdir()
    for name in ("x", "y"):
        keep(np.random.default_rng(ord(name)).normal(0, 3, (4, 300)).astype(np.float32)).save(folder / name)
    return folder


@pytest.fixture
def said() -> Any:
    found = Said()
    with reporting(found):
        yield found


@pytest.fixture
def restored(tmp_path: Path) -> Callable[..., Any]:
    """What a cache gives: the record, and the names and bytes of the distributions."""

    def read(cache: BaselineCache, key: str = KEY) -> tuple[Recorded | None, dict[str, bytes]]:
        target = tmp_path / "restored"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        return cache.read(key, target), _bytes(target)

    return read


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_kept_comes_back_whole(tmp_path: Path, distributions: Path, restored: Any) -> None:
    cache = BaselineCache(tmp_path / "cache")
    assert restored(cache) == (None, {})
    cache.write(KEY, RECORDED, distributions)
    assert restored(cache) == (RECORDED, _bytes(distributions))
    assert restored(cache, OTHER) == (None, {})
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [KEY]
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0  # the items may be confidential


def test_nothing_is_kept_where_there_is_no_place(distributions: Path, restored: Any) -> None:
    cache = BaselineCache(None)
    cache.write(KEY, RECORDED, distributions)
    assert restored(cache) == (None, {})


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: _flip(entry / "answers.json"),
        lambda entry: _flip(entry / "distributions" / "x"),
        lambda entry: _flip(entry / "lf-export.json"),
        lambda entry: (entry / "lf-export.json").unlink(),
        lambda entry: (entry / "distributions" / "y").unlink(),
        lambda entry: (entry / "more").write_text("x"),
    ],
    ids=["answers", "distribution", "manifest", "no manifest", "missing", "more"],
)
def test_a_damaged_entry_is_said_dropped_and_made_again(
    tmp_path: Path, distributions: Path, restored: Any, said: Said, damage: Callable[[Path], None]
) -> None:
    cache = BaselineCache(tmp_path / "cache")
    cache.write(KEY, RECORDED, distributions)
    damage(tmp_path / "cache" / KEY)
    assert restored(cache) == (None, {})
    assert "damaged and measured again" in said.lines[-1]
    cache.write(KEY, RECORDED, distributions)
    assert restored(cache) == (RECORDED, _bytes(distributions))


def test_an_entry_of_another_form_is_damaged_too(
    tmp_path: Path, distributions: Path, restored: Any, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    cache = BaselineCache(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "to_json", lambda _: {"answers": {"one": [[1]]}})
        cache.write(KEY, RECORDED, distributions)
    assert restored(cache) == (None, {})
    assert "damaged" in said.lines[-1]


def test_the_entries_used_longest_ago_make_room(tmp_path: Path, distributions: Path, restored: Any, said: Said) -> None:
    cache = BaselineCache(tmp_path / "cache")
    cache.write(KEY, RECORDED, distributions)
    size = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    cache = BaselineCache(tmp_path / "cache", most_bytes=2 * size + size // 2)
    cache.write(OTHER, RECORDED, distributions)
    for age, key in enumerate((KEY, OTHER)):
        os.utime(tmp_path / "cache" / key, (100 + age, 100 + age))
    assert restored(cache)[0] == RECORDED  # now the other is the one used longest ago
    cache.write("c" * 64, RECORDED, distributions)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {KEY, "c" * 64}
    small = BaselineCache(tmp_path / "small", most_bytes=100)
    small.write(KEY, RECORDED, distributions)
    assert "100 at the most" in said.lines[-1]
    assert list((tmp_path / "small").iterdir()) == []


def test_a_full_disk_and_a_place_that_is_no_folder_are_said_and_end_nothing(
    tmp_path: Path, distributions: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    BaselineCache(tmp_path / "file").write(KEY, RECORDED, distributions)
    assert "not kept for the next run" in said.lines[-1]
    monkeypatch.setattr(
        baseline_cache.shutil,
        "disk_usage",
        lambda _: type("Usage", (), {"free": 1}),  # almost nothing is free
    )
    BaselineCache(tmp_path / "cache").write(KEY, RECORDED, distributions)
    assert "more than half of what is free" in said.lines[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_run_killed_while_it_keeps_leaves_nothing_that_is_believed(
    tmp_path: Path, distributions: Path, restored: Any, said: Said
) -> None:
    cache = BaselineCache(tmp_path / "cache")
    child = os.fork()
    if not child:
        staging_module.sync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        cache.write(KEY, RECORDED, distributions)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (left,) = (tmp_path / "cache").iterdir()
    assert left.name.startswith(f".{KEY}.staging-")
    assert restored(cache) == (None, {})
    cache.write(OTHER, RECORDED, distributions)  # whoever keeps next clears up
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [OTHER]
    assert any("killed run" in line for line in said.lines)


def _workload(**changes: Any) -> Workload:
    item = EvalItem("one", "single", "", (), (), prose("x"))
    prompt = Prompt(item, "ab", (1, 2), (1, 2, 3), np.zeros(3, np.uint8))
    fields = {
        "groups": [Group((1,), (prompt,))],
        "compared": frozenset({"one"}),
        "chat": [((1, 2), np.array([False, True]))],
        "timed": [],
        "max_new_tokens": 8,
        "timed_tokens": 4,
    }
    return Workload(**(fields | changes))


def test_the_key_follows_all_that_decides_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    workload = _workload()
    key = baseline_key(model, "torch", "chat-template", 1, workload)
    prompt = workload.groups[0].prompts[0]
    other = dataclasses.replace(prompt, full_ids=(1, 2, 4))
    keys = [
        key,
        baseline_key(model, "transformers", "chat-template", 1, workload),
        baseline_key(model, "torch", "hermes", 1, workload),
        baseline_key(model, "torch", "chat-template", 2, workload),
        baseline_key(model, "torch", "chat-template", 1, _workload(groups=[Group((1,), (other,))])),
        baseline_key(model, "torch", "chat-template", 1, _workload(compared=frozenset())),
        baseline_key(model, "torch", "chat-template", 1, _workload(chat=[((1, 3), np.array([False, True]))])),
        baseline_key(model, "torch", "chat-template", 1, _workload(max_new_tokens=9)),
        baseline_key(model, "torch", "chat-template", 1, _workload(chat_groups=[Group((1,), (prompt,))])),
        baseline_key(
            model, "torch", "chat-template", 1, _workload(chat_groups=[Group((1,), (prompt,))], chat_tokens=9)
        ),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(baseline_cache, "versions", lambda: {"torch": "0"})
        keys.append(baseline_key(model, "torch", "chat-template", 1, workload))
    with monkeypatch.context() as patch:
        patch.setattr(baseline_cache, "_CODE", ("runtimes/base.py",))
        keys.append(baseline_key(model, "torch", "chat-template", 1, workload))
    (model / "README.md").write_text("a card")
    timed = _workload(timed=[prompt], timed_tokens=9, seed=4)
    assert baseline_key(model, "torch", "chat-template", 1, timed) == key
    (model / "model.safetensors").write_bytes(b"weights!")
    keys.append(baseline_key(model, "torch", "chat-template", 1, workload))
    assert len(set(keys)) == len(keys)


def test_the_place_is_the_users_cache_unless_the_environment_says_another_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() is None  # as for all tests
    monkeypatch.delenv("LF_EXPORT_CACHE")
    assert cache_folder() == tmp_path / "lf-export" / "baselines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG specification: to be ignored
    assert cache_folder() == Path.home() / ".cache" / "lf-export" / "baselines"
    monkeypatch.setenv("LF_EXPORT_CACHE", "here")
    assert cache_folder() == Path("here")
