"""`run`: a recipe from the base model to the verdict; what was finished before is not done again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.checkpoint.lock import writing
from lf_export.errors import InputError, StepError
from lf_export.progress import say
from lf_export.recipe import Override, Recipe, load_recipe
from lf_export.steps import estimate
from lf_export.steps.bench import BenchOutcome, bench_artifacts, earlier_bench
from lf_export.steps.bench_options import BenchOptions
from lf_export.steps.calibrate import CalibrateOptions, calibrate_model
from lf_export.steps.controls import check_names
from lf_export.steps.dequantize import dequantized
from lf_export.steps.disk import check_disk, check_outputs
from lf_export.steps.engine import Cluster, opened
from lf_export.steps.engine_tasks import quantized_apart
from lf_export.steps.inputs import calibration_inputs
from lf_export.steps.latency_plan import latency_cost
from lf_export.steps.measure_endpoint import ServedArtifact
from lf_export.steps.merge import MergeOptions, merge_model
from lf_export.steps.plan import Step, as_facts, table, totals
from lf_export.steps.planned import arms_cost, assumptions, check_weights, checkpoint_for_plan
from lf_export.steps.quantize import TargetPlan, check_targets, files_of, quantize_targets
from lf_export.steps.recipes import recipe_file
from lf_export.steps.record import claim, fingerprint, is_done, record, step_digest
from lf_export.steps.release import sign_judged, signer_of, unsign
from lf_export.steps.sources import base_path, data_path, suite_fingerprint, suite_source
from lf_export.walk.budget import default_budget, parse_size

MERGED, CALIBRATION, BENCH = "merged", "calibration", "bench"


@dataclass(frozen=True)
class RunOutcome:
    """What a run prints and leaves with: its text, its facts as JSON values, its exit status."""

    text: str
    facts: Mapping[str, Any]
    status: int


@dataclass(frozen=True)
class _Inputs:
    """A recipe and where everything that it names lies; `base` is None while a script has not made it.

    A `dry` plan makes do with a base of config.json alone, and with adapters that are not there.
    """

    recipe: Recipe
    folder: Path
    base: Path | None
    adapters: tuple[Path, ...]
    output: Path
    threads: int
    memory: int
    dry: bool


def plan_text(
    path: Path, threads: int | None, memory: int | None = None, overrides: Sequence[Override] = ()
) -> tuple[str, dict[str, Any]]:
    """The plan for a person, and as JSON values; only headers are read, or config.json where there are no weights.

    Raises:
        InputError: a wrong recipe, model, adapter or data.
    """
    inputs = _inputs(path, threads, memory, overrides, prepare=False)
    steps = _timed(inputs, _steps(inputs))
    text = table(steps)
    if any(step.seconds is not None for step in steps):
        text += "\ntimes are estimates, from rates measured on this machine just now"
    if inputs.base is None:
        text += f"\nthe base model is not there yet: {inputs.recipe.base.script} will make it, sizes are known then"
    base = _checkpoint(inputs)
    assumed = assumptions(base, inputs.adapters)
    text += "".join(f"\nassumed: {each}" for each in assumed)
    arms = arms_cost(inputs.recipe, inputs.folder)
    text += "".join(f"\n{line}" for line in arms)
    latency = latency_cost(inputs.recipe.bench, None if base is None else base.config)
    text += "".join(f"\n{line}" for line in latency)
    return text, {**as_facts(steps), "assumptions": assumed, "arms": arms, "latency": latency}


def run_recipe(
    path: Path,
    threads: int | None,
    memory: int | None = None,
    overrides: Sequence[Override] = (),
    *,
    engine: str = "local",
    address: str | None = None,
) -> RunOutcome:
    """Do every step of the recipe that is not done yet, and give the verdict.

    The local engine makes all targets in one walk. On a cluster each target is a task with a walk of its own, and so
    is the measuring of each artifact; they are done beside each other.

    Raises:
        InputError: a wrong recipe, model, adapter or data.
        MissingError: a package that a step needs is not installed.
        StepError: a step failed; what was finished before it stays.
    """
    output = Path(load_recipe(recipe_file(path), overrides).output)
    with writing(output):
        inputs = _inputs(path, threads, memory, overrides, prepare=True)
        return _run(inputs, engine, address)


def _run(inputs: _Inputs, engine: str, address: str | None) -> RunOutcome:
    steps = {step.name: step for step in _steps(inputs)}
    check_outputs(steps)
    _check_disk(inputs.output, steps)
    inputs.output.mkdir(parents=True, exist_ok=True)
    try:
        with opened(engine, address) as cluster:
            return _done(inputs, steps, cluster)
    except KeyboardInterrupt as error:
        finished = [step.name for step in steps.values() if is_done(step.output, step.digest)]
        error.add_note(f"finished steps, which are kept: {', '.join(finished) or 'none'}")
        raise


def _done(inputs: _Inputs, steps: Mapping[str, Step], cluster: Cluster | None) -> RunOutcome:
    for step in steps.values():
        if step.done:
            say(f"{step.name}: done before, kept")
        else:
            claim(step.output, step.digest)
    if not steps[MERGED].done:
        _merge(inputs, steps[MERGED])
    if not steps[CALIBRATION].done:
        calibrate_model(_calibrate_options(inputs, steps[CALIBRATION].output))
        record(steps[CALIBRATION].output, steps[CALIBRATION].digest)
    waiting = [plan for plan in _targets(inputs) if not steps[plan.name].done]
    if cluster is None:
        if waiting:
            _quantize(inputs, waiting, steps)
    else:
        memory = {plan.name: steps[plan.name].peak_memory for plan in waiting}
        folders = (inputs.output / MERGED, inputs.output / CALIBRATION)
        for name in quantized_apart(*folders, waiting, memory, inputs.threads, inputs.memory, cluster):
            record(inputs.output / name, steps[name].digest)
    return _judged(inputs, steps, cluster)


def _judged(inputs: _Inputs, steps: Mapping[str, Step], cluster: Cluster | None) -> RunOutcome:
    if inputs.recipe.bench is None:
        _sign(inputs, {}, None)
        text = "\n".join(str(plan.out) for plan in _targets(inputs))
        return RunOutcome(text, {"artifacts": [str(plan.out) for plan in _targets(inputs)]}, 0)
    if inputs.recipe.sign is not None and not steps[BENCH].done:
        unsign(plan.out for plan in _targets(inputs))
    outcome = _bench(inputs, steps[BENCH], cluster)
    verdicts = {each["name"]: each["gate"]["verdict"] for each in outcome.facts["artifacts"] if each["gate"]}
    _sign(inputs, verdicts, steps[BENCH].output)
    return RunOutcome(outcome.text, outcome.facts, outcome.status)


def _merge(inputs: _Inputs, step: Step) -> None:
    wanted = inputs.recipe.merge
    merge_model(
        MergeOptions(
            base=_known_base(inputs),
            adapters=inputs.adapters,
            out=step.output,
            dtype=wanted.dtype,
            overwrite=True,
            threads=inputs.threads,
            weights=_weights(inputs.recipe),
            combine=wanted.combine,
            dequantize_base=wanted.dequantize_base,
            check_logits=wanted.check_logits,
        )
    )
    record(step.output, step.digest)


def _quantize(inputs: _Inputs, waiting: list[TargetPlan], steps: Mapping[str, Step]) -> None:
    from lf_export.calibration.build import CalibrationSet  # noqa: PLC0415 - heavy

    checkpoint = open_checkpoint(inputs.output / MERGED)
    calibration = CalibrationSet.load(inputs.output / CALIBRATION)
    quantize_targets(
        checkpoint,
        waiting,
        calibration,
        calibration_files=calibration_inputs(inputs.output / CALIBRATION),
        overwrite=True,
        threads=inputs.threads,
        memory=inputs.memory,
    )
    for plan in waiting:
        record(plan.out, steps[plan.name].digest)


def _bench(inputs: _Inputs, step: Step, cluster: Cluster | None) -> BenchOutcome:
    recipe = inputs.recipe
    if recipe.bench is None:
        raise StepError("the recipe has no bench")
    options = BenchOptions.of_recipe(recipe, recipe.bench, inputs.folder, inputs.threads)
    made = {plan.name: plan.out for plan in _targets(inputs)}
    if step.done:
        return earlier_bench(made, step.output)
    artifacts: dict[str, Path | ServedArtifact] = {**made}
    artifacts |= {
        name: ServedArtifact(server.settings(), inputs.output / server.artifact if server.artifact else None)
        for name, server in recipe.bench.endpoints.items()
    }
    outcome = bench_artifacts(artifacts, inputs.output / MERGED, step.output, options, cluster)
    record(step.output, step.digest)
    return outcome


def _sign(inputs: _Inputs, verdicts: Mapping[str, str], report: Path | None) -> None:
    """Sign what passed, where the recipe says with what."""
    wanted = inputs.recipe.sign
    if wanted is not None:
        made = {plan.name: plan.out for plan in _targets(inputs)}
        sign_judged(made, verdicts, signer_of(wanted, inputs.folder), report, unjudged=wanted.unjudged)


def _inputs(
    path: Path, threads: int | None, memory: int | None, overrides: Sequence[Override], *, prepare: bool
) -> _Inputs:
    path = recipe_file(path)
    recipe = load_recipe(path, overrides)
    folder = path.resolve().parent
    adapters = tuple((folder / source.path).resolve() for source in recipe.adapters)
    problems = [
        f"{path}: adapters[{n}]: {each}: no such folder"
        for n, each in enumerate(adapters)
        if prepare and not each.is_dir()
    ]
    checks: list[Callable[[], object]] = [
        partial(data_path, name, folder) for name in (*recipe.calibration.calls, *recipe.calibration.chat)
    ]
    suites = [*_judging(recipe), *([recipe.bench.chat.path] if recipe.bench else [])]
    checks += [partial(suite_source, name, folder) for name in suites]
    if recipe.sign and prepare:  # a plan needs no key
        checks.append(partial(signer_of, recipe.sign, folder))
    if recipe.bench and recipe.gate.controls:
        checks.append(partial(check_names, {**recipe.quantize, **recipe.bench.endpoints}))
    for check in checks:
        try:
            check()
        except InputError as error:
            problems.append(f"{path}: {error.message}")
    if problems:
        raise InputError.of(problems)
    base = base_path(recipe.base, folder, prepare=prepare)
    if prepare and base is not None:
        check_weights(base)
    wanted = memory or (parse_size(recipe.memory) if recipe.memory else None)
    inputs = _Inputs(
        *(recipe, folder, base, adapters, Path(recipe.output)),
        threads=estimate.threads(threads or recipe.threads),
        memory=wanted or default_budget(),
        dry=not prepare,
    )
    checkpoint = _checkpoint(inputs)
    if wanted is None or checkpoint is None:
        return inputs
    return replace(inputs, memory=estimate.activations_within(wanted, checkpoint, _targets(inputs)))


def _judging(recipe: Recipe) -> list[str]:
    """The suites that judge calls: nothing of them may calibrate."""
    return [] if recipe.bench is None else [recipe.bench.calls.path, recipe.bench.no_call.path]


def _allowed(recipe: Recipe) -> tuple[str, ...]:
    """What may be in both, the two suites by their paths."""
    if recipe.bench is None:
        return ()
    suites = {"calls": recipe.bench.calls.path, "no-call": recipe.bench.no_call.path}
    return tuple(suites.get(name, name) for name in recipe.bench.allow_contaminated)


def _weights(recipe: Recipe) -> tuple[float, ...]:
    return tuple(source.weight for source in recipe.adapters)


def _checkpoint(inputs: _Inputs) -> Checkpoint | None:
    """The base as the merge will see it, None while a script has not made it."""
    if inputs.base is None:
        return None
    base = checkpoint_for_plan(inputs.base) if inputs.dry else open_checkpoint(inputs.base)
    return dequantized(base) if inputs.recipe.merge.dequantize_base else base


def _known_base(inputs: _Inputs) -> Path:
    if inputs.base is None:
        raise StepError("the base model is not prepared")
    return inputs.base


def _steps(inputs: _Inputs) -> list[Step]:
    """Every step in order; wrong models, adapters and options are found here, before any work."""
    recipe, output = inputs.recipe, inputs.output
    base = _checkpoint(inputs)
    for adapter in inputs.adapters:
        if adapter.exists() or not inputs.dry:
            open_adapter(adapter)
    files = [fingerprint(path) for path in ([inputs.base] if inputs.base else []) + list(inputs.adapters)]
    merge_options = recipe.merge.model_dump() | {"weights": _weights(recipe)}
    merge_digest = step_digest("merge", merge_options, [str(inputs.base), files])
    named = (*recipe.calibration.calls, *recipe.calibration.chat)
    data: list[Any] = [fingerprint(data_path(name, inputs.folder)) for name in named]
    data += [suite_fingerprint(suite_source(name, inputs.folder)) for name in _judging(recipe)]
    data += [list(_allowed(recipe))] if _allowed(recipe) else []
    calibrate_digest = step_digest("calibrate", recipe.calibration.model_dump(), [merge_digest, data])
    steps = [
        _step(MERGED, output / MERGED, merge_digest, estimate.merge(base, recipe.merge.dtype)),
        _step(CALIBRATION, output / CALIBRATION, calibrate_digest, estimate.calibrate(recipe.calibration)),
    ]
    targets = _targets(inputs)
    if base is not None:
        check_targets(base, targets)
    for plan in targets:
        digest = step_digest(
            "quantize", {"format": plan.format, **plan.options}, [merge_digest, calibrate_digest, files_of(plan)]
        )
        steps.append(_step(plan.name, plan.out, digest, estimate.quantize(base, plan, recipe, targets, inputs.memory)))
    if recipe.bench is not None:
        suites = [
            suite_fingerprint(suite_source(suite.path, inputs.folder))
            for suite in (recipe.bench.calls, recipe.bench.no_call, recipe.bench.chat)
        ]
        options = {"bench": recipe.bench.model_dump(), "gate": recipe.gate.model_dump()}
        digest = step_digest("bench", options, [[step.digest for step in steps], suites])
        steps.append(_step(BENCH, output / BENCH, digest, estimate.bench(base, recipe)))
    return steps


def _timed(inputs: _Inputs, steps: list[Step]) -> list[Step]:
    """The steps with how long the targets that are still to do will take, where the base is there to count from."""
    names = {step.name for step in steps if not step.done}
    waiting = [plan for plan in _targets(inputs) if plan.name in names]
    base = _checkpoint(inputs)
    if base is None or not waiting:
        return steps
    seconds = estimate.quantize_seconds(base, waiting, inputs.recipe, inputs.threads)
    return [replace(step, seconds=seconds.get(step.name)) for step in steps]


def _step(name: str, output: Path, digest: str, cost: estimate.Cost) -> Step:
    return Step(name, output, digest, is_done(output, digest), cost.reads, cost.writes, cost.peak_memory, cost.scratch)


def _targets(inputs: _Inputs) -> list[TargetPlan]:
    plans = []
    for name, target in inputs.recipe.quantize.items():
        options = target.model_dump(exclude_none=True)
        kind = options.pop("format")
        if "imatrix" in options:
            options["imatrix"] = str(data_path(options["imatrix"], inputs.folder))
        plans.append(TargetPlan(name, kind, inputs.output / name, options, inputs.recipe.name))
    return plans


def _calibrate_options(inputs: _Inputs, out: Path) -> CalibrateOptions:
    wanted = inputs.recipe.calibration
    return CalibrateOptions(
        model=inputs.output / MERGED,
        calls=tuple(wanted.calls),
        chat=tuple(wanted.chat),
        dialect=wanted.dialect,
        call_share=wanted.call_share,
        num_samples=wanted.num_samples,
        max_seq_length=wanted.max_seq_length,
        seed=wanted.seed,
        allow_dropped=wanted.allow_dropped,
        weights=dict(wanted.weights),
        suites=tuple(_judging(inputs.recipe)),
        allow_contaminated=_allowed(inputs.recipe),
        out=out,
        overwrite=True,
        folder=inputs.folder,
    )


def _check_disk(output: Path, steps: Mapping[str, Step]) -> None:
    needed = totals(list(steps.values()))["disk"]
    if needed is not None:
        check_disk({output: needed})
