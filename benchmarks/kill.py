"""Kill `run`, `merge`, `quantize` and `bench` with SIGKILL at random moments until each has finished once.

Moments are uniform over an undisturbed run's time, or right before or after one of its renames; a part of the kills
spares the processes that the command has started. After each chain of kills the output must be that of an undisturbed
run, byte for byte (of a report: all but times), and nothing else may lie beside it.

    python benchmarks/kill.py --json benchmarks/results/kill.json
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from killed import Killer
from ran import environment, leave, show_environment

KILLS = {"merge": 50, "gptq": 45, "awq": 45, "gguf": 45, "onnx": 16, "bench": 8, "run": 6}
"""At least so many of each."""


def main() -> None:
    """Kill, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=KILLS, default=list(KILLS))
    parser.add_argument("--scale", type=float, default=1, help="times the number of kills")
    parser.add_argument("--json", type=Path, help="write the raw values there")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    if options.json and options.json.exists():  # commands that are not asked for now keep theirs
        rows = json.loads(options.json.read_text(encoding="utf-8"))["commands"]
    result = _result(rows, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), options.seed)
        print("command    undisturbed  renames  kills  chains  at renames  problems")
        for name in options.only:
            case = killer.case(name)
            started = time.monotonic()
            trials = []
            while sum(len(trial.kills) for trial in trials) < KILLS[name] * options.scale:
                trials.append(killer.trial(case))
            seconds, renames, files = killer.undisturbed(case)
            kills = [kill for trial in trials for kill in trial.kills]
            problems = [problem for trial in trials for problem in trial.problems]
            at = sum("rename" in kill for kill in kills)
            rows[name] = {
                "undisturbed_seconds": round(seconds, 3),
                "renames": renames,
                "files": len({name.split(": ")[0] for name in files}),
                "kills": len(kills),
                "chains": len(trials),
                "kills_at_renames": at,
                "kinds": dict(Counter(kill.split()[-1] if "rename" not in kill else kill.split()[0] for kill in kills)),
                "problems": problems,
                "seconds": round(time.monotonic() - started, 1),
            }
            print(
                f"{name:<10}{seconds:>10.2f} s{renames:>9}{len(kills):>7}{len(trials):>8}{at:>12}{len(problems):>10}",
                flush=True,
            )
            for problem in problems:
                print(f"  {problem}", flush=True)
            result = _result(rows, options.seed)
            if options.json:  # each as it comes: all of them take long
                options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{result['kills']} kills, {result['problems']} problems, seed {options.seed}")
    show_environment(result)
    leave(result, options.json, met=not result["problems"])


def _result(rows: dict[str, Any], seed: int) -> dict[str, Any]:
    total = sum(row["kills"] for row in rows.values())
    bad = sum(len(row["problems"]) for row in rows.values())
    found = {"kills": total, "problems": bad, "seed": seed, "threads": 1, "commands": rows}
    return found | environment("torch", "transformers", "lf-export")


if __name__ == "__main__":
    main()
