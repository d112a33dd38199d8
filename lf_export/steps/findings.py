"""From what was measured to the parts of the report: counts by category, fidelity by token class, the gate."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lf_export.calibration.slices import slices_of
from lf_export.metrics import fidelity
from lf_export.metrics.batch_latency import slower_cells
from lf_export.metrics.gate import Verdict, judge_artifact, overall
from lf_export.metrics.limits import Costs, checked_limits, judge_limits, slower
from lf_export.provenance import digest_of, read_manifest
from lf_export.report.latency import LatencyRatios
from lf_export.report.model import (
    ArtifactReport,
    EndpointResult,
    Fidelity,
    GateResult,
    GateSettings,
    ItemIssue,
    ItemResult,
    Latency,
    LimitResult,
    RawValues,
    Report,
)
from lf_export.report.serving import ServingLevel
from lf_export.stats import cluster_bootstrap, paired
from lf_export.steps.arm_findings import arm_results
from lf_export.steps.chat import chat_drift
from lf_export.steps.counts import call_metrics, no_call_metrics, variant_metrics
from lf_export.steps.evidence import layer_errors
from lf_export.steps.findings_shown import shown_fidelity
from lf_export.steps.latency_grid import grid_part
from lf_export.steps.measure import Measured
from lf_export.steps.prompts import Prompt, call_tokens, class_masks, cluster_of


def artifact_report(
    name: str,
    path: Path | None,
    found: Measured,
    baseline: Measured | None,
    prompts: Sequence[Prompt],
    gate: GateSettings,
    *,
    enforced: bool,
    notes: Sequence[str] = (),
) -> ArtifactReport:
    """The report on one artifact; `baseline` is None for the baseline itself, `path` where only a server has it.

    `notes` come before its own.
    """
    made = {} if path is None else read_manifest(path if path.is_dir() else path.parent) or {}
    judged = [prompt for prompt in prompts if not prompt.item.variant]
    calls = [prompt for prompt in judged if prompt.item.expected.calls]
    no_call = [prompt for prompt in judged if not prompt.item.expected.calls]
    notes, behind = [*notes, *found.notes], list[str]()
    if not found.representative:
        notes.append("dequantized to run in plain torch: its speed and memory say nothing about a deployment")
    if baseline is not None:
        behind = [*slower(_costs(baseline), _costs(found)), *_slower_batches(baseline, found)]
    return ArtifactReport(
        name=name,
        path="" if path is None else str(path),
        format=str(made.get("kind") or ("served" if path is None else "gguf" if path.suffix == ".gguf" else "hf")),
        scheme=_scheme(made),
        runtime=found.runtime,
        representative=found.representative,
        digest=digest_of({key: made[key] for key in made if key != "machine"}) if made else None,
        calibration_digest=(made.get("calibration") or {}).get("digest"),
        enforced=enforced,
        calls=call_metrics(calls, found.answers),
        no_call=no_call_metrics(no_call, found.answers),
        variants=variant_metrics(prompts, found.answers),
        arms=arm_results(found, baseline, prompts),
        fidelity=fidelity_by_class(prompts, found.compared),
        fidelity_shown=shown_fidelity(prompts, found.shown),
        chat_perplexity=fidelity.perplexity(np.asarray(found.chat_nll)) if found.chat_nll else None,
        chat_drift=None if baseline is None else chat_drift(baseline.chat_said, found.chat_said),
        latency=None if found.latency is None else Latency.model_validate(found.latency),
        latency_ratios=None if found.ratios is None else LatencyRatios.model_validate(found.ratios),
        latency_grid=None if found.batches is None else grid_part(found.batches),
        slower=behind,
        serving=[ServingLevel.model_validate(each) for each in found.serving],
        load_seconds=found.load_seconds,
        cpu_seconds=found.cpu_seconds,
        peak_rss_bytes=found.peak_rss_bytes or None,
        peak_gpu_bytes=found.peak_gpu_bytes,
        disk_bytes=found.disk_bytes or None,
        gate=None if baseline is None else _gate(found, baseline, calls, no_call, gate),
        layer_errors=layer_errors(made, "" if path is None else path.name),
        notes=notes,
        raw=RawValues(
            items=[_item(prompt, found) for prompt in prompts if prompt.item.id in found.answers],
            ttft_seconds=found.ttft_seconds,
            tpot_seconds=found.tpot_seconds,
        ),
    )


def overall_verdict(report: Report) -> Verdict:
    """The report's verdict as the gate's own type."""
    return Verdict(report.verdict)


def _scheme(made: Mapping[str, Any]) -> str | None:
    options = made.get("options") or {}
    if "type" in options:
        return str(options["type"])
    if "bits" in options:
        size = (made.get("artifact") or {}).get("group_size", options.get("group_size"))
        return f"W{options['bits']}A16 g{size} {'sym' if options.get('sym', True) else 'asym'}"
    return None


def fidelity_by_class(prompts: Sequence[Prompt], compared: Mapping[str, fidelity.TokenFidelity]) -> dict[str, Fidelity]:
    """By token class, and over all call tokens; the interval of the mean is over items, which are the clusters."""
    chosen = [prompt for prompt in prompts if prompt.item.id in compared]
    found = {}
    for name, wanted in class_masks(chosen).items():
        parts = [
            fidelity.TokenFidelity(*(values[mask] for values in _columns(compared[prompt.item.id])))
            for prompt, mask in zip(chosen, wanted, strict=True)
            if mask.any()
        ]
        if not parts:
            continue
        joined = fidelity.concatenate(parts)
        interval = cluster_bootstrap([part.kl for part in parts])
        room = cluster_bootstrap([_room(part) for part in parts], _ratio_of_sums)
        found[name] = Fidelity(
            tokens=len(joined.kl),
            kl_mean=float(joined.kl.mean()),
            kl_p50=float(np.percentile(joined.kl, 50)),
            kl_p99=float(np.percentile(joined.kl, 99)),
            kl_lower=interval.lower,
            kl_upper=interval.upper,
            kl_room=float(joined.kl_room.mean()),
            top1_agreement=float(joined.same_top1.mean()),
            margin_mean=float(joined.margin.mean()),
            margin_p1=float(np.percentile(joined.margin, 1)),
            margin_ratio=room.estimate,
            margin_ratio_lower=room.lower,
            margin_ratio_upper=room.upper,
        )
    return found


def _columns(part: fidelity.TokenFidelity) -> tuple[Any, ...]:
    return part.kl, part.same_top1, part.margin, part.baseline_margin, part.nll, part.kl_room


def _room(part: fidelity.TokenFidelity) -> npt.NDArray[np.float64]:
    """An item's decision margins as one row [artifact, baseline], [1, 2]: sums are all that a ratio of means needs."""
    return np.array([[part.margin.sum(), part.baseline_margin.sum()]])


