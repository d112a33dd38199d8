"""From what was measured to the parts of the report: counts by category, fidelity by token class, the gate."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lf_export.calibration.tokens import TokenClass
from lf_export.metrics import fidelity
from lf_export.metrics.calls import JudgedAnswer
from lf_export.metrics.gate import Verdict, judge_artifact
from lf_export.provenance import digest_of, read_manifest
from lf_export.report.model import (
    ArtifactReport,
    CallMetrics,
    CategoryCounts,
    Fidelity,
    GateResult,
    GateSettings,
    ItemResult,
    Latency,
    NoCallMetrics,
    RawValues,
    Report,
)
from lf_export.stats import cluster_bootstrap, paired
from lf_export.steps.evidence import layer_errors
from lf_export.steps.measure import Measured
from lf_export.steps.prompts import Prompt, call_tokens

_CALL = "call"


def artifact_report(
    name: str,
    path: Path,
    found: Measured,
    baseline: Measured | None,
    prompts: Sequence[Prompt],
    gate: GateSettings,
    *,
    enforced: bool,
) -> ArtifactReport:
    """The report on one artifact; `baseline` is None for the baseline itself."""
    made = read_manifest(path if path.is_dir() else path.parent) or {}
    calls = [prompt for prompt in prompts if prompt.item.expected.calls]
    no_call = [prompt for prompt in prompts if not prompt.item.expected.calls]
    notes = []
    if not found.representative:
        notes.append("dequantized to run in plain torch: its speed and memory say nothing about a deployment")
    return ArtifactReport(
        name=name,
        path=str(path),
        format=str(made.get("kind") or ("gguf" if path.suffix == ".gguf" else "hf")),
        scheme=_scheme(made),
        runtime=found.runtime,
        representative=found.representative,
        digest=digest_of({key: made[key] for key in made if key != "machine"}) if made else None,
        calibration_digest=(made.get("calibration") or {}).get("digest"),
        enforced=enforced,
        calls=_call_metrics(calls, found.answers),
        no_call=_no_call_metrics(no_call, found.answers),
        fidelity=_fidelity(prompts, found.compared),
        chat_perplexity=fidelity.perplexity(np.asarray(found.chat_nll)) if found.chat_nll else None,
        latency=None if found.latency is None else Latency.model_validate(found.latency),
        load_seconds=found.load_seconds,
        cpu_seconds=found.cpu_seconds,
        peak_rss_bytes=found.peak_rss_bytes or None,
        disk_bytes=found.disk_bytes,
        gate=None if baseline is None else _gate(found, baseline, calls, no_call, gate),
        layer_errors=layer_errors(made, path.name),
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


def _call_metrics(prompts: Sequence[Prompt], answers: Mapping[str, JudgedAnswer]) -> CallMetrics | None:
    judged = [(prompt.item.category, answers[prompt.item.id]) for prompt in prompts if prompt.item.id in answers]
    if not judged:
        return None
    categories = sorted({category for category, _ in judged})
    return CallMetrics(
        **_counts([answer for _, answer in judged]),
        name_ok=sum(answer.name_ok for _, answer in judged),
        by_category={
            category: CategoryCounts(**_counts([answer for each, answer in judged if each == category]))
            for category in categories
        },
        errors=dict(Counter(kind for _, answer in judged for kind in answer.errors).most_common()),
    )


def _counts(answers: Sequence[JudgedAnswer]) -> dict[str, int]:
    return {
        "n": len(answers),
        "strict_exact": sum(answer.exact for answer in answers),
        "bfcl_like": sum(answer.bfcl_like for answer in answers),
    }


def _no_call_metrics(prompts: Sequence[Prompt], answers: Mapping[str, JudgedAnswer]) -> NoCallMetrics | None:
    kinds = Counter(answers[prompt.item.id].kind for prompt in prompts if prompt.item.id in answers)
    if not kinds:
        return None
    return NoCallMetrics(
        n=kinds.total(),
        abstained=kinds["prose"],
        malformed=kinds["malformed"],
        empty=kinds["empty"],
        called=kinds["call"],
    )


def _fidelity(prompts: Sequence[Prompt], compared: Mapping[str, fidelity.TokenFidelity]) -> dict[str, Fidelity]:
    """By token class, and over all call tokens; the interval of the mean is over items, which are the clusters."""
    chosen = [prompt for prompt in prompts if prompt.item.id in compared]
    masks = {token.name.lower(): [prompt.answer_classes == token for prompt in chosen] for token in TokenClass}
    masks[_CALL] = [call_tokens(prompt.answer_classes) for prompt in chosen]
    found = {}
    for name, wanted in masks.items():
        parts = [
            fidelity.TokenFidelity(*(values[mask] for values in _columns(compared[prompt.item.id])))
            for prompt, mask in zip(chosen, wanted, strict=True)
            if mask.any()
        ]
        if not parts:
            continue
        joined = fidelity.concatenate(parts)
        interval = cluster_bootstrap([part.kl for part in parts])
        found[name] = Fidelity(
            tokens=len(joined.kl),
            kl_mean=float(joined.kl.mean()),
            kl_p50=float(np.percentile(joined.kl, 50)),
            kl_p99=float(np.percentile(joined.kl, 99)),
            kl_lower=interval.lower,
            kl_upper=interval.upper,
            top1_agreement=float(joined.same_top1.mean()),
            margin_mean=float(joined.margin.mean()),
            margin_p1=float(np.percentile(joined.margin, 1)),
        )
    return found


def _columns(part: fidelity.TokenFidelity) -> tuple[Any, ...]:
    return part.kl, part.same_top1, part.margin, part.nll


def _gate(
    found: Measured,
    baseline: Measured,
    calls: Sequence[Prompt],
    no_call: Sequence[Prompt],
    gate: GateSettings,
) -> GateResult:
    pairs = [
        paired(
            [baseline.answers[prompt.item.id].exact for prompt in prompts if prompt.item.id in found.answers],
            [found.answers[prompt.item.id].exact for prompt in prompts if prompt.item.id in found.answers],
        )
        for prompts in (calls, no_call)
    ]
    verdict = judge_artifact(
        *pairs,
        margin=gate.margin,
        alpha=gate.alpha,
        baseline_floor=gate.baseline_floor,
        problems=found.problems,
    )
    return GateResult.model_validate(verdict)


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
        cut=answer.cut,
        loops=answer.loops,
        answer=answer.text,
        kl_mean=float(part.kl[inside].mean()) if part is not None and inside.any() else None,
    )
