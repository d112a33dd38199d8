"""The two exporters of ONNX: what they take, and how fast their graphs write, on raw ONNX Runtime and in GenAI.

Each exporter writes the model in fp32 and in fp16 for the CPU, in a child process; CPU seconds and peak memory are what
the system charges to it, imports included. Each graph then answers a prompt of 200 random tokens with 33 more, three
times; a token's time is the median of the intervals, the best of the three. Nothing is quantized: onnxruntime-genai's
builder has no rival there.

    python benchmarks/exporters.py --model MERGED [--threads 1] [--json FILE]
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from charged import charged
from ran import environment

EXPORTERS, PRECISIONS, RUNTIMES = ("builder", "dynamo"), ("fp32", "fp16"), ("onnx", "genai")
PROMPT, NEW, REPEATS = 200, 33, 3


def export(model: Path, out: Path, exporter: str, precision: str, threads: int) -> None:
    """Write one graph, as the format does, without comparing it."""
    from lf_export.checkpoint.carry import copy_companions
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.formats import onnx_build, onnx_dynamo
    from lf_export.formats.onnx_rules import route

    checkpoint, scratch = open_checkpoint(model), out / "scratch"
    scratch.mkdir(parents=True)
    if exporter == "dynamo":
        onnx_dynamo.export(checkpoint, out, scratch, precision, threads)
    else:
        asked = onnx_build.builder_options("float", tied=checkpoint.tied, accuracy_level=None)
        onnx_build.build(model, out, scratch, route(precision, "cpu"), asked, threads)
        onnx_build.aim_at(out, "cpu")
    copy_companions(model, out)


def answer(folder: Path, runtime: str, threads: int, out: Path) -> None:
    """Write milliseconds a token and the tokens to `out`."""
    import numpy as np

    from lf_export.runtimes import runtime as named

    session = named(runtime).open_session(folder, threads)
    session.eos_ids = frozenset()  # type: ignore[misc]
    prompt = np.random.default_rng(0).integers(3, session.vocab_size, PROMPT).tolist()
    found = [session.generate_one(prompt, NEW) for _ in range(REPEATS)]
    best = min(statistics.median(np.diff(each.times)) for each in found)
    out.write_text(json.dumps({"ms": 1000 * best, "ids": found[0].ids}))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Export, answer, and collect."""
    cache: Path = options.cache
    here = [sys.executable, str(Path(__file__).resolve()), "--model", str(options.model.resolve())]
    here += ["--cache", str(cache), "--threads", str(options.threads)]
    variables = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    rows, answers = {}, set()
    for precision in PRECISIONS:
        for exporter in EXPORTERS:
            name = f"{precision}-{exporter}"
            row: dict[str, Any] = charged([*here, "--task", "export", "--arm", name], variables, cache / "log")
            for runtime in RUNTIMES:
                charged([*here, "--task", runtime, "--arm", name], variables, cache / "log")
                found = json.loads((cache / "answer.json").read_text())
                row[f"{runtime}_ms"] = found["ms"]
                answers.add(tuple(found["ids"]))
            rows[name] = row
            shutil.rmtree(cache / name)
            print(f"{name}: {row}", flush=True)
    return {"rows": rows, "answers": len(answers)}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks" / "exporters"
    parser.add_argument("--model", type=Path, required=True, help="a merged model folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the values there")
    parser.add_argument("--cache", type=Path, default=default, help="where graphs lie")
    parser.add_argument("--task", choices=("export", *RUNTIMES), help=argparse.SUPPRESS)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task == "export":
        precision, _, exporter = options.arm.partition("-")
        return export(options.model, options.cache / options.arm, exporter, precision, options.threads)
    if options.task:
        out = options.cache / "answer.json"
        return answer(options.cache / options.arm, options.task, options.threads, out)
    shutil.rmtree(options.cache, ignore_errors=True)
    options.cache.mkdir(parents=True)
    result = measure(options) | {
        "model": options.model.name,
        "threads": options.threads,
        **environment("lf-export", "torch", "onnxruntime", "onnxruntime-genai"),
    }
    print("\n| graph | CPU s | peak MB | onnx ms | genai ms |\n|---|---|---|---|---|")
    for name, row in result["rows"].items():
        print(f"| {name} | {row['cpu_s']:.1f} | {row['peak_mb']:.0f} | {row['onnx_ms']:.1f} | {row['genai_ms']:.1f} |")
    print(f"\ndifferent answers: {result['answers']}")
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    print(f"{result['machine']}, {options.threads} threads")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
