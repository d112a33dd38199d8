"""What a plan makes do with where a base or an adapter is not there yet, and the assumptions that it states."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.errors import InputError
from lf_export.recipe import Recipe
from lf_export.recipe.names import arms_beside
from lf_export.steps.arms import ROUTED_CONVERSATIONS
from lf_export.steps.sources import suite_source
from lf_export.steps.suites import load_suites
from lf_export.walk.planned import is_config_alone, planned_checkpoint


def checkpoint_for_plan(base: Path) -> Checkpoint:
    """The base by its headers, or by its config.json where it has no weights.

    Raises:
        InputError: it is no model folder, or one that cannot be planned from its config.
    """
    return _planned(base.resolve()) if is_config_alone(base) else open_checkpoint(base)


@cache
def _planned(base: Path) -> Checkpoint:
    return planned_checkpoint(base)


def check_weights(base: Path) -> None:
    """See that a base that is to be merged has weights.

    Raises:
        InputError: there is a config.json alone.
    """
    if is_config_alone(base):
        raise InputError(
            f"{base}: config.json alone, the weights of the base model were expected",
            "--dry-run plans from a config; give the model itself with --set base.path=FOLDER",
        )


def arms_cost(recipe: Recipe, folder: Path) -> list[str]:
    """What the arms of a bench cost at the most, a line each; nothing where there are none.

    Raises:
        InputError: a suite that cannot be read.
    """
    bench = recipe.bench
    if bench is None or not arms_beside(bench.arms):
        return []
    suites = {"calls": bench.calls, "no_call": bench.no_call}
    wanted = {name: (suite_source(suite.path, folder), suite.limit) for name, suite in suites.items()}
    items = sum(map(len, load_suites(wanted, bench.seed)[0].values()))
    judged = 1 + len(recipe.quantize)
    costs = {
        "constrained": f"writes again the answers that open a call, at most {items}",
        "routed": f"reads {items} prompts and at most {ROUTED_CONVERSATIONS} calibration conversations, and writes "
        f"again the answers that open a call or that it decides otherwise, at most {items}",
    }
    return [
        f"arm {arm}: for each of the {judged} models {costs[arm]}; the raw answers are {items}"
        for arm in arms_beside(bench.arms)
    ]


def assumptions(base: Checkpoint | None, adapters: Sequence[Path]) -> list[str]:
    """What a plan takes for granted, a line each; nothing where base and adapters are there."""
    lines = []
    if base is not None and base.planned:
        lines.append(
            f"the weights of the base are not there: {len(base.tensors):,} tensors, {base.nbytes / 1e9:.1f} GB in all, "
            f"are planned from {base.root.name}/config.json"
        )
        if not (base.root / "tokenizer.json").is_file():
            lines.append("the tokenizer is not there: GGUF files are planned with a vocabulary of the usual size")
    absent = [adapter.name for adapter in adapters if not adapter.exists()]
    if absent:
        lines.append(f"adapters that are not there ({', '.join(absent)}) add no tensors and resize no vocabulary")
    return lines
