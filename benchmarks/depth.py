"""Peak memory of a quantize step against the model's depth, and with activations on disk.

Random Llamas of 4, 16 and 64 layers (hidden 512, 256 token ids, bf16), each quantized to GPTQ and GGUF Q4_K_M in one
pass in a child process; peak memory is what the system charges to the child, imports included. Then the shallowest
model with many more tokens, its activations held and on disk. Where the memory of a layer is given back, the first
table's peaks are the same: the bound is a tenth between the shallowest and the deepest.

    python benchmarks/depth.py [--layers 4 16 64] [--tokens 8192] [--threads 1] [--json FILE]
"""

import argparse
import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from charged import charged
from random_model import RandomTokens, Shape, make

HIDDEN, INNER, HEADS, VOCABULARY = 512, 1024, 8, 256
SAMPLE = 256  # tokens
MANY = 16  # times the tokens, for the second table
SPILL = 1 << 20
BOUND = 1.1


def quantize(model: Path, out: Path, tokens: int, memory: int, threads: int) -> None:
    """One pass, two artifacts."""
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.steps.quantize import TargetPlan, quantize_targets

    plans = [
        TargetPlan("gptq", "gptq", out / "gptq", {"bits": 4}),
        TargetPlan("gguf", "gguf", out / "gguf", {"type": "Q4_K_M"}, "depth"),
    ]
    data: Any = RandomTokens(max(2, tokens // SAMPLE), SAMPLE)
    quantize_targets(open_checkpoint(model), plans, data, threads=threads, memory=memory)


def child(folder: Path, task: str, layers: int, tokens: int, memory: int, threads: int) -> dict[str, float]:
    """Run one task in a child; wall and CPU seconds, peak memory in MB."""
    command = [sys.executable, str(Path(__file__).resolve()), "--cache", str(folder), "--task", task]
    command += ["--layers", str(layers), "--tokens", str(tokens), "--memory", str(memory), "--threads", str(threads)]
    return charged(command, os.environ | {"OMP_NUM_THREADS": str(threads)}, folder / "child.log")


def measure(folder: Path, layers: int, tokens: int, memory: int, threads: int) -> dict[str, float]:
    """Quantize a model of so many layers; its files are made before and removed afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        child(folder, "make", layers, tokens, memory, threads)
        values = child(folder, "quantize", layers, tokens, memory, threads)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"| {layers:6} | {tokens:8,} | {tokens * HIDDEN * 4 / 1e6:8.1f} | {memory / 1e6:8.1f} "
        f"| {values['peak_mb']:7.0f} | {values['cpu_s']:6.1f} |",
        flush=True,
    )
    return {"layers": layers, "tokens": tokens, "memory": memory, **values}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks"
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the values there")
    parser.add_argument("--cache", type=Path, default=default / "depth", help="where models and results lie")
    parser.add_argument("--memory", type=int, default=1 << 30, help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=("make", "quantize"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task == "make":
        shape = Shape(options.layers[0], HIDDEN, INNER, HEADS, HEADS, VOCABULARY, tied=True)
        make(options.cache / "model", shape)
        return
    if options.task == "quantize":
        quantize(options.cache / "model", options.cache, options.tokens, options.memory, options.threads)
        return
    print("| layers |   tokens | acts. MB | held MB  | peak MB |  CPU s |\n|---|---|---|---|---|---|")
    depth = [measure(options.cache, each, options.tokens, options.memory, options.threads) for each in options.layers]
    shallow, many = options.layers[0], options.tokens * MANY
    spill = [measure(options.cache, shallow, many, memory, options.threads) for memory in (options.memory, SPILL)]
    ratio = depth[-1]["peak_mb"] / depth[0]["peak_mb"]
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "numpy")}
    print(f"{options.layers[-1]} layers against {options.layers[0]}: {ratio:.3f}x the peak memory")
    print(f"activations on disk: {spill[1]['peak_mb'] - spill[0]['peak_mb']:+.0f} MB")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"bound (at most {BOUND}x): {'met' if ratio <= BOUND else 'NOT MET'}")
    if options.json:
        result = {"depth": depth, "spill": spill, "versions": versions, "machine": platform.processor()}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
