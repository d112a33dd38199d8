"""Merge of a synthetic 1.1B bf16 Llama (2.2 GB, LoRA r=16 on the seven linears): PEFT against lf-export.

Both sides run as child processes, one after the other, the same number of times: import, load, merge, save. Ours also
syncs to disk before it ends, PEFT does not. Wall time, CPU seconds (user and system) and peak memory are those that the
system charges to the child. At the end both results are compared bit for bit.

Beside them run the floor, a copy of the same bytes with fsync, and what our side does before it reads a byte: the
start of Python and torch.

    python benchmarks/merge.py [--runs 5] [--threads 2] [--quick] [--json FILE]

Needs 7 GB of disk in the cache folder (--cache). Run it on an idle machine, and trust ratios more than seconds.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charged import charged
from ran import environment, medians_of, show_environment

FULL = {
    "hidden_size": 2048,
    "num_hidden_layers": 22,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}
QUICK = {
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "intermediate_size": 1408,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4000,
}
RANK, ALPHA = 16, 32
WALL_BOUND = CPU_BOUND = 2.5
MEMORY_BOUND_MB = 500
# The most that our wall time may be of the copy's, without the start of Python and torch.
COPY_BOUND = 1.5
SIDES = ("peft", "lf-export")
FLOORS = ("copy", "start")


def linears(size: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The seven linears of a layer: name to [out, in]."""
    hidden, inter = size["hidden_size"], size["intermediate_size"]
    kv = hidden // size["num_attention_heads"] * size["num_key_value_heads"]
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inter, hidden),
        "mlp.up_proj": (inter, hidden),
        "mlp.down_proj": (hidden, inter),
    }


