"""Baseline and artifact are timed in turn, and a machine without room for both says so."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lf_export.errors import StepError
from lf_export.runtimes.base import Generation
from lf_export.steps import interleaved
from lf_export.steps.interleaved import BaselineLost, Beside, time_in_turn


class Clock:
    """A machine that grows slower with every answer, whoever gives it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def session(self, name: str) -> Any:
        """A session of that name."""
        clock = self

        class Session:
            def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
                clock.asked.append((name, tuple(prompt)))
                slow = float(len(clock.asked))
                return Generation((1,) * max_new_tokens, "", tuple(slow * (at + 1) for at in range(max_new_tokens)))

        return Session()


def test_each_prompt_is_asked_a_b_b_a_after_a_warm_up_of_both() -> None:
    clock = Clock()
    pairs = time_in_turn(clock.session("A"), clock.session("B"), [(1,), (2,), (3,)], 3, rounds=2, seed=1)
    assert [name for name, _ in clock.asked[:2]] == ["A", "B"]
    for number, prompt in enumerate([(1,), (2,), (3,)]):
        asked = clock.asked[2 + 4 * number : 6 + 4 * number]
        names = "".join(name for name, _ in asked)
        assert names in {"ABBA", "BAAB"}
        assert {each for _, each in asked} == {prompt}
        # A drift of the machine meets both alike: over two rounds the sums of the times are equal.
        assert sum(pair.baseline[0] for pair in pairs[number]) == sum(pair.artifact[0] for pair in pairs[number])


def test_who_is_first_is_drawn_by_the_seed() -> None:
    def order(seed: int) -> list[str]:
        clock = Clock()
        time_in_turn(clock.session("A"), clock.session("B"), [(at,) for at in range(12)], 1, rounds=1, seed=seed)
        return [name for name, _ in clock.asked[2::2]]

    assert order(0) == order(0)
    assert set(order(0)) == {"A", "B"}
    assert order(0) != order(1)


def test_no_room_for_both_is_said_and_nothing_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(interleaved, "available_memory", lambda: 1_000_000_000)
    with Beside("torch", tmp_path / "none", 1, tmp_path, peak_bytes=2_000_000_000) as beside:
        assert beside.session() == "2.0 GB are needed for the baseline beside it and 1.0 GB are free"


def test_a_baseline_that_does_not_open_again_is_said(tmp_path: Path) -> None:
    with Beside("torch", tmp_path / "none", 1, tmp_path, peak_bytes=0) as beside:
        assert str(beside.session()).startswith("the baseline cannot be opened beside it: ")


def test_the_baseline_is_opened_once_and_closed_where_the_next_artifact_needs_the_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events = []

    class Session:
        def __init__(self, *_: Any) -> None:
            events.append("open")

        def close(self) -> None:
            events.append("close")

    free = [10]
    monkeypatch.setattr(interleaved, "ChildSession", Session)
    monkeypatch.setattr(interleaved, "available_memory", lambda: free[0])
    with Beside("torch", tmp_path, 1, tmp_path, peak_bytes=5) as beside:
        assert beside.session() is beside.session()
        beside.make_room()
        assert events == ["open"]
        free[0] = 4
        beside.make_room()
        assert events == ["open", "close"]
        free[0] = 10
        beside.session()
    assert events == ["open", "close", "open", "close"]


def test_a_baseline_that_fails_while_timed_is_no_finding_about_the_artifact() -> None:
    class Dead:
        def generate_one(self, *_: Any) -> Generation:
            raise StepError("the child process ended with SIGKILL")

    alive = Clock().session("B")
    with pytest.raises(BaselineLost, match="SIGKILL"):
        time_in_turn(Dead(), alive, [(1,)], 2, rounds=2)
    with pytest.raises(StepError, match="SIGKILL"):
        time_in_turn(alive, Dead(), [(1,)], 2, rounds=2)
