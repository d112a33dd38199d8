"""Peak memory of `quantize` by the model's width, against what `--dry-run` and `--memory` say beforehand.

Random Llamas of two layers (bf16, 256 token ids, feed-forward 2.75 times the width), each quantized to each format
alone in a child process; peak memory is what the system charges to the child, imports included. The bound: no run
takes more than was said.

    python benchmarks/memory.py [--hidden 512 1024 2048] [--json FILE]
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from charged import charged
from ran import environment, leave, show_environment
from random_model import RandomTokens, Shape, make

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "gptq": ("gptq", {"bits": 4}),
    "awq": ("awq", {}),
    "gguf Q4_K_M": ("gguf", {"type": "Q4_K_M"}),
    "gguf Q8_0 rtn": ("gguf", {"type": "Q8_0", "method": "rtn"}),
}
TOKENS, SAMPLE = 2048, 256


def quantize(model: Path, out: Path, name: str, tokens: int) -> None:
    """One artifact."""
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.steps.quantize import TargetPlan, quantize_targets

    kind, options = FORMATS[name]
    data: Any = RandomTokens(tokens // SAMPLE, SAMPLE)
    plan = TargetPlan(name, kind, out, options, "memory")
    quantize_targets(open_checkpoint(model), [plan], data, threads=1, memory=1 << 30)


def said(model: Path, name: str, tokens: int) -> float:
    """The estimate in MB."""
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.steps import estimate
    from lf_export.steps.quantize import TargetPlan

    kind, options = FORMATS[name]
    checkpoint = open_checkpoint(model)
    plan = TargetPlan(name, kind, Path("out"), options, "memory")
    return estimate.quantize_memory(checkpoint, [plan], tokens, 1 << 30) / 1e6


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--json", type=Path, help="write the values there")
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        model, out, name = options.task
        quantize(Path(model), Path(out), name, TOKENS)
        return
    rows = []
    print("| hidden | format        | said MB | peak MB | CPU s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for hidden in options.hidden:
            model = folder / f"model-{hidden}"
            make(model, Shape(2, hidden, hidden * 11 // 4, 8, 8, 256, tied=True))
            for name in FORMATS:
                out = folder / "out"
                command = [sys.executable, __file__, "--task", str(model), str(out), name]
                values = charged(command, os.environ | {"OMP_NUM_THREADS": "1"}, folder / "log")
                shutil.rmtree(out)
                beforehand = said(model, name, TOKENS)
                rows.append({"hidden": hidden, "format": name, "said_mb": round(beforehand, 1), **values})
                print(
                    f"| {hidden:6} | {name:13} | {beforehand:7.0f} | {values['peak_mb'] * 1.048576:7.0f} "
                    f"| {values['cpu_s']:5.1f} |",
                    flush=True,
                )
    met = all(row["peak_mb"] * 1.048576 <= row["said_mb"] for row in rows)
    print(f"bound (no peak over what was said): {'met' if met else 'NOT MET'}")
    result = {"runs": rows, "tokens": TOKENS, "threads": 1} | environment("torch", "transformers", "numpy")
    show_environment(result, f", {TOKENS:,} tokens")
    leave(result, options.json, met=met)


if __name__ == "__main__":
    main()