def make_inputs(folder: Path, size: dict[str, int]) -> None:
    """Write a random base model and a random adapter; runs in a child, so that no memory of it stays."""
    import torch

    from lf_export.checkpoint.writer import staging, write_safetensors

    hidden, vocab = size["hidden_size"], size["vocab_size"]
    layout: list[tuple[str, str, tuple[int, ...]]] = [("model.embed_tokens.weight", "BF16", (vocab, hidden))]
    adapter: list[tuple[str, str, tuple[int, ...]]] = []
    for layer in range(size["num_hidden_layers"]):
        for name, (rows, columns) in linears(size).items():
            prefix = f"model.layers.{layer}.{name}"
            layout.append((f"{prefix}.weight", "BF16", (rows, columns)))
            adapter.append((f"base_model.model.{prefix}.lora_A.weight", "F32", (RANK, columns)))
            adapter.append((f"base_model.model.{prefix}.lora_B.weight", "F32", (rows, RANK)))
        norms = ("input_layernorm", "post_attention_layernorm")
        layout += [(f"model.layers.{layer}.{name}.weight", "BF16", (hidden,)) for name in norms]
    layout += [("model.norm.weight", "BF16", (hidden,)), ("lm_head.weight", "BF16", (vocab, hidden))]
    generator = torch.Generator().manual_seed(0)

    def values(entries: list[tuple[str, str, tuple[int, ...]]], dtype: torch.dtype) -> Iterator[torch.Tensor]:
        for _, _, shape in entries:
            yield (torch.randn(shape, generator=generator) * 0.02).to(dtype)

    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", **size}
    config |= {"tie_word_embeddings": False, "hidden_act": "silu", "max_position_embeddings": 2048}
    lora = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "inference_mode": True}
    lora |= {"target_modules": [name.rpartition(".")[2] for name in linears(size)]}
    with staging(folder) as out:
        (out / "base").mkdir()
        (out / "adapter").mkdir()
        (out / "base" / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (out / "adapter" / "adapter_config.json").write_text(json.dumps(lora), encoding="utf-8")
        pt = {"format": "pt"}
        write_safetensors(out / "base" / "model.safetensors", layout, values(layout, torch.bfloat16), pt)
        write_safetensors(out / "adapter" / "adapter_model.safetensors", adapter, values(adapter, torch.float32), pt)


def merge_with_peft(folder: Path, out: Path) -> None:
    """PEFT's way: load the model, load the adapter, merge_and_unload, save."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload().save_pretrained(out)


def copy(folder: Path, out: Path) -> None:
    """The least that any merge does: read as many bytes, write them, and see them on the disk."""
    out.mkdir()
    with (folder / "base" / "model.safetensors").open("rb") as source, (out / "model.safetensors").open("wb") as target:
        shutil.copyfileobj(source, target, 8 << 20)
        target.flush()
        os.fsync(target.fileno())


def start() -> None:
    """What our side imports."""
    from lf_export.checkpoint import adapter, index, merge, writer  # noqa: F401


def merge_with_ours(folder: Path, out: Path) -> None:
    """Our way, as `lf-export merge` does it."""
    from lf_export.checkpoint.adapter import open_adapter
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.checkpoint.merge import merge_checkpoint
    from lf_export.checkpoint.writer import staging

    with staging(out) as stage:
        merge_checkpoint(open_checkpoint(folder / "base"), [open_adapter(folder / "adapter")], stage)


def hide_gptqmodel() -> None:
    """Let the peer believe that what our extra `gptq` brings is not installed.

    Beside a gptqmodel without optimum PEFT refuses every LoRA, and Transformers takes seconds to import torchao.
    """
    import importlib.util

    find_spec, hidden = importlib.util.find_spec, {"gptqmodel", "torchao"}
    importlib.util.find_spec = lambda name, package=None: None if name in hidden else find_spec(name, package)


def compare(folder: Path) -> None:
    """Exit with status 1 unless both results hold the same tensors, bit for bit."""
    import torch

    from lf_export.checkpoint.index import open_checkpoint

    theirs, ours = open_checkpoint(folder / "out-peft"), open_checkpoint(folder / "out-lf-export")
    names = theirs.tensors.keys()
    different = sorted(names ^ ours.tensors.keys())
    for name in names & ours.tensors.keys():
        a, b = theirs.read(name), ours.read(name)
        if a.dtype != b.dtype or not torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
            different.append(name)
    print(f"{len(names) - len(different)} of {len(names)} tensors bit-identical", *different[:5])
    sys.exit(bool(different))


def child(task: str, folder: Path, threads: int, out: str = "") -> dict[str, float]:
    """Run one task in a child; wall and CPU seconds, peak memory in MB."""
    environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, os.path.abspath(__file__), "--task", task, "--cache", str(folder), "--out", out]  # noqa: PTH100
    return charged(command, environment)


def measure(folder: Path, runs: int, threads: int) -> dict[str, Any]:
    """Run both sides in turn; the raw values, medians and ratios."""
    raw: dict[str, list[dict[str, float]]] = {side: [] for side in (*SIDES, *FLOORS)}
    for run in range(runs + 1):
        for side in (*SIDES, *FLOORS):
            shutil.rmtree(folder / f"out-{side}", ignore_errors=True)
            os.sync()  # what the last run left to the kernel must not slow this one
            values = child(side, folder, threads, f"out-{side}")
            if run:  # the first run warms the page cache
                raw[side].append(values)
    medians = medians_of(raw)
    ratios = {key: medians["peft"][key] / medians["lf-export"][key] for key in medians["peft"]}
    walls = {side: values["wall_s"] for side, values in medians.items()}
    of_copy = (walls["lf-export"] - walls["start"]) / walls["copy"]
    return {"raw": raw, "medians": medians, "ratios": ratios, "wall_of_copy": of_copy}


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\n| {'median of ' + str(result['runs']):<12} |  wall s |  CPU s | peak MB |")
    print("|---|---|---|---|")
    for side in (*SIDES, *FLOORS):
        row = result["medians"][side]
        print(f"| {side:<12} | {row['wall_s']:7.2f} | {row['cpu_s']:6.2f} | {row['peak_mb']:7.0f} |")
    ratio = result["ratios"]
    print(f"| {'ratio':<12} | {ratio['wall_s']:6.2f}x | {ratio['cpu_s']:5.2f}x | {ratio['peak_mb']:6.2f}x |")
    print(f"\nwithout the start, {result['wall_of_copy']:.2f} times the wall time of a copy with fsync")
    show_environment(result, f", {result['gigabytes']:.2f} GB of weights")
    if not result["quick"]:
        memory = result["medians"]["lf-export"]["peak_mb"]
        met = ratio["wall_s"] >= WALL_BOUND and ratio["cpu_s"] >= CPU_BOUND and memory < MEMORY_BOUND_MB
        met = met and result["wall_of_copy"] <= COPY_BOUND
        bounds = f"{WALL_BOUND}x less wall and CPU time, under {MEMORY_BOUND_MB} MB, at most {COPY_BOUND} copies"
        print(f"bounds ({bounds}): {'met' if met else 'NOT MET'}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks"
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each side, after one to warm up")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="a small model, to see that everything works")
    parser.add_argument("--json", type=Path, help="write the raw values there")
    parser.add_argument("--cache", type=Path, default=default, help="where inputs and results lie")
    parser.add_argument("--task", choices=("make", "make-quick", "compare", *SIDES, *FLOORS), help=argparse.SUPPRESS)
    parser.add_argument("--out", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    tasks = {
        "make": lambda: make_inputs(options.cache, FULL),
        "make-quick": lambda: make_inputs(options.cache, QUICK),
        "compare": lambda: compare(options.cache),
        "peft": lambda: (hide_gptqmodel(), merge_with_peft(options.cache, options.cache / options.out)),
        "lf-export": lambda: merge_with_ours(options.cache, options.cache / options.out),
        "copy": lambda: copy(options.cache, options.cache / options.out),
        "start": start,
    }
    if options.task:
        tasks[options.task]()
        return
    folder = options.cache / ("merge-quick" if options.quick else "merge-1.1b")
    if not (folder / "base" / "model.safetensors").exists():
        print(f"writing random weights to {folder}", flush=True)
        child("make-quick" if options.quick else "make", folder, options.threads)
    result = measure(folder, options.runs, options.threads)
    result |= {
        "runs": options.runs,
        "threads": options.threads,
        "quick": options.quick,
        "gigabytes": (folder / "base" / "model.safetensors").stat().st_size / 1e9,
        **environment("lf-export", "torch", "transformers", "peft"),
    }
    report(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    child("compare", folder, options.threads)
    for side in (*SIDES, *FLOORS):
        shutil.rmtree(folder / f"out-{side}", ignore_errors=True)


if __name__ == "__main__":
    main()
