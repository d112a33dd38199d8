"""What ran, for the end of a benchmark's table and for its JSON."""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def environment(*packages: str) -> dict[str, Any]:
    """The versions of packages, and the machine."""
    return {
        "versions": {name: metadata.version(name) for name in packages},
        "machine": f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
    }


def show_data(result: Mapping[str, Any]) -> None:
    """Say what was calibrated with and what was judged."""
    data = result["data"]
    print(
        f"\n{result['model']}: {data['samples']} conversations, {data['tokens']:,} tokens; "
        f"{data['heldout_call_tokens']:,} held-out call tokens"
    )


def show_environment(result: Mapping[str, Any], more: str = "") -> None:
    """Say with which versions, on which machine, with how many threads; `more` follows these."""
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    print(f"{result['machine']}, {result['threads']} threads{more}")


def medians_of(raw: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The median of each value over the runs of each arm."""
    return {arm: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for arm, runs in raw.items()}


def add_run_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Add what comparisons of several runs take; `default` is the folder below the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks"
    parser.add_argument("--peers", type=Path, default=os.environ.get("LF_EXPORT_PEERS"), help="the peers' environment")
    parser.add_argument("--num-samples", type=int, default=32, help="conversations to calibrate with")
    parser.add_argument("--runs", type=int, default=3, help="measured runs of each")
    parser.add_argument("--warmup", type=int, default=1, help="runs before those: gptqmodel compiles C++ then")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write the raw values there")
    parser.add_argument("--cache", type=Path, default=cache / default, help="where inputs and results lie")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)


def leave(result: Mapping[str, Any], to: Path | None, *, met: bool) -> None:
    """Write the result where it is wanted, and end with 0 where the bounds hold."""
    if to:
        to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if met else 1)
