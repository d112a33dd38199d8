"""The model card of an artifact: what it is, where it comes from, how to run it, and what a bench found.

The front matter is that of model cards on the Hugging Face Hub
(https://huggingface.co/docs/hub/model-cards#model-card-metadata).
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from lf_export.report import cells
from lf_export.report.model import ArtifactReport, Report, SuiteFacts
from lf_export.report.places import public
from lf_export.report.serve import serving

CARD_NAME = "README.md"

_LIBRARIES = {"gptq": "transformers", "awq": "transformers", "gguf": "gguf", "onnx": "onnx"}
# What the cards of base and adapters say of themselves that holds for what is made of them.
CARRIED = ("language", "license", "license_name", "license_link", "base_model")

_LICENCE = (
    "Licence and notice files of the model it was made of lie beside this page. "
    "Calibration data that ships with lf-export is Apache-2.0."
)
_SEAL = re.compile(
    r"<!-- lf-export card ([0-9a-f]{64}): edit this page freely, no later bench replaces it then -->\n\Z"
)


def artifact_card(
    name: str, manifest: Mapping[str, Any], results: ArtifactReport | None = None, report: Report | None = None
) -> str:
    """The card, from the artifact's manifest and, where there was a bench, from its report.

    Args:
        name: the artifact's.
        manifest: of the artifact; every figure about how it was made is in it.
        results: the artifact's part of `report`.
        report: of the bench.
    """
    versions = manifest["versions"]
    kind = manifest["kind"]
    front = yaml.safe_dump(_front_matter(name, manifest, results, report), sort_keys=False, allow_unicode=True)
    judged = [] if results is None or report is None else _results(results, report)
    lines = [
        f"---\n{front}---",
        "",
        f"# {name}",
        "",
        (
            f"A {kind} artifact made by lf-export {versions['lf-export']}. "
            "`lf-export.json` beside this page is its manifest: digests of what it was made of, options, versions, "
            "errors per layer."
        ),
        "",
        *judged,
        "## How to run it",
        "",
        *serving(name, manifest),
        "## How it was made",
        "",
        *(f"- {key}: {value}" for key, value in sorted(manifest["options"].items())),
        f"- calibration: {_calibration(manifest['calibration'])}",
        "",
        "## Licence",
        "",
        _LICENCE,
        "",
    ]
    text = "\n".join(lines)
    return f"{text}\n<!-- lf-export card {_digest(text)}: edit this page freely, no later bench replaces it then -->\n"


def is_untouched(card: str) -> bool:
    """Whether a card is as lf-export wrote it, so that it may be written anew."""
    found = _SEAL.search(card)
    return found is not None and found[1] == _digest(card[: found.start()].removesuffix("\n"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _front_matter(
    name: str, manifest: Mapping[str, Any], results: ArtifactReport | None, report: Report | None
) -> dict[str, Any]:
    kind = str(manifest["kind"])
    origin = manifest.get("card") or {}
    facts: dict[str, Any] = {key: origin[key] for key in CARRIED if origin.get(key)}
    if "base_model" in facts:
        facts["base_model_relation"] = "quantized"
    facts |= {
        "library_name": _LIBRARIES.get(kind, kind),
        "pipeline_tag": "text-generation",
        "tags": ["function-calling", "lf-export", kind],
        "quantized_by": f"lf-export {manifest['versions']['lf-export']}",
    }
    if results is not None and report is not None and (found := list(_index(results, report))):
        facts["model-index"] = [{"name": name, "results": found}]
    return facts


def _index(artifact: ArtifactReport, report: Report) -> Iterator[dict[str, Any]]:
    """The results in the Hub's form; values are shares, nats and perplexity as they are."""
    calls, no_call, kl = artifact.calls, artifact.no_call, artifact.fidelity.get("call")
    of_calls = []
    if calls and calls.n:
        of_calls = [
            _metric("exact_match", "exact calls", calls.strict_exact / calls.n),
            _metric("accuracy", "right function", calls.name_ok / calls.n),
        ]
    if kl and kl.kl_mean is not None:
        of_calls.append(_metric("kl_divergence", f"mean KL on call tokens against {report.baseline.name}", kl.kl_mean))
    abstained = [_metric("accuracy", "abstention", no_call.abstained / no_call.n)] if no_call and no_call.n else []
    perplexity = artifact.chat_perplexity
    of_chat = [_metric("perplexity", "perplexity", perplexity)] if perplexity is not None else []
    suites = report.suites
    for task, suite, metrics in (
        ("Function calling", suites.calls, of_calls),
        ("Abstention where no function fits", suites.no_call, abstained),
        ("Chat", suites.chat, of_chat),
    ):
        if suite is not None and metrics:
            yield {
                "task": {"type": "text-generation", "name": task},
                "dataset": _dataset(suite),
                "metrics": metrics,
            }


