"""What a grammar and a router gain and hide: the quickstart's model, eight bits, four and two, in every arm.

Runs the quickstart's recipe with `bench.arms: [raw, constrained, routed]` and three artifacts, so that the damage is
small, moderate and large, and prints the report's table of arms.

    python benchmarks/arms.py [--calls 160] [--no-call 80] [--threads 2] [--cache FOLDER] [--json FILE]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ran import environment, leave

from lf_export.report import Report, cells, read_report
from lf_export.report.arms import arm_lines, arm_table

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {
    "gguf-q8_0": {"format": "gguf", "type": "Q8_0"},
    "gptq-4bit": {"format": "gptq", "bits": 4, "group_size": 64, "sym": False},
    "gguf-q2_k": {"format": "gguf", "type": "Q2_K"},
}


def run(options: argparse.Namespace) -> Report:
    """The report of the whole run; one that was made before with the same options is kept."""
    changes = {
        "output": str(options.cache),
        "quantize": TARGETS,
        "bench.arms": ["raw", "constrained", "routed"],
        "bench.calls.limit": options.calls,
        "bench.no_call.limit": options.no_call,
        "bench.chat.limit": 1,
        "bench.fidelity_items": 0,
        "bench.latency_prompts": 1,
        "gate.enforce": ["gguf-q8_0"],
    }
    given = [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    recipe = str(ROOT / "recipes" / "quickstart.yaml")
    command = [sys.executable, "-m", "lf_export", "run", recipe, *given, "--threads", str(options.threads)]
    done = subprocess.run(command, check=False, cwd=ROOT)
    if done.returncode not in {0, 10, 11}:  # what the verdict is does not matter here
        sys.exit(f"the run ended with {done.returncode}")
    return read_report(options.cache / "bench" / "report.json")


def result_of(report: Report) -> dict[str, Any]:
    """The arms and the raw counts of every model; not the answers."""
    kept = {"arms": {"__all__": {"items"}}}
    return {
        "model": "SmolLM2-135M-Instruct with the quickstart's adapter",
        "calls": report.suites.calls.items if report.suites.calls else 0,
        "no_call": report.suites.no_call.items if report.suites.no_call else 0,
        "models": [
            {
                "name": each.name,
                "runtime": each.runtime,
                **each.model_dump(mode="json", include={"arms": True}, exclude=kept),
            }
            for each in report.everyone
        ],
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks" / "arms"
    parser.add_argument("--calls", type=int, default=160, help="call items")
    parser.add_argument("--no-call", type=int, default=80, help="items that no function serves")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=cache, help="where the run lies")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    report = run(options)
    print(cells.plain_table(*arm_table(report)))
    print("\n".join(arm_lines(report)))
    found = environment("lf-export", "torch", "transformers", "xllamacpp", "llguidance")
    leave(result_of(report) | found | {"threads": options.threads}, options.json, met=True)


if __name__ == "__main__":
    main()
