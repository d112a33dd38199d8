"""What a recipe asks of its bench, as the bench's own options."""

from pathlib import Path

from lf_export.recipe.model import BenchRecipe, Recipe
from lf_export.steps.bench import BenchOptions
from lf_export.steps.sources import suite_source


def bench_options(recipe: Recipe, bench: BenchRecipe, folder: Path, threads: int) -> BenchOptions:
    """The options of `bench`, the recipe's own, with paths relative to `folder`.

    Raises:
        InputError: a suite is not there.
    """
    return BenchOptions(
        dialect=recipe.calibration.dialect,
        calls=suite_source(bench.calls.path, folder),
        no_call=suite_source(bench.no_call.path, folder),
        chat=suite_source(bench.chat.path, folder),
        limit_calls=bench.calls.limit,
        limit_no_call=bench.no_call.limit,
        limit_chat=bench.chat.limit,
        max_new_tokens=bench.max_new_tokens,
        fidelity_items=bench.fidelity_items,
        drift_items=bench.drift_items,
        drift_tokens=bench.drift_tokens,
        latency_prompts=bench.latency_prompts,
        latency_tokens=bench.latency_tokens,
        latency_rounds=bench.latency_rounds,
        variants=tuple(bench.variants),
        allow_contaminated=tuple(bench.allow_contaminated),
        runtimes=dict(bench.runtimes),
        margin=recipe.gate.margin,
        alpha=recipe.gate.alpha,
        margins={str(name): margin for name, margin in recipe.gate.margins.items()},
        min_items=recipe.gate.min_items,
        baseline_floor=recipe.gate.baseline_floor,
        limits={str(name): limit for name, limit in recipe.gate.limits.items()},
        controls=recipe.gate.controls,
        enforce=None if recipe.gate.enforce is None else tuple(recipe.gate.enforce),
        seed=bench.seed,
        threads=threads,
        name=recipe.name,
    )
