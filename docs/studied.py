"""The tables of the calibration study, from what `benchmarks/calibration.py` wrote."""

import json
from typing import Any

from measured import RESULTS, ROOT

from lf_export.report import cells

BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"
PAGE = ROOT / "docs" / "explanation" / "calibration-study.md"
_TITLES = {
    "gptq": "GPTQ, 4 bits, group 64, asymmetric",
    "awq": "AWQ, 4 bits, group 64",
    "q4_k_m": "GGUF Q4_K_M, llama.cpp's own rounding with the importance matrix",
}


def study() -> str:
    """The page with its tables made anew."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    table = json.loads((RESULTS / "calibration.json").read_text(encoding="utf-8"))["table"]
    blocks = [block for name, title in _TITLES.items() for block in (f"### {title}", _table(table[name]))]
    return f"{head}{BEGIN}\n\n" + "\n\n".join(blocks) + f"\n\n{END}{tail}"


def _table(arms: dict[str, Any]) -> str:
    head = [
        "calibrated with",
        "seeds",
        "KL, calls elsewhere",
        "against half and half",
        "KL, shipped suites",
        "against half and half",
        "chat, nats a token",
        "against half and half",
    ]
    answered = any(cells_["answers"] for cells_ in arms.values())
    head += ["exact calls", "abstention"] if answered else []
    rows = []
    for arm, found in arms.items():
        row = [arm, str(found["seeds"])]
        for judged in ("calls elsewhere", "calls shipped", "chat"):
            row += [_span(found[judged], 3), _span(found.get(f"{judged}, against half"), 4)]
        marks = found["answers"] or {}
        row += [_share(marks.get(suite)) for suite in ("calls", "no-call")] if answered else []
        rows.append(row)
    return cells.markdown_table(head, rows)


def _span(interval: list[float] | None, digits: int) -> str:
    """An estimate and its interval; bold where the interval of a difference does not hold 0."""
    if interval is None:
        return cells.NOTHING
    estimate, lower, upper = (f"{value:.{digits}f}" for value in interval)
    text = f"{estimate} [{lower}, {upper}]"
    return f"**{text}**" if digits == 4 and (interval[1] > 0 or interval[2] < 0) else text


def _share(marks: list[bool] | None) -> str:
    return cells.NOTHING if not marks else f"{sum(marks)} of {len(marks)}"


GGUF_BEGIN, GGUF_END = "<!-- gguf: begin -->", "<!-- gguf: end -->"
GGUF_PAGE = ROOT / "docs" / "explanation" / "gguf.md"


def gguf() -> str:
    """The page on GGUF with its table of both methods made anew."""
    text = GGUF_PAGE.read_text(encoding="utf-8")
    head, rest = text.split(GGUF_BEGIN, 1)
    _, tail = rest.split(GGUF_END, 1)
    found = json.loads((RESULTS / "gguf_gptq_llama.json").read_text(encoding="utf-8"))
    names = ("type", "MB", "KL, importance matrix", "KL, error feedback", "ratio", "top-1", "top-1, error feedback")
    rows = [
        [
            name,
            f"{each['bytes'] / 1e6:.1f}",
            f"{each['imatrix']['kl']:.5f}",
            f"{each['gptq']['kl']:.5f}",
            f"{each['gptq']['kl'] / each['imatrix']['kl']:.2f}",
            cells.percent(each["imatrix"]["top1"]),
            cells.percent(each["gptq"]["top1"]),
        ]
        for name, each in found["types"].items()
    ]
    data = found["data"]
    made = (
        f"Calibrated on {data['tokens']:,} tokens of {data['samples']} conversations, judged in llama.cpp on "
        f"{data['heldout_call_tokens']:,} call tokens of others."
    )
    return f"{head}{GGUF_BEGIN}\n\n{made}\n\n{cells.markdown_table(names, rows)}\n\n{GGUF_END}{tail}"