def _dataset(suite: SuiteFacts) -> dict[str, Any]:
    name = suite.path.rpartition("/")[2]
    return {"type": "json", "name": f"{name}, {suite.items} of {suite.of_items} items", "revision": suite.sha256}


def _metric(kind: str, name: str, value: float) -> dict[str, Any]:
    return {"type": kind, "name": name, "value": float(f"{value:.4g}")}


def _results(artifact: ArtifactReport, report: Report) -> list[str]:
    """The verdict and the figures beside the baseline's."""
    clean = public(report)
    gate = artifact.gate
    lines = ["## Results", ""]
    if gate is not None:
        margin = cells.points(report.gate.margin)
        how = f"against {report.baseline.name}, where a loss under {margin} is accepted"
        lines += [f"**{gate.verdict}** {how}.", ""]
        lines += [f"- {clean(problem)}" for problem in gate.problems]
        lines += [f"- {endpoint.name}: {endpoint.verdict}, {clean(endpoint.reason)}" for endpoint in gate.endpoints]
        lines += [f"- limit: {limit.verdict}, {clean(limit.reason)}" for limit in gate.limits]
        lines += [""]
    both = (artifact, report.baseline)
    rows = [[label, *(value(each) for each in both)] for label, value in _FIGURES]
    lines += [cells.markdown_table(["", artifact.name, report.baseline.name], rows), ""]
    machine = report.machine
    threads = f", {report.threads} threads" if report.threads else ""
    lines += [f"Measured in {artifact.runtime} on {machine.processor}{threads}, {report.created[:10]}."]
    lines += ["Its speed and memory say nothing about a deployment."] if not artifact.representative else []
    return [*lines, ""]


_FIGURES: tuple[tuple[str, Callable[[ArtifactReport], str]], ...] = (
    ("exact calls", lambda each: cells.rate(each.calls.strict_exact, each.calls.n) if each.calls else cells.NOTHING),
    ("abstention", lambda each: cells.rate(each.no_call.abstained, each.no_call.n) if each.no_call else cells.NOTHING),
    ("KL on call tokens", lambda each: cells.number(each.fidelity["call"].kl_mean) if "call" in each.fidelity else "–"),  # noqa: RUF001 - a dash
    ("chat perplexity", lambda each: cells.number(each.chat_perplexity, 4)),
    ("time to first token, p50", lambda each: cells.milliseconds(each.latency.ttft.p50) if each.latency else "–"),  # noqa: RUF001 - a dash
    ("decode, tokens/s", lambda each: cells.number(each.latency.decode_tokens_per_second) if each.latency else "–"),  # noqa: RUF001 - a dash
    ("size on disk", lambda each: cells.size(each.disk_bytes)),
)


def _calibration(audit: Mapping[str, Any]) -> str:
    def counted(value: Any) -> str:
        if not isinstance(value, Mapping):
            return str(value)
        return f"{sum(value.values())} ({', '.join(f'{count} {name}' for name, count in value.items())})"

    digest = str(audit.get("digest", ""))[:16]
    return (
        f"digest `{digest}…`, conversations {counted(audit.get('samples', '?'))}, "
        f"tokens {counted(audit.get('tokens', '?'))}"
    )
