"""The arms: only what they may change is written again, and what each gains and hides is counted by item."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from conversations import FUNCTIONS, user

from lf_export.calibration.choices import Choice
from lf_export.calibration.suites import EvalItem
from lf_export.errors import InputError, MissingError, StepError
from lf_export.functions.answers import Answer, Call, calling, prose, write_calls
from lf_export.functions.dialects import dialect_for
from lf_export.metrics.calls import JudgedAnswer, judge_item
from lf_export.runtimes.base import Generation, Logits, PromptGroup
from lf_export.runtimes.guides import Guides
from lf_export.steps.arm_findings import arm_results
from lf_export.steps.arms import ArmFound, RouterFacts, Routing, ask_arms
from lf_export.steps.measure import Measured
from lf_export.steps.prompts import Group, Prompt

PARIS = Call("get_weather", {"city": "Paris"})
RIGHT = write_calls([PARIS])
BROKEN = '{"function_call":{"name":"get_whether","arguments":{"city":"Paris"}}}'
DIALECT = dialect_for("llama-functions")
END = 2


def prompt(name: str, ids: tuple[int, ...], *, calls: bool, shown: bool = True, variant: str = "") -> Prompt:
    expected: Answer = calling(PARIS) if calls else prose("No.")
    item = EvalItem(name, "single", "", (user(name),), FUNCTIONS if shown else (), expected, variant=variant)
    return Prompt(item, name, ids, (*ids, 9), np.zeros(len(ids) + 1, np.uint8))


# The second token of a prompt is what the session's logits show: 1 where a call is wanted.
GROUP = Group(
    (5,),
    (
        prompt("right", (5, 1), calls=True),
        prompt("broken", (5, 1, 1), calls=True),
        prompt("silent", (5, 1, 3), calls=True),
        prompt("chat", (5, 0), calls=False),
        prompt("eager", (5, 0, 3), calls=False),
        prompt("bare", (5, 0, 4), calls=False, shown=False),
        prompt("right masked", (5, 1, 7), calls=True, variant="masked"),
    ),
)
SAID = {"right": RIGHT, "broken": BROKEN, "silent": "I do not know.", "chat": "Fine.", "eager": RIGHT, "bare": BROKEN}
ROUTING = Routing([((5, at % 2), bool(at % 2)) for at in range(8)], [((5, 1), True), ((5, 1, 1), False)])


@dataclass
class Asked:
    """A session whose logits want a call where a prompt's second token is 1; it writes what a guide asks for."""

    guided: str = "script"
    name: str = "script"
    eos_ids: frozenset[int] = frozenset({END})
    breaks: Exception | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)

    def score(self, prefix: Sequence[int], branches: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Logits]:
        """Logits of two kinds."""
        found = []
        for branch, start in zip(branches, starts, strict=True):
            whole = [*prefix, *branch[:start]]
            found.append(np.zeros((len(branch) - start, 12), np.float32))
            found[-1][0, whole[1]] = 5
        return found

    def generate_groups(
        self, groups: Sequence[PromptGroup], most: int, guides: Guides
    ) -> Iterator[tuple[int, list[Generation]]]:
        """The answers, by the prompts' ids."""
        if self.breaks is not None:
            raise self.breaks
        for number, ((prefix, branches), held) in enumerate(zip(groups, guides, strict=True)):
            names = [next(each.item.id for each in GROUP.prompts if each.ids == (*prefix, *ids)) for ids in branches]
            modes = [guide.mode for guide in held if guide is not None]
            self.seen += zip(names, modes, strict=True)
            texts = ["Sorry." if mode == "prose" else RIGHT for mode in modes]
            yield number, [Generation((most, END), text, (0.1, 0.2)) for text in texts]


def raw() -> dict[str, JudgedAnswer]:
    ids = (1, END)
    return {
        each.item.id: judge_item(DIALECT.parse(SAID[each.item.id]), each.item, ids, frozenset({END}))
        for each in GROUP.prompts[:-1]
    }


def ask(session: Any, *arms: Any, routing: Routing | None = ROUTING) -> tuple[dict[str, ArmFound], float]:
    done: list[float] = []

    def advance(units: float, _note: str) -> None:
        done.append(units)

    found = ask_arms(arms, session, [GROUP], raw(), DIALECT, routing, max_new_tokens=8, advance=advance)
    return found, sum(done)


