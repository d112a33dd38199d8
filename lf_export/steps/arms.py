"""The arms beside the raw answers: held to a grammar, and routed by a classifier; reported, never judged.

An answer that an arm would not change is the raw one and is not written again. Greedy answers are what they are: prose
under a lazy grammar is the raw prose, token for token.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lf_export.calibration.choices import Choice, choices
from lf_export.calibration.samples import load_samples
from lf_export.calibration.suites import EvalItem
from lf_export.calibration.tokens import encode
from lf_export.errors import ExportError, InputError, StepError
from lf_export.functions.dialects import Dialect
from lf_export.functions.grammars import CallGrammar, call_grammar
from lf_export.functions.spec import FunctionSpec
from lf_export.metrics.calls import JudgedAnswer, judge_item
from lf_export.metrics.router import fit_router
from lf_export.recipe.names import ArmBeside
from lf_export.runtimes.child import ChildSession
from lf_export.runtimes.guides import Guide
from lf_export.shipped import shipped
from lf_export.steps.prompts import Group, Prompt

ROUTED_CONVERSATIONS = 192
"""What a router learns from and is tried on, at most."""

Row = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Routing:
    """Prompts whose answers are known to call or not: `learnt` to fit the router, `held` to see how good it is."""

    learnt: Sequence[tuple[tuple[int, ...], bool]]
    held: Sequence[tuple[tuple[int, ...], bool]]

    @classmethod
    def of(
        cls, parts: tuple[Sequence[Choice], Sequence[Choice]], dialect: Dialect, tokenizer: Any, longest: int
    ) -> "Routing":
        """The choices as token ids, without those of more than `longest` tokens.

        Raises:
            InputError: what is left of a part is all of one kind.
        """

        def ids(choice: Choice) -> tuple[int, ...]:
            pieces = dialect.render(choice.messages, choice.functions, generate=True)
            return tuple(encode(pieces, tokenizer, bos=dialect.bos).ids.tolist())

        tokens = [[(ids(choice), choice.calls) for choice in part] for part in parts]
        kept = [[(prompt, calls) for prompt, calls in part if len(prompt) <= longest] for part in tokens]
        if any(len({calls for _, calls in part}) < 2 for part in kept):
            raise InputError(
                f"too few calibration conversations have at most {longest} tokens, twice the suites' longest prompt, "
                "so there is nothing to learn routing from",
                "leave the arm routed out",
            )
        return cls(*kept)

    def __len__(self) -> int:
        return len(self.learnt) + len(self.held)


@dataclass(frozen=True)
class RouterFacts:
    """How good a router is: on held-out conversations, and on the items of the suites that show functions."""

    trained: int
    held: int
    held_right: int
    items: int
    items_right: int


@dataclass(frozen=True)
class ArmFound:
    """What one arm gave on one artifact.

    Attributes:
        engine: what held answers to the grammar; "" where nothing could.
        missing: why there are no answers, in words.
        answers: by item id, of the suites' own items.
        asked: how many were written again; the others are the raw ones.
        router: for `routed`.
    """

    engine: str = ""
    missing: str = ""
    answers: Mapping[str, JudgedAnswer] = field(default_factory=dict)
    asked: int = 0
    router: RouterFacts | None = None


def routing_of(
    calls: Sequence[Path], chat: Sequence[Path], dialect: Dialect, tokenizer: Any, longest: int, seed: int
) -> Routing:
    """What the arm `routed` learns from: conversations of these files, where there are none of those that ship.

    Raises:
        InputError: a file with mistakes, or too few conversations that call or that do not.
    """
    files = [
        *(calls or (shipped("calibration", "calls.jsonl"),)),
        *(chat or (shipped("calibration", "chat.jsonl"),)),
    ]
    samples = [sample for file in files for sample in load_samples(file)]
    return Routing.of(choices(samples, ROUTED_CONVERSATIONS, seed), dialect, tokenizer, longest)


def arm_units(arm: ArmBeside, items: int, routing: Routing | None) -> int:
    """Units of progress that an arm takes over so many items: one each, and for a router one more to read each."""
    return items if arm == "constrained" else 2 * items + (len(routing) if routing else 0)


def no_arms(arms: Sequence[ArmBeside], why: str) -> dict[str, ArmFound]:
    """Every arm, with why there is none."""
    return {arm: ArmFound(missing=why) for arm in arms}


def ask_arms(
    arms: Sequence[ArmBeside],
    session: ChildSession,
    groups: Sequence[Group],
    raw: Mapping[str, JudgedAnswer],
    dialect: Dialect,
    routing: Routing | None,
    *,
    max_new_tokens: int,
    advance: Callable[..., None],
) -> dict[str, ArmFound]:
    """Each arm's answers to the items of `groups` that are no variants; what breaks leaves an arm without answers.

    Raises:
        MissingError: the engine's package is not installed.
    """
    if not session.guided:
        return no_arms(arms, f"the runtime {session.name} takes no grammar")
    own = [
        replace(group, prompts=kept)
        for group in groups
        if (kept := tuple(prompt for prompt in group.prompts if not prompt.item.variant))
    ]
    asking = _Asking(session, own, raw, dialect, max_new_tokens, advance)
    found: dict[str, ArmFound] = {}
    counted = 0
    held: dict[str, JudgedAnswer] = {}
    for arm in arms:
        try:
            if arm == "constrained":
                held = asking.answers(asking.opened(), "lazy")
                found[arm] = ArmFound(session.guided, "", {**asking.raw, **held}, len(held))
            elif routing is not None:
                found[arm] = _routed(asking, routing, held)
        except ExportError as error:
            if error.status == 4:
                raise
            found[arm] = ArmFound(missing=error.message)
        counted += arm_units(arm, len(asking.raw), routing)
        advance(counted - asking.done.total(), arm)
        asking.done["units"] = counted
    return found


@dataclass(frozen=True)
class _Asking:
    """What every arm needs: the session, the items, their raw answers."""

    session: ChildSession
    groups: Sequence[Group]
    given: Mapping[str, JudgedAnswer]
    dialect: Dialect
    most: int
    advance: Callable[..., None]
    done: Counter[str] = field(default_factory=Counter)
    grammars: dict[tuple[FunctionSpec, ...], CallGrammar] = field(default_factory=dict)

    @property
    def raw(self) -> dict[str, JudgedAnswer]:
        """The raw answers of the items."""
        return {prompt.item.id: self.given[prompt.item.id] for prompt in self.prompts}

    @property
    def prompts(self) -> list[Prompt]:
        """The items."""
        return [prompt for group in self.groups for prompt in group.prompts]

    def grammar(self, item: EvalItem) -> CallGrammar:
        """The grammar of calls to the item's functions."""
        if item.functions not in self.grammars:
            self.grammars[item.functions] = call_grammar(item.functions, self.dialect.form)
        return self.grammars[item.functions]

    def opened(self) -> set[str]:
        """Items whose raw answer attempts a call: those that a lazy grammar may change."""
        return {
            prompt.item.id
            for prompt in self.prompts
            if prompt.item.functions and self.grammar(prompt.item).opened(self.given[prompt.item.id].text)
        }

    def answers(self, wanted: set[str], mode: Literal["lazy", "call", "prose"]) -> dict[str, JudgedAnswer]:
        """The answers to these items under a guide of that mode."""
        chosen = [
            replace(group, prompts=members)
            for group in self.groups
            if (members := tuple(prompt for prompt in group.prompts if prompt.item.id in wanted))
        ]
        asked = [(group.prefix, group.branches) for group in chosen]
        guides = [[Guide(self.grammar(prompt.item), mode) for prompt in group.prompts] for group in chosen]
        found = {}
        for number, generations in self.session.generate_groups(asked, self.most, guides):
            for prompt, generation in zip(chosen[number].prompts, generations, strict=True):
                answer = self.dialect.parse(generation.text)
                found[prompt.item.id] = judge_item(answer, prompt.item, generation.ids, self.session.eos_ids)
                self._did(1, prompt.item.id)
        return found

    def beginnings(self, prefix: Sequence[int], branches: Sequence[Sequence[int]]) -> list[Row]:
        """For each prompt the logits of its answer's first token, [vocab_size].

        Raises:
            StepError: they are not finite.
        """
        # What follows the prompt is not looked at, but a place is needed to be predicted.
        rows = self.session.score(prefix, [[*ids, ids[-1]] for ids in branches], [len(ids) for ids in branches])
        if not all(np.isfinite(row).all() for row in rows):
            raise StepError("logits are not finite where an answer begins")
        self._did(len(branches), "router")
        return [row[0] for row in rows]

    def _did(self, units: int, note: str) -> None:
        self.done["units"] += units
        self.advance(units, note)


