"""Four formats in one recipe against the four tools that make them one after the other.

Ours: GPTQ, AWQ, GGUF Q4_K_M and ONNX int4 from one calibration pass, in one process. The others: gptqmodel for GPTQ,
gptqmodel for AWQ, a conversion to F16 and its quantization to Q4_K_M for llama.cpp, onnxruntime-genai's builder for
int4. llama.cpp's own converter and imatrix tool are not on the package index: our writer and quantizer stand in for
the first, which is faster, and nothing for the second, so that the peers' time is less than it is. Ours verifies its
graph in addition, as a release does. Wall and CPU seconds and peak memory are those that the system charges to child
processes, imports included.

    python benchmarks/one_pass.py --model MERGED --peers PEERS [--runs 3] [--num-samples 32] [--json FILE]

PEERS is an environment as for benchmarks/gptq.py. Run it on an idle machine, and trust ratios more than seconds.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from gptq import HERE, OPTIONS, child
from ran import add_run_options, environment, leave, medians_of, show_environment

OURS, BOUND = "lf-export", 0.5
PEERS = ("gptqmodel gptq", "gptqmodel awq", "convert, quantize Q4_K_M", "genai builder int4")
TARGETS: dict[str, tuple[str, dict[str, Any]]] = {
    "gptq": ("gptq", OPTIONS["gptq"]),
    "awq": ("awq", OPTIONS["awq"]),
    "gguf": ("gguf", {"type": "Q4_K_M"}),
    "onnx": ("onnx", {"precision": "int4"}),
}


def quantize(model: Path, cache: Path, out: Path, threads: int) -> None:
    """Our side: one pass, four artifacts."""
    from lf_export.calibration.build import CalibrationSet
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.steps.quantize import TargetPlan, quantize_targets

    plans = [TargetPlan(name, kind, out / name, options, "m") for name, (kind, options) in TARGETS.items()]
    data = CalibrationSet.load(cache / "calibration")
    quantize_targets(open_checkpoint(model), plans, data, threads=threads)


def commands(options: argparse.Namespace, out: Path) -> dict[str, list[str]]:
    """What each arm runs."""
    model, threads, python = str(options.model.resolve()), str(options.threads), sys.executable
    peers, ids = [str(options.peers / "bin" / "python"), str(HERE / "gptq_peers.py")], str(options.cache / "ids.json")
    here = [python, str(Path(__file__).resolve()), "--model", model, "--cache", str(options.cache)]
    gguf = [python, str(HERE / "gguf_write.py"), "--task", "via-f16", "--model", model, "--cache", str(out)]
    builder = [python, "-m", "onnxruntime_genai.models.builder", "-i", model, "-o", str(out), "-p", "int4", "-e", "cpu"]
    return {
        OURS: [*here, "--task", "quantize", "--out", str(out), "--threads", threads],
        PEERS[0]: [*peers, "gptqmodel", model, ids, str(out), "gptq"],
        PEERS[1]: [*peers, "gptqmodel", model, ids, str(out), "awq"],
        PEERS[2]: [*gguf, "--type", "Q4_K_M", "--imatrix", "--threads", threads],
        PEERS[3]: [*builder, "-c", str(options.cache / "builder")],
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all arms in turn; the raw values, their medians, the peers' sum, and ratios to it."""
    sizes = ["--num-samples", str(options.num_samples), "--num-heldout", "8"]
    prepare = [sys.executable, str(HERE / "gptq.py"), "--model", str(options.model), "--cache", str(options.cache)]
    child([*prepare, "--task", "prepare", *sizes], options.threads, options.cache / "prepare.log")
    out = options.cache / "out"
    raw: dict[str, list[dict[str, float]]] = {arm: [] for arm in (OURS, *PEERS)}
    for run in range(options.runs + options.warmup):
        for arm, command in commands(options, out).items():
            shutil.rmtree(out, ignore_errors=True)
            if arm == PEERS[2]:
                out.mkdir()
            os.sync()  # what the last run left to the kernel must not slow this one
            values = child(command, options.threads, options.cache / "child.log")
            print(f"run {run} {arm}: " + ", ".join(f"{key} {value:.1f}" for key, value in values.items()), flush=True)
            if run >= options.warmup:
                raw[arm].append(values)
    medians = medians_of(raw)
    total = {key: sum(medians[arm][key] for arm in PEERS) for key in ("wall_s", "cpu_s")}
    ratios = {key: medians[OURS][key] / total[key] for key in total}
    data = json.loads((options.cache / "data.json").read_text())
    return {"raw": raw, "medians": medians, "peers_sum": total, "ratios": ratios, "data": data}


def report(result: dict[str, Any]) -> bool:
    """Print the table; whether the bound holds."""
    print("\n| arm | wall s | CPU s | peak MB |\n|---|---|---|---|")
    for arm, row in result["medians"].items():
        print(f"| {arm:<24} | {row['wall_s']:6.1f} | {row['cpu_s']:6.1f} | {row['peak_mb']:7.0f} |")
    total, ratio = result["peers_sum"], result["ratios"]
    print(f"| {'peers, one after another':<24} | {total['wall_s']:6.1f} | {total['cpu_s']:6.1f} | |")
    print(f"| {'ratio':<24} | {ratio['wall_s']:5.2f}x | {ratio['cpu_s']:5.2f}x | |")
    print(f"\n{result['model']}: {result['data']['samples']} conversations, {result['data']['tokens']:,} tokens")
    show_environment(result, f", medians of {result['runs']}")
    met = all(value <= BOUND for value in ratio.values())
    print(f"bound (wall and CPU at most {BOUND} of the peers' sum): {'met' if met else 'NOT MET'}")
    return met


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a merged model folder")
    add_run_options(parser, "one-pass")
    parser.add_argument("--task", choices=("quantize",), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        return quantize(options.model, options.cache, options.out, options.threads)
    if not options.peers or not (options.peers / "bin" / "python").exists():
        parser.error("--peers: an environment with gptqmodel is needed")
    shutil.rmtree(options.cache, ignore_errors=True)
    options.cache.mkdir(parents=True)
    result = measure(options) | {
        "model": options.model.name,
        "runs": options.runs,
        "threads": options.threads,
        **environment("lf-export", "torch", "transformers", "gguf", "onnxruntime-genai"),
    }
    met = report(result)
    return leave(result, options.json, met=met)


if __name__ == "__main__":
    main()
