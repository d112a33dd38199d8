"""What a bench is asked to do: by options, or by a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lf_export.recipe import Recipe
from lf_export.recipe.model import BenchRecipe
from lf_export.recipe.names import ArmBeside, arms_beside
from lf_export.steps.baseline_cache import cache_folder
from lf_export.steps.latency_grid import Grid
from lf_export.steps.latency_plan import grid_of
from lf_export.steps.sources import data_path, suite_source


@dataclass(frozen=True)
class BenchOptions:
    """What is asked of every artifact; suites are files, `shipped:NAME`, `bfcl:PATH` or `hf:NAME[:SPLIT]`.

    The raw answers are always asked for; `arms` come beside them. A router learns from the conversations in the files
    `router_calls` and `router_chat`, where none are given from those that ship. `cache` is a folder that keeps the
    baseline's answers for other runs, or None.
    """

    dialect: str = "chat-template"
    calls: str = "shipped:suites/calls.jsonl"
    no_call: str = "shipped:suites/no-call.jsonl"
    chat: str = "shipped:suites/chat.jsonl"
    limit_calls: int | None = None
    limit_no_call: int | None = None
    limit_chat: int | None = None
    variants: tuple[str, ...] = ()
    allow_contaminated: tuple[str, ...] = ()
    max_new_tokens: int = 192
    fidelity_items: int = 96
    drift_items: int = 8
    drift_tokens: int = 32
    latency_prompts: int = 8
    latency_tokens: int = 48
    latency_rounds: int = 2
    grid: Grid | None = None
    runtimes: Mapping[str, str] = field(default_factory=dict)
    margin: float = 0.05
    alpha: float = 0.05
    margins: Mapping[str, float] = field(default_factory=dict)
    min_items: int = 1
    baseline_floor: float = 0.25
    limits: Mapping[str, float] = field(default_factory=dict)
    controls: bool = False
    enforce: tuple[str, ...] | None = None
    seed: int = 0
    threads: int = 1
    name: str = "bench"
    cache: Path | None = field(default_factory=cache_folder)
    arms: tuple[ArmBeside, ...] = ()
    router_calls: tuple[Path, ...] = ()
    router_chat: tuple[Path, ...] = ()

    @classmethod
    def of_recipe(cls, recipe: Recipe, bench: BenchRecipe, folder: Path, threads: int) -> Self:
        """As a recipe in `folder` says it.

        Raises:
            InputError: a file that it names is not there.
        """
        gate = recipe.gate
        return cls(
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
            grid=grid_of(bench),
            variants=tuple(bench.variants),
            allow_contaminated=tuple(bench.allow_contaminated),
            runtimes=dict(bench.runtimes),
            margin=gate.margin,
            alpha=gate.alpha,
            margins={str(name): margin for name, margin in gate.margins.items()},
            min_items=gate.min_items,
            baseline_floor=gate.baseline_floor,
            limits={str(name): limit for name, limit in gate.limits.items()},
            controls=gate.controls,
            enforce=None if gate.enforce is None else tuple(gate.enforce),
            seed=bench.seed,
            threads=threads,
            name=recipe.name,
            arms=arms_beside(bench.arms),
            router_calls=tuple(data_path(name, folder) for name in recipe.calibration.calls),
            router_chat=tuple(data_path(name, folder) for name in recipe.calibration.chat),
        )
