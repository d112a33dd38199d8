"""`plan` and `run`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lf_export.api.given import StrPath, one_of, size, within
from lf_export.errors import InputError

if TYPE_CHECKING:
    from lf_export.report import Report


def plan(
    recipe: StrPath,
    *,
    settings: Mapping[str, Any] | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
) -> dict[str, Any]:
    """What `run` would do, with bytes to read and write, peak memory and disk; no weight is touched.

    >>> lf_export.plan("release.yaml")["needs"]["disk"]

    Args:
        recipe: a file, or `shipped:NAME`.
        settings: values in place of the recipe's own, by key, such as `{"gate.margin": 0.03}`.
        threads: to compute with; the recipe's where not given.
        memory: what quantizing may take in all, in bytes or such as `4GB`.

    Raises:
        InputError: a wrong recipe, model, adapter or data, all mistakes at once.
    """
    from lf_export.recipe import overrides_from
    from lf_export.steps.run import plan_text

    within("threads", 1 if threads is None else threads, 1)
    return plan_text(Path(recipe), threads, size("memory", memory), overrides_from(settings or {}))[1]


def run(
    recipe: StrPath,
    *,
    settings: Mapping[str, Any] | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    wait: bool = False,
) -> "Report | None":
    """Merge, calibrate, quantize and bench as a recipe says; returns the report, None for one with `bench: null`.

    A run that was interrupted goes on where it stopped, and what was finished before is not done again.

    >>> report = lf_export.run("release.yaml", settings={"output": "runs/release", "gate.margin": 0.03})
    >>> report.verdict
    'INCONCLUSIVE'

    Args:
        recipe: a file, or `shipped:NAME`.
        settings: values in place of the recipe's own, by key; paths are relative to the working folder.
        engine: `ray` makes each target and each artifact's bench a task of a cluster.
        ray_address: of a Ray cluster, such as `auto`; one of this machine where not given.
        threads: to compute with; the recipe's where not given.
        memory: what quantizing may take in all, in bytes or such as `4GB`.
        wait: while another run writes the output, instead of an error.

    Raises:
        InputError: a wrong recipe, model, adapter or data.
        MissingError: a package that a step needs is not installed.
        StepError: a step failed; what was finished before it stays.
    """
    from lf_export.checkpoint.lock import waiting
    from lf_export.recipe import overrides_from
    from lf_export.report import Report
    from lf_export.steps.run import run_recipe

    within("threads", 1 if threads is None else threads, 1)
    one_of("engine", engine, ("local", "ray"))
    if ray_address is not None and engine != "ray":
        raise InputError("ray_address: given without engine='ray'")
    overrides = overrides_from(settings or {})
    limit = size("memory", memory)
    with waiting(wait=wait):
        facts = run_recipe(Path(recipe), threads, limit, overrides, engine=engine, address=ray_address).facts
    return Report.model_validate(facts) if "verdict" in facts else None
