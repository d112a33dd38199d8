"""How many items a verdict needs, said before anything is measured (`lf-export bench --plan`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from lf_export.calibration.suites import EvalItem
from lf_export.errors import InputError
from lf_export.metrics.gate import ABSTENTION, STRICT_CALL
from lf_export.report import cells
from lf_export.stats import items_for_pass, paired
from lf_export.steps.prompts import cluster_of
from lf_export.steps.suites import load_suites

USUAL_DISCORDANCE = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class PlanOptions:
    """What is planned.

    Attributes:
        suites: `calls` and `no_call` → (suite, limit), as they will be judged.
        margin: the largest loss that is accepted.
        discordance: shares of items that may flip either way, each planned for.
        loss: the true loss that is assumed.
        power: probability of the PASS.
        alpha: one-sided level of the bounds.
        seed: of the stratified parts.
    """

    suites: Mapping[str, tuple[str, int | None]]
    margin: float = 0.05
    discordance: Sequence[float] = USUAL_DISCORDANCE
    loss: float = 0.0
    power: float = 0.8
    alpha: float = 0.05
    seed: int = 0


def plan_bench(options: PlanOptions) -> dict[str, Any]:
    """For each endpoint and share of flips, the items that a PASS needs and those that there are.

    Raises:
        InputError: a suite cannot be read, or a loss that is larger than the share of flips.
    """
    items, suites = load_suites(options.suites, options.seed)
    rows = []
    for endpoint, name in ((STRICT_CALL, "calls"), (ABSTENTION, "no_call")):
        chosen, facts = items[name], getattr(suites, name)
        effect = _design_effect(chosen)
        for discordance in options.discordance:
            if options.loss > discordance:
                raise InputError(
                    f"a loss of {options.loss:g} needs flips on as many items, not on {discordance:g}",
                    "give a larger --discordance",
                )
            alone = items_for_pass(options.margin, discordance, options.loss, options.alpha, options.power)
            needed = None if alone is None else ceil(alone * effect)
            rows.append(
                {
                    "endpoint": endpoint,
                    "suite": facts.path,
                    "items": len(chosen),
                    "margin": options.margin,
                    "discordance": discordance,
                    "design_effect": effect,
                    "items_needed": needed,
                    "enough": needed is not None and len(chosen) >= needed,
                }
            )
    return {"loss": options.loss, "power": options.power, "alpha": options.alpha, "plan": rows}


def plan_text(plan: Mapping[str, Any]) -> str:
    """The plan as a table for the terminal."""
    head = ("endpoint", "margin", "items that flip", "items needed", "items there are", "enough")
    rows = [
        [
            row["endpoint"],
            cells.points(row["margin"]),
            cells.percent(row["discordance"]),
            "no number" if row["items_needed"] is None else f"{row['items_needed']:,}",
            f"{row['items']:,}",
            "yes" if row["enough"] else "no",
        ]
        for row in plan["plan"]
    ]
    asked = (
        f"items for a PASS with a probability of {plan['power']:.0%} where {cells.points(plan['loss'])} are truly lost"
    )
    return f"{cells.plain_table(head, rows)}\n\n{asked}; items that show the same functions count a little less"


def _design_effect(items: Sequence[EvalItem]) -> float:
    """What is assumed of the suite's clusters before anything has flipped."""
    right = [True] * len(items)
    return paired(right, right, [cluster_of(item) for item in items]).design_effect
