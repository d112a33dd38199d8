"""The measured tables of the README, from results that scripts in `benchmarks/` and the quickstart wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lf_export.report import cells
from lf_export.report.files import read_report
from lf_export.report.model import ArtifactReport

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
GATE_BEGIN, GATE_END = "<!-- gate: begin -->", "<!-- gate: end -->"


def readme() -> str:
    """The README with its measured part made anew."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    return f"{head}{BEGIN}\n\n{measured()}\n\n{END}{tail}"


def gate() -> str:
    """The explanation of the gate with its simulated part made anew."""
    text = (ROOT / "docs" / "explanation" / "gate.md").read_text(encoding="utf-8")
    head, rest = text.split(GATE_BEGIN, 1)
    _, tail = rest.split(GATE_END, 1)
    keys = (
        "false_accept",
        "power",
        "false_accept_clustered_as_independent",
        "false_accept_clustered",
        "power_clustered",
    )
    names = (
        "items",
        "flips",
        "loss = margin",
        "no loss",
        "clusters, loss = margin, taken as independent",
        "clusters, loss = margin",
        "clusters, no loss",
    )
    rows = [
        [
            f"{row['items']:,}",
            f"{row['discordance']:.0%}",
            *(f"{row[key]:.1%}" if key in row else cells.NOTHING for key in keys),
        ]
        for row in _load(RESULTS / "gate.json")["rows"]
        if row["items"] in {50, 100, 300, 1000} and row["discordance"] > 0.01
    ]
    return f"{head}{GATE_BEGIN}\n\n{cells.markdown_table(names, rows)}\n\n{GATE_END}{tail}"


def measured() -> str:
    """The quickstart's table, and one row for each comparison with a peer."""
    quickstart, files = RESULTS / "quickstart.json", {name: RESULTS / f"{name}.json" for name in _READERS}
    parts = [_quickstart(quickstart)] if quickstart.is_file() else []
    rows = [row for name, file in files.items() if file.is_file() for row in _READERS[name](_load(file))]
    return "\n\n".join([*parts, *([_peers(rows)] if rows else [])]) or "No result is committed yet."


def _quickstart(path: Path) -> str:
    report = read_report(path)
    calls, no_call = report.suites.calls, report.suites.no_call
    rows = [_artifact(report.baseline), *(_artifact(artifact) for artifact in report.artifacts)]
    head = ("artifact", "verdict", "exact calls", "abstention", "KL call", "top-1", "decode tok/s", "load", "disk")
    judged = f"{calls.items if calls else 0} call and {no_call.items if no_call else 0} no-call items"
    return (
        f"The quickstart on SmolLM2-135M as `make demo` runs it, {judged}, "
        f"{report.threads} threads of {report.machine.processor}; "
        "† dequantized in plain torch, its speed says nothing:\n\n" + cells.markdown_table(head, rows)
    )


def _artifact(part: ArtifactReport) -> list[str]:
    fidelity = part.fidelity.get("call")
    mark = "" if part.representative else " †"
    verdict = "baseline" if part.gate is None else f"{part.gate.verdict}{'' if part.enforced else ' (advisory)'}"
    return [
        f"{part.name} ({part.runtime})",
        verdict,
        cells.rate(part.calls.strict_exact, part.calls.n) if part.calls else cells.NOTHING,
        cells.rate(part.no_call.abstained, part.no_call.n) if part.no_call else cells.NOTHING,
        cells.number(fidelity.kl_mean) if fidelity else cells.NOTHING,
        cells.percent(fidelity.top1_agreement) if fidelity else cells.NOTHING,
        cells.number(part.latency.decode_tokens_per_second) + mark if part.latency else cells.NOTHING,
        f"{part.load_seconds:.1f} s" if part.load_seconds is not None else cells.NOTHING,
        cells.size(part.disk_bytes),
    ]


def _peers(rows: list[list[str]]) -> str:
    head = ("measured side by side, medians", "wall s", "CPU s", "peak MB", "held-out KL", "script")
    table = cells.markdown_table(head, rows)
    return f"Against what people use today (2 cores, no GPU; nothing here was run on a GPU):\n\n{table}"


def _load(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _merge(result: Mapping[str, Any]) -> list[list[str]]:
    what = f"merge, 1.1B bf16, {result['gigabytes']:.1f} GB"
    names = {
        "peft": "PEFT load + merge + save",
        "lf-export": "lf-export",
        "start": "of this, start of Python and torch",
        "copy": "copy of the same bytes + fsync",
    }
    medians = result["medians"]
    return [_row(f"{what}: {name}", medians[side], "merge.py") for side, name in names.items() if side in medians]


def _gguf(result: Mapping[str, Any]) -> list[list[str]]:
    names = {"direct": "straight from safetensors (lf-export)", "via-f16": "F16 file, then quantize"}
    return [
        _row(f"{result['type']}, {part}: {names[arm]}", values, "gguf_write.py")
        for part, facts in result["parts"].items()
        for arm, values in facts["medians"].items()
    ]


def _gptq(result: Mapping[str, Any]) -> list[list[str]]:
    kind = {"gptq": "GPTQ 4-bit g64 sym", "awq": "AWQ 4-bit g64, off the 4-bit grid"}[result["method"]]
    what = f"{kind}, {result['data']['tokens']:,} tokens"
    return [_row(f"{what}: {side}", values, "gptq.py") for side, values in result["medians"].items()]


def _one_pass(result: Mapping[str, Any]) -> list[list[str]]:
    """Ours, the sum of the peers, and each of them."""
    medians = dict(result["medians"])
    what = f"GPTQ + AWQ + GGUF + ONNX, {result['data']['tokens']:,} tokens"
    ours = medians.pop("lf-export")
    total = {**result["peers_sum"], "peak_mb": max(values["peak_mb"] for values in medians.values())}
    rows = [
        _row(f"{what}: one pass (lf-export)", ours, "one_pass.py"),
        _row(f"{what}: four tools one after another", total, "one_pass.py"),
    ]
    return rows + [_row(f"of these: {side}", values, "one_pass.py") for side, values in medians.items()]


def _shape(result: Mapping[str, Any]) -> list[list[str]]:
    """A layer's median: a run that went on where another stopped has no time of the whole."""
    what = (
        f"GPTQ + GGUF Q4_K_M, Llama-2-{result['shape']} shape, {result['layers']} layers, {result['tokens']:,} tokens, "
        f"{result['threads']} thread"
    )
    return [_row(f"{what}: lf-export, a layer", {**result, **result["per_layer"]}, "llama_shape.py")]


_READERS = {
    "merge": _merge,
    "gptq": _gptq,
    "awq": _gptq,
    "gguf_write": _gguf,
    "one_pass": _one_pass,
    "llama_shape": _shape,
}


def _row(what: str, values: Mapping[str, float], script: str) -> list[str]:
    kl = f"{values['kl']:.4f}" if "kl" in values else cells.NOTHING
    return [
        what,
        f"{values['wall_s']:.1f}",
        f"{values['cpu_s']:.1f}",
        f"{values['peak_mb']:,.0f}",
        kl,
        f"[{script}](benchmarks/{script})",
    ]
