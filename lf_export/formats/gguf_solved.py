"""What is known of each tensor that got error feedback: of a matrix its own figures, of the experts' their means."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lf_export.formats.base import significant
from lf_export.formats.linears import circumstances
from lf_export.quant.ggml_gptq import Compensated

Facts = dict[str, Any]


def facts_of(kind: str, solved: Compensated) -> Facts:
    """What a manifest says of a matrix, as JSON values."""
    return {
        "type": kind,
        "method": solved.method,
        "error": significant(solved.error),
        "imatrix_error": significant(solved.imatrix_error),
        "judged_on": solved.judged_on,
        **circumstances(solved),
    }


def facts_of_experts(each: Sequence[Facts]) -> Facts:
    """What a manifest says of the matrices of all experts of a layer: as much for many experts as for few.

    The errors are means over experts. `compensated` counts those with error feedback, `pooled` names those that were
    calibrated on the tokens of all, `reasons` says why others have llama.cpp's own codes.
    """
    judged = sorted({facts["judged_on"] for facts in each})
    found: Facts = {
        "type": each[0]["type"],
        "method": "gptq" if any(facts["method"] == "gptq" for facts in each) else "imatrix",
        "error": significant(fmean(facts["error"] for facts in each)),
        "imatrix_error": significant(fmean(facts["imatrix_error"] for facts in each)),
        "judged_on": ", ".join(judged),
        "experts": len(each),
        "compensated": sum(facts["method"] == "gptq" for facts in each),
    }
    pooled = [number for number, facts in enumerate(each) if "pooled" in facts]
    reasons = {str(number): facts["reason"] for number, facts in enumerate(each) if "reason" in facts}
    return found | ({"pooled": pooled} if pooled else {}) | ({"reasons": reasons} if reasons else {})


def file_facts(linears: Mapping[str, Facts]) -> Facts:
    """What a manifest says of a file: means over its tensors, and what kept llama.cpp's own codes."""
    fallbacks = {name: facts["reason"] for name, facts in linears.items() if "reason" in facts}
    for name, facts in linears.items():
        fallbacks |= {f"{name} of expert {number}": why for number, why in facts.get("reasons", {}).items()}
    return {
        "error": significant(fmean(facts["error"] for facts in linears.values())),
        "imatrix_error": significant(fmean(facts["imatrix_error"] for facts in linears.values())),
        "fallbacks": fallbacks,
        "linears": dict(linears),
    }


def sentence_of_experts(reasons: Mapping[str, str]) -> str:
    """Why experts have llama.cpp's own codes, in one line; equal numbers do not repeat."""
    first = next(iter(reasons.values()))
    if len(reasons) == 1:
        return f"expert {next(iter(reasons))}: {first}"
    return f"experts {', '.join(reasons)}: of the first, {first}"
