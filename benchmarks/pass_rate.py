"""The calibration pass against the machine's own matrix products: forward and moments, nothing else.

A random Llama, random samples of 256 tokens. Floating-point operations of the linears (2 · weights · tokens), of causal
attention and of the moments (a symmetric update counted once: n² a token) over the wall time of the walk, reading the
weights included, against a plain matrix product of a layer's shape in the same dtype, measured before and after it in
the same run. The bound is 60 %.

    python benchmarks/pass_rate.py [--hidden 2048] [--inner 5632] [--layers 4] [--tokens 8192] [--runs 3] [--threads 2]
        [--json FILE]
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from ran import environment
from random_model import RandomTokens, Shape, make

LENGTH = 256  # tokens of a sample
HEAD = 64  # width of a head
BOUND = 0.6


class Nothing:
    """A visitor that asks for moments and leaves them."""

    needs_moments = True

    def layer(self, view: Any) -> None:
        """Look at nothing."""


def operations(shape: Shape, tokens: int) -> float:
    """Floating-point operations of the linears, of causal attention and of the moments."""
    layout = [entry for file in shape.layout() for entry in file if "_proj" in entry[0]]
    linears = 2.0 * tokens * sum(size[0] * size[1] for _, _, size in layout)
    attention = 2.0 * tokens * LENGTH * shape.hidden * shape.layers  # two products, half of each is masked
    inputs = 3 * shape.hidden**2 + shape.inner**2  # of q, k, v; of o; of gate, up; of down
    return linears + attention + float(tokens) * inputs * shape.layers


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The rates of runs, and of plain products around each."""
    import torch

    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.walk.stream import compute_dtype, walk

    torch.set_num_threads(options.threads)
    heads = options.hidden // HEAD
    shape = Shape(options.layers, options.hidden, options.inner, heads, heads, 256, tied=True)
    make(options.cache / "model", shape)
    checkpoint = open_checkpoint(options.cache / "model")
    dtype = compute_dtype(torch.device("cpu"))
    data: Any = RandomTokens(options.tokens // LENGTH, LENGTH)
    work = operations(shape, options.tokens)
    rows = []
    for _ in range(options.runs + 1):  # the first warms up
        before = product_rate(options, dtype)
        start = time.perf_counter()
        walk(checkpoint, data, [Nothing()])
        seconds = time.perf_counter() - start
        plain = (before + product_rate(options, dtype)) / 2
        rows.append({"seconds": seconds, "pass": work / seconds, "product": plain, "share": work / seconds / plain})
    return {"dtype": str(dtype), "operations": work, "runs": rows[1:]}


def product_rate(options: argparse.Namespace, dtype: Any) -> float:
    """Operations per second of a product of as many rows as a batch has with a matrix of a layer's shape."""
    import torch

    from lf_export.walk.stream import BATCH_TOKENS

    one = torch.randn(BATCH_TOKENS, options.hidden).to(dtype)
    other = torch.randn(options.inner, options.hidden).to(dtype)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        torch.nn.functional.linear(one, other)
        times.append(time.perf_counter() - start)
    return 2.0 * BATCH_TOKENS * options.hidden * options.inner / statistics.median(times[1:])


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks" / "pass-rate"
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--inner", type=int, default=5632)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write the values there")
    parser.add_argument("--cache", type=Path, default=default, help="where the model lies")
    options = parser.parse_args()
    shutil.rmtree(options.cache, ignore_errors=True)
    found = measure(options)
    shutil.rmtree(options.cache)
    share = statistics.median(row["share"] for row in found["runs"])
    print("| hidden | inner | layers | tokens | dtype | pass GFLOP/s | product GFLOP/s | share |\n" + "|---" * 8 + "|")
    middle = {key: statistics.median(row[key] for row in found["runs"]) / 1e9 for key in ("pass", "product")}
    print(
        f"| {options.hidden} | {options.inner} | {options.layers} | {options.tokens:,} | {found['dtype']} "
        f"| {middle['pass']:.1f} | {middle['product']:.1f} | {share:.2f} |"
    )
    ran = environment("lf-export", "torch", "transformers")
    print(", ".join(f"{name} {version}" for name, version in ran["versions"].items()))
    print(f"{ran['machine']}, {options.threads} threads, medians of {options.runs}")
    print(f"bound (at least {BOUND}): {'met' if share >= BOUND else 'NOT MET'}")
    if options.json:
        shapes = {key: getattr(options, key) for key in ("hidden", "inner", "layers", "tokens", "threads")}
        options.json.write_text(json.dumps({**found, **shapes, "share": share, **ran}, indent=1) + "\n")
    sys.exit(0 if share >= BOUND else 1)


if __name__ == "__main__":
    main()
