"""`lf-export run`: a recipe, the whole way."""

from pathlib import Path

import click

from lf_export.cli.options import FOLDER, json_option, memory_option, set_option, threads_option, wait_option


@click.command(short_help="A recipe, the whole way.")
@click.argument("recipe", type=FOLDER)
@click.option("--dry-run", is_flag=True, help="Print the plan: steps, bytes, peak memory, disk. No weight is touched.")
@set_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="local: all targets in one pass, here. ray: each target and each artifact's bench as a task of a cluster.",
)
@click.option("--ray-address", metavar="ADDRESS", help="A Ray cluster, such as auto [default: one of this machine].")
@threads_option
@memory_option
@json_option
@wait_option
def run(
    recipe: Path,
    dry_run: bool,
    settings: tuple[str, ...],
    engine: str,
    ray_address: str | None,
    threads: int,
    memory: int | None,
    as_json: bool,
) -> int:
    """Merge, calibrate, quantize and bench as RECIPE says, and give the verdict.

    RECIPE is a file, or shipped:NAME for one that ships (`lf-export recipe list`). With --dry-run a base of config.json
    alone is enough, and adapters may be missing: the plan says what it assumed.

    A run that was interrupted goes on where it stopped. The exit status is the gate's: 0 PASS, 10 FAIL,
    11 INCONCLUSIVE.
    """
    from lf_export.cli.output import emit
    from lf_export.cli.progress import shown
    from lf_export.recipe import read_overrides
    from lf_export.steps.run import plan_text, run_recipe

    given = click.get_current_context().get_parameter_source("threads")
    wanted = threads if given is not click.core.ParameterSource.DEFAULT else None
    overrides = read_overrides(settings)
    if ray_address is not None and engine != "ray":
        raise click.UsageError("--ray-address needs --engine ray.")
    if dry_run:
        text, facts = plan_text(recipe, wanted, memory, overrides)
        emit(facts, text, as_json=as_json)
        return 0
    with shown():
        outcome = run_recipe(recipe, wanted, memory, overrides, engine=engine, address=ray_address)
    emit(outcome.facts, outcome.text, as_json=as_json)
    return outcome.status
