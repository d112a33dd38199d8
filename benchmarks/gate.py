"""The gate, simulated: how often it passes what truly loses the margin, and how often what loses nothing.

For each number of items and share of flips, runs are drawn with a true loss equal to the margin (a PASS is a false
accept: at most alpha of them may be) and with no loss (a PASS is what the run is for: its power). Both once with
independent items, and once with items in clusters that tend to flip together, judged as independent and by the
design effect. A share of flips below the margin cannot lose the margin: no false accept is possible there.

    python benchmarks/gate.py [--margin 0.05] [--runs 4000] [--cluster 4] [--correlation 0.1] [--json FILE]
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ran import environment

from lf_export.stats import paired, score_statistic

ITEMS = (50, 100, 200, 300, 500, 1000, 2000)
DISCORDANCE = (0.01, 0.02, 0.05, 0.1, 0.2)
# One-sided, at 5 %; the binomial noise of a simulated share is allowed on top.
ALPHA, Z = 0.05, 1.6448536269514722


def draws(
    n: int, discordance: float, loss: float, size: int, correlation: float, runs: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Outcomes (baseline right, candidate right) of `runs` runs, items of a cluster side by side.

    In a cluster each item repeats the cluster's own outcome with a probability whose square is the correlation.
    """
    lost, gained = (discordance + loss) / 2, (discordance - loss) / 2
    chances = [lost, gained, 1 - discordance]
    for _ in range(runs):
        own = rng.choice(3, size=n, p=chances)
        if size > 1:
            shared = rng.choice(3, size=math.ceil(n / size), p=chances).repeat(size)[:n]
            own = np.where(rng.random(n) < math.sqrt(correlation), shared, own)
        yield own != 1, own != 0  # 0: lost, 1: gained, 2: both right


def passes(
    n: int, discordance: float, loss: float, options: argparse.Namespace, *, clustered: bool, seed: int
) -> tuple[float, float]:
    """The share of runs that pass, with items taken as independent and by the design effect."""
    size = options.cluster if clustered else 1
    clusters = [item // size for item in range(n)]
    rng = np.random.default_rng(seed)
    plain = by_effect = 0
    for base, candidate in draws(n, discordance, loss, size, options.correlation, options.runs, rng):
        first, second = base.tolist(), candidate.tolist()
        counts = paired(first, second)
        passed = score_statistic(counts, options.margin) < -Z
        plain += passed
        if clustered and passed:  # the design effect only widens
            by_effect += score_statistic(paired(first, second, clusters), options.margin) < -Z
    return plain / options.runs, (by_effect if clustered else plain) / options.runs


def simulate(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each number of items and share of flips."""
    rows = []
    for n in ITEMS:
        for discordance in DISCORDANCE:
            row: dict[str, Any] = {"items": n, "discordance": discordance}
            for clustered in (False, True):
                for what, loss in (("false_accept", options.margin), ("power", 0.0)):
                    if loss > discordance:
                        continue
                    seed = n * 1000 + round(discordance * 100) * 4 + 2 * clustered + (what == "power")
                    plain, by_effect = passes(n, discordance, loss, options, clustered=clustered, seed=seed)
                    if clustered:
                        row |= {f"{what}_clustered_as_independent": plain, f"{what}_clustered": by_effect}
                    else:
                        row[what] = plain
            rows.append(row)
    return rows


def report(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the table and whether the bound holds."""
    keys = [key for key in rows[-1] if key not in {"items", "discordance"}]  # the last row has them all
    print(
        f"margin {options.margin:g}, {options.runs} runs a cell; clusters of {options.cluster}, "
        f"correlation {options.correlation:g}\n"
    )
    print("| items | flips | " + " | ".join(key.replace("_", " ") for key in keys) + " |")
    print("|---|---|" + "---|" * len(keys))
    for row in rows:
        cells = [f"{row[key]:.3f}" if key in row else "-" for key in keys]
        print(f"| {row['items']} | {row['discordance']:.0%} | " + " | ".join(cells) + " |")
    noise = 3 * math.sqrt(ALPHA * (1 - ALPHA) / options.runs)
    for key in ("false_accept", "false_accept_clustered"):
        worst = max(row[key] for row in rows if key in row)
        print(f"worst {key.replace('_', ' ')}: {worst:.3f} (at most {ALPHA} and noise of {noise:.3f})")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--runs", type=int, default=2000, help="simulated runs of a cell")
    parser.add_argument("--cluster", type=int, default=4, help="items that share something")
    parser.add_argument("--correlation", type=float, default=0.1, help="of two items of a cluster")
    parser.add_argument("--json", type=Path, help="write the values there")
    options = parser.parse_args()
    rows = simulate(options)
    report(rows, options)
    if options.json:
        result = {"margin": options.margin, "runs": options.runs, "cluster": options.cluster}
        result |= {"correlation": options.correlation, "rows": rows, **environment("lf-export", "numpy")}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
