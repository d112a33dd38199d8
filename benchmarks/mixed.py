"""Mixed precision by measured damage against the same budget spent without looking: GPTQ to an average of bits.

All artifacts come from one calibration pass. The controls give the higher bits to whole groups of linears (those that
are fused in vLLM) in the order of the model, and in random orders, as long as the budget lasts. The damage is the KL
divergence from the unquantized model on call tokens of conversations that calibration has not seen, computed in fp32.

    python benchmarks/mixed.py --model FOLDER [--bits 4.25] [--seeds 0 1] [--num-samples 32] [--num-heldout 48]
        [--threads 1] [--json FILE]

Weights that sit on a 4-bit grid already flatter every method: take them off it with benchmarks/off_grid.py.
"""

import argparse
import json
import os
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptq import divergence, logits, prepare
from ran import environment, show_data, show_environment


def groups_of(checkpoint: Any) -> list[tuple[str, ...]]:
    """The full names of linears that get the same bits, in the order of the model."""
    from lf_export.walk.families import family_of, num_layers

    family = family_of(checkpoint.config)
    return [
        tuple(f"{family.prefix(index)}.{name}" for name in group)
        for index in range(num_layers(checkpoint.config))
        for group in family.groups_at(index)
    ]


def spent_blindly(checkpoint: Any, bits: float, order: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Options that give the higher bits to each group in `order` that still fits."""
    from lf_export.formats.gptq_options import GptqOptions, choices_of, extra_bits

    options = GptqOptions(bits=bits)
    low, high = options.widths
    budget = extra_bits(checkpoint, options, choices_of(checkpoint, options)[1])
    overrides = {}
    for group in order:
        cost = sum(checkpoint.info(f"{name}.weight").numel for name in group) * (high - low)
        if cost <= budget:
            budget -= cost
            overrides |= {name: {"bits": high} for name in group}
    return {"bits": low, "overrides": overrides}


def arms_of(checkpoint: Any, bits: float, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The options of every artifact, by name."""
    from lf_export.formats.gptq_options import GptqOptions

    groups = groups_of(checkpoint)
    arms: dict[str, dict[str, Any]] = {
        f"{GptqOptions(bits=bits).widths[0]} bits": {"bits": GptqOptions(bits=bits).widths[0]},
        f"{bits:g} by damage": {"bits": bits},
        f"{bits:g} first linears": spent_blindly(checkpoint, bits, groups),
    }
    for seed in seeds:
        shuffled = random.Random(seed).sample(groups, len(groups))  # noqa: S311 (the same order each time is the point)
        arms[f"{bits:g} random, seed {seed}"] = spent_blindly(checkpoint, bits, shuffled)
    return arms


def quantize(model: Path, cache: Path, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Write every artifact in one pass; their facts."""
    from lf_export.calibration.build import CalibrationSet
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.formats.gptq import FORMAT
    from lf_export.walk.stream import walk

    data = CalibrationSet.load(cache / "calibration")
    checkpoint = open_checkpoint(model)
    targets = {}
    for arm, options in arms.items():
        (cache / arm).mkdir()
        targets[arm] = FORMAT.open(checkpoint, cache / arm, FORMAT.options(**options), data.digest)
    walk(checkpoint, data, list(targets.values()))
    return {arm: target.finish() for arm, target in targets.items()}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Quantize, score and compare."""
    import torch

    from lf_export.checkpoint.index import open_checkpoint

    torch.set_num_threads(options.threads)
    cache = options.cache
    prepare(options.model, cache, options.num_samples, options.num_heldout)
    logits(options.model, cache, cache / "base.npy")
    checkpoint = open_checkpoint(options.model)
    weights = {name: checkpoint.info(f"{name}.weight").numel for group in groups_of(checkpoint) for name in group}
    began = time.perf_counter()
    found = quantize(options.model, cache, arms_of(checkpoint, options.bits, options.seeds))
    print(f"quantized: {time.perf_counter() - began:.0f} s", flush=True)
    rows = {}
    for arm, facts in found.items():
        logits(cache / arm, cache, cache / f"{arm}.npy")
        own = {name: each.get("bits", facts["options"]["bits"]) for name, each in facts["linears"].items()}
        average = sum(weights[name] * bits for name, bits in own.items()) / sum(weights.values())
        higher = [name for name, bits in own.items() if bits > min(own.values())]
        size = sum(file.stat().st_size for file in (cache / arm).glob("*.safetensors"))
        rows[arm] = divergence(cache, arm) | {"average_bits": average, "bytes": size, "error": facts["error"]}
        rows[arm]["higher"] = higher
        print(f"{arm}: KL {rows[arm]['kl']:.5f}", flush=True)
        (cache / f"{arm}.npy").unlink()
    chosen = {name: each for facts in found.values() for name, each in facts["linears"].items() if "damage" in each}
    return {"arms": rows, "damage": chosen, "data": json.loads((cache / "data.json").read_text())}


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    print("\n| arm | bits | MB | KL on call tokens | top-1 | linears with more |")
    print("|---|---|---|---|---|---|")
    for arm, row in result["arms"].items():
        print(
            f"| {arm} | {row['average_bits']:.3f} | {row['bytes'] / 1e6:.1f} | {row['kl']:.5f} | {row['top1']:.3f} "
            f"| {len(row['higher'])} |"
        )
    show_data(result)
    show_environment(result)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks" / "mixed"
    parser.add_argument("--model", type=Path, required=True, help="a merged model folder")
    parser.add_argument("--bits", type=float, default=4.25, help="the average")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1], help="of the random controls")
    parser.add_argument("--num-samples", type=int, default=32, help="conversations to calibrate with")
    parser.add_argument("--num-heldout", type=int, default=48, help="conversations to measure the damage on")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write the raw values there")
    parser.add_argument("--cache", type=Path, default=default, help="where inputs and artifacts lie")
    options = parser.parse_args()
    shutil.rmtree(options.cache, ignore_errors=True)
    options.cache.mkdir(parents=True)
    result = measure(options) | {
        "model": options.model.name,
        "threads": options.threads,
        **environment("lf-export", "torch", "transformers"),
    }
    report(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
