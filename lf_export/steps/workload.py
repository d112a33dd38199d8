"""What every artifact of a bench is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lf_export.recipe.names import ArmBeside
from lf_export.steps.arms import Routing, arm_units
from lf_export.steps.latency_grid import Grid
from lf_export.steps.prompts import Group, Prompt
from lf_export.steps.speed import Timing

Advance = Callable[..., None]


@dataclass(frozen=True)
class Workload:
    """What every artifact is asked, the baseline first.

    Attributes:
        groups: the items of both suites, by shared prefill.
        compared: ids of items whose reference answers are compared token by token.
        chat: conversations for perplexity, as (ids, which tokens count).
        timed: prompts that are timed one at a time.
        max_new_tokens: the longest answer.
        timed_tokens: tokens generated for each timed prompt.
        timed_rounds: how often each of them is timed beside the baseline.
        arms: what is asked beside the raw answers.
        routing: what the arm `routed` learns from.
        seed: draws whether baseline or artifact is first at a prompt.
        chat_groups: conversations that are answered, by shared prefill.
        chat_tokens: the longest of these answers.
        grid: prompt lengths and batch sizes that are timed, if any.
    """

    groups: Sequence[Group]
    compared: frozenset[str]
    chat: Sequence[tuple[tuple[int, ...], npt.NDArray[np.bool_]]]
    timed: Sequence[Prompt]
    max_new_tokens: int
    timed_tokens: int
    timed_rounds: int = 2
    seed: int = 0
    chat_groups: Sequence[Group] = ()
    chat_tokens: int = 32
    arms: tuple[ArmBeside, ...] = ()
    routing: Routing | None = None
    grid: Grid | None = None

    @property
    def prompts(self) -> list[Prompt]:
        """Every item."""
        return [prompt for group in self.groups for prompt in group.prompts]

    @property
    def timing(self) -> Timing:
        """What is timed one at a time, and how often."""
        return Timing([prompt.ids for prompt in self.timed], self.timed_tokens, self.timed_rounds, self.seed)

    @property
    def longest(self) -> int:
        """How many tokens the longest prompt has."""
        return max(len(prompt.ids) for prompt in self.prompts)

    @property
    def units(self) -> int:
        """How many units of progress one artifact takes."""
        answered = sum(len(group.prompts) for group in self.chat_groups)
        return len(self.prompts) + len(self.compared) + len(self.chat) + len(self.timed) + answered + self.arm_units

    @property
    def arm_units(self) -> int:
        """How many of them are the arms'."""
        own = sum(not prompt.item.variant for prompt in self.prompts)
        return sum(arm_units(arm, own, self.routing) for arm in self.arms)
