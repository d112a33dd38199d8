"""A random-weight model of Llama 2's shape through GPTQ and GGUF in one pass: memory, time per layer, disk.

Random weights of Llama-2-7B's shape (13.5 GB, bfloat16), 16 samples of 128 random tokens, GPTQ 4 bits and GGUF Q4_K_M
with error feedback in one walk in a child process. Peak memory is what the system charges to the child, imports
included; the bound is 8 GB. Quality is not looked at: these weights have none.

    python benchmarks/llama_shape.py [--shape 7B] [--layers 32] [--samples 16] [--threads 2] [--json FILE]

Needs twice the model's size on disk. First the plan (`lf-export run --dry-run`) of the same targets is asked for, for
the shapes of 7B, 13B and 70B: its time for 7B stands beside what was measured. A run that was killed goes on where it
was when it is started again with --keep.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from charged import charged
from ran import environment
from random_model import LLAMA_2, RandomTokens, make, make_adapter

LENGTH = 128  # tokens
BOUND_MB = 8000


class Clock:
    """A reporter that notes wall and CPU seconds at each finished layer."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def start(self, title: str, total: float, unit: str) -> "Clock":  # noqa: ARG002
        """Begin a stage."""
        self.note(title)
        return self

    def advance(self, amount: float = 1, note: str = "") -> None:  # noqa: ARG002
        """A layer is done."""
        self.note("layer")

    def finish(self, stage: "Clock") -> None:
        """End a stage."""

    def say(self, line: str) -> None:
        """What a person would read."""
        print(line, flush=True)

    def note(self, what: str) -> None:
        """Append one line."""
        row = {"what": what, "wall_s": time.perf_counter(), "cpu_s": time.process_time()}
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")


def quantize(folder: Path, samples: int, threads: int) -> None:
    """One pass, two artifacts."""
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.progress import reporting
    from lf_export.steps.quantize import TargetPlan, quantize_targets

    plans = [
        TargetPlan("gptq", "gptq", folder / "gptq", {"bits": 4}),
        TargetPlan("gguf", "gguf", folder / "gguf", {"type": "Q4_K_M"}, "model"),
    ]
    with reporting(Clock(folder / "layers.jsonl")):
        data: Any = RandomTokens(samples, LENGTH)
        quantize_targets(open_checkpoint(folder / "model"), plans, data, threads=threads)


def planned(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What `lf-export run --dry-run` says for each shape, by shape; files with no data are enough for it."""
    found = {}
    for name, shape in LLAMA_2.items():
        folder = options.cache / f"plan-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        make(folder / "model", shape, hollow=True)
        make_adapter(folder / "adapter", shape)
        recipe = {
            "version": 1,
            "name": name.lower(),
            "base": {"path": "model"},
            "adapters": ["adapter"],
            "output": str(folder / "out"),
            "calibration": {"num_samples": options.samples, "max_seq_length": LENGTH},
            "quantize": {"gptq": {"format": "gptq", "bits": 4}, "gguf": {"format": "gguf", "type": "Q4_K_M"}},
        }
        (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
        command = [sys.executable, "-m", "lf_export", "run", str(folder / "recipe.yaml"), "--dry-run", "--json"]
        command += ["--threads", str(options.threads)]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        steps = [step for step in json.loads(ended.stdout)["steps"] if step["name"] in recipe["quantize"]]
        found[name] = {
            "seconds": sum(step["seconds"] for step in steps),
            "layer_s": sum(step["seconds"] for step in steps) / shape.layers,
            "memory_bytes": max(step["peak_memory_bytes"] for step in steps),
            "disk_bytes": sum(step["writes_bytes"] for step in steps) + max(step["scratch_bytes"] for step in steps),
        }
        shutil.rmtree(folder)
    return found


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def per_layer(log: Path) -> dict[str, float]:
    """Median wall and CPU seconds between two layers that one process finished one after the other."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    pairs = [(one, two) for one, two in itertools.pairwise(rows) if one["what"] == two["what"] == "layer"]
    return {key: statistics.median(two[key] - one[key] for one, two in pairs) for key in ("wall_s", "cpu_s")}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make the model, quantize it in a child, and say what it took."""
    cache: Path = options.cache
    plans = planned(options)
    here = [sys.executable, str(Path(__file__).resolve()), "--cache", str(cache), "--samples", str(options.samples)]
    here += ["--threads", str(options.threads), "--layers", str(options.layers), "--shape", options.shape]
    variables = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    if not (cache / "model" / "config.json").exists():
        shutil.rmtree(cache / "model", ignore_errors=True)
        charged([*here, "--task", "make"], variables, cache / "make.log")
    values = charged([*here, "--task", "quantize"], variables, cache / "quantize.log")
    return {
        "planned": plans,
        "shape": options.shape,
        "layers": options.layers,
        "tokens": options.samples * LENGTH,
        "threads": options.threads,
        "model_bytes": size(cache / "model"),
        "gptq_bytes": size(cache / "gptq"),
        "gguf_bytes": size(cache / "gguf"),
        "per_layer": per_layer(cache / "layers.jsonl"),
        **values,
        **environment("lf-export", "torch", "transformers", "gguf"),
    }


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks"
    parser.add_argument("--shape", choices=tuple(LLAMA_2), default="7B")
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", action="store_true", help="keep the model and go on where a killed run was")
    parser.add_argument("--json", type=Path, help="write the values there")
    parser.add_argument("--cache", type=Path, default=default / "llama_shape", help="where model and results lie")
    parser.add_argument("--task", choices=("make", "quantize"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = LLAMA_2[options.shape]
    options.layers = options.layers or shape.layers
    if options.task == "make":
        return make(options.cache / "model", replace(shape, layers=options.layers))
    if options.task == "quantize":
        return quantize(options.cache, options.samples, options.threads)
    if not options.keep:
        shutil.rmtree(options.cache, ignore_errors=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    result = measure(options)
    if not options.keep:
        shutil.rmtree(options.cache)
    print("\n| plan | time h | a layer s | memory GB | disk GB |\n|---|---|---|---|---|")
    for name, plan in result["planned"].items():
        print(
            f"| {name} | {plan['seconds'] / 3600:.1f} | {plan['layer_s']:.1f} | {plan['memory_bytes'] / 1e9:.1f} "
            f"| {plan['disk_bytes'] / 1e9:.1f} |"
        )
    print("| shape | layers | tokens | model GB | peak MB | wall s | CPU s | a layer: wall s | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    layer = result["per_layer"]
    print(
        f"| {result['shape']} | {result['layers']} | {result['tokens']:,} | {result['model_bytes'] / 1e9:.1f} "
        f"| {result['peak_mb']:.0f} | {result['wall_s']:.0f} | {result['cpu_s']:.0f} "
        f"| {layer['wall_s']:.1f} | {layer['cpu_s']:.1f} |"
    )
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    met = result["peak_mb"] <= BOUND_MB
    print(f"bound (at most {BOUND_MB} MB): {'met' if met else 'NOT MET'}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