def test_the_grammar_is_asked_where_the_raw_answer_opens_a_call_and_nowhere_else() -> None:
    session = Asked()
    found, done = ask(session, "constrained")
    assert session.seen == [("right", "lazy"), ("broken", "lazy"), ("eager", "lazy")]
    arm = found["constrained"]
    assert (arm.engine, arm.asked, len(arm.answers), done) == ("script", 3, 6, 6)
    assert arm.answers["broken"].exact
    for same in ("silent", "chat", "bare"):
        assert arm.answers[same] == raw()[same]


def test_a_router_asks_again_only_where_it_decides_otherwise() -> None:
    session = Asked()
    found, done = ask(session, "constrained", "routed")
    assert session.seen[3:] == [("silent", "call"), ("eager", "prose")]
    arm = found["routed"]
    assert {name: answer.exact for name, answer in arm.answers.items()} == {
        "right": True, "broken": True, "silent": True, "chat": True, "eager": True, "bare": False
    }  # fmt: skip
    assert arm.router == RouterFacts(trained=8, held=2, held_right=1, items=5, items_right=5)
    assert arm.asked == 4
    assert done == 6 + 2 * 6 + 10
    alone, _ = ask(Asked(), "routed")
    assert alone["routed"].answers == arm.answers


def test_a_runtime_without_an_engine_is_named_and_gives_no_raw_answers() -> None:
    found, _ = ask(Asked(guided="", name="onnx"), "constrained", "routed")
    for arm in found.values():
        assert arm == ArmFound(missing="the runtime onnx takes no grammar")


def test_what_breaks_leaves_the_arm_out_but_a_missing_package_ends_the_bench() -> None:
    found, done = ask(Asked(breaks=StepError("the child died")), "constrained", "routed")
    assert [arm.missing for arm in found.values()] == ["the child died"] * 2
    assert done == 6 + 2 * 6 + 10
    with pytest.raises(MissingError):
        ask(Asked(breaks=MissingError("llguidance is not installed")), "constrained")


def test_logits_that_are_not_finite_leave_the_router_out() -> None:
    session = Asked()
    session.score = lambda *_: [np.full((1, 12), np.nan, np.float32)]  # type: ignore[method-assign]
    found, _ = ask(session, "routed")
    assert "not finite" in found["routed"].missing


def test_conversations_that_are_longer_than_the_suites_prompts_teach_nothing() -> None:
    from models import tiny_tokenizer

    parts = [[Choice((user(text),), FUNCTIONS, calls) for text, calls in (("a", True), ("b", False))]] * 2
    dialect = dialect_for("chat-template", tiny_tokenizer())
    assert len(Routing.of((parts[0], parts[1]), dialect, tiny_tokenizer(), 10_000)) == 4
    with pytest.raises(InputError, match="at most 20 tokens"):
        Routing.of((parts[0], parts[1]), dialect, tiny_tokenizer(), 20)


def measured(answers: dict[str, JudgedAnswer], arm: ArmFound) -> Measured:
    return Measured("script", answers=answers, arms={"constrained": arm})


def test_gains_losses_and_what_is_hidden_are_counted_by_item() -> None:
    prompts = list(GROUP.prompts)
    good = {**raw(), "broken": raw()["right"]}  # the baseline has one more right, raw
    ours, theirs = ask(Asked(), "constrained")[0]["constrained"], ArmFound("script", "", good, 0)
    (result,) = arm_results(measured(raw(), ours), measured(good, theirs), prompts)
    calls, silent = result.changes
    assert (calls.endpoint, calls.n, calls.right, calls.gained, calls.lost) == ("strict_call", 3, 2, 1, 0)
    assert calls.change == pytest.approx(1 / 3)
    assert calls.lower is not None
    assert calls.upper is not None
    assert calls.lower < 1 / 3 < calls.upper
    # raw it lost one against the baseline, in the arm none: all of the damage is hidden
    assert calls.raw_loss == pytest.approx(1 / 3)
    assert calls.loss == 0
    assert (calls.raw_lost, calls.hidden) == (1, 1)
    assert (silent.n, silent.right, silent.gained, silent.raw_lost) == (3, 1, 0, 0)
    assert (result.raw_unknown_functions, result.unknown_functions) == (2, 1)
    assert [(item.id, item.correct) for item in result.items] == [("broken", True)]


def test_the_baseline_has_no_loss_and_an_arm_that_is_missing_only_its_reason() -> None:
    ours = ask(Asked(), "constrained")[0]["constrained"]
    (result,) = arm_results(measured(raw(), ours), None, list(GROUP.prompts))
    assert all(change.loss is None and change.hidden is None for change in result.changes)
    (gone,) = arm_results(measured(raw(), ArmFound(missing="no engine")), None, list(GROUP.prompts))
    assert (gone.missing, gone.changes, gone.malformed) == ("no engine", [], None)