def _ratio_of_sums(rows: npt.NDArray[np.float64]) -> float:
    ours, theirs = rows.sum(axis=0)
    return float(ours / theirs) if theirs > 0 else float("nan")


def _gate(
    found: Measured,
    baseline: Measured,
    calls: Sequence[Prompt],
    no_call: Sequence[Prompt],
    gate: GateSettings,
) -> GateResult:
    pairs = []
    for prompts in (calls, no_call):
        items = [prompt.item for prompt in prompts if prompt.item.id in found.answers]
        ours, theirs = ([measured.answers[item.id].exact for item in items] for measured in (found, baseline))
        pairs.append(paired(theirs, ours, [cluster_of(item) for item in items]))
    verdict = judge_artifact(
        *pairs,
        margin=gate.margin,
        margins=gate.margins,
        alpha=gate.alpha,
        baseline_floor=gate.baseline_floor,
        min_items=gate.min_items,
        problems=found.problems,
    )
    limits = judge_limits(checked_limits(gate.limits), _costs(baseline), _costs(found))
    return GateResult(
        verdict=overall([verdict.verdict, *(each.verdict for each in limits)]).value,
        endpoints=[EndpointResult.model_validate(each) for each in verdict.endpoints],
        problems=list(verdict.problems),
        limits=[LimitResult.model_validate(each) for each in limits],
    )


def _costs(found: Measured) -> Costs:
    return Costs(
        ttft=found.ttft_seconds,
        tpot=found.tpot_seconds,
        disk=found.disk_bytes,
        memory=found.peak_rss_bytes,
        load=found.load_seconds,
        representative=found.representative,
        ratios=found.ratios,
    )


def _slower_batches(baseline: Measured, found: Measured) -> tuple[str, ...]:
    if found.batches is None or not (baseline.representative and found.representative):
        return ()
    return slower_cells(found.batches.cells)


def _item(prompt: Prompt, found: Measured) -> ItemResult:
    item, answer = prompt.item, found.answers[prompt.item.id]
    part = found.compared.get(item.id)
    inside = call_tokens(prompt.answer_classes)
    return ItemResult(
        suite="calls" if item.expected.calls else "no_call",
        id=item.id,
        category=item.category,
        kind=answer.kind,
        correct=answer.exact,
        name_ok=answer.name_ok,
        bfcl_like=answer.bfcl_like,
        errors=list(answer.errors),
        issues=[ItemIssue.model_validate(issue) for issue in answer.issues],
        variant=item.variant,
        slices=list(slices_of(item)),
        arguments_expected=answer.arguments_expected if item.expected.calls else None,
        arguments_right=answer.arguments_right if item.expected.calls else None,
        schema_valid=answer.schema_valid if answer.kind == "call" else None,
        schema_error=answer.schema_error,
        cut=answer.cut,
        loops=answer.loops,
        answer=answer.text,
        kl_mean=float(part.kl[inside].mean()) if part is not None and inside.any() else None,
    )