def _routed(asking: _Asking, routing: Routing, held: Mapping[str, JudgedAnswer]) -> ArmFound:
    """The model's answer where it does what the router says, else one that is made to."""
    learnt = [row for ids, _ in routing.learnt for row in asking.beginnings((), [ids])]
    router = fit_router(learnt, [calls for _, calls in routing.learnt])
    right = sum(router.wants_call(asking.beginnings((), [ids])) == [calls] for ids, calls in routing.held)
    wants: dict[str, bool] = {}
    expected: dict[str, bool] = {}
    for group in asking.groups:
        decided = router.wants_call(asking.beginnings(group.prefix, group.branches))
        for prompt, wanted in zip(group.prompts, decided, strict=True):
            if prompt.item.functions:  # without functions there is nothing to decide
                wants[prompt.item.id], expected[prompt.item.id] = wanted, bool(prompt.item.expected.calls)
    opened = asking.opened()
    calls = {name for name, wanted in wants.items() if wanted}
    prose = wants.keys() - calls
    known = {name: answer for name, answer in held.items() if name in calls}
    new = {
        **asking.answers((calls & opened) - known.keys(), "lazy"),
        **asking.answers(calls - opened, "call"),
        **asking.answers(prose & opened, "prose"),
    }
    facts = RouterFacts(
        trained=len(routing.learnt),
        held=len(routing.held),
        held_right=right,
        items=len(wants),
        items_right=sum(wanted == expected[name] for name, wanted in wants.items()),
    )
    return ArmFound(asking.session.guided, "", {**asking.raw, **known, **new}, len(known) + len(new), facts)
