"""One-pass calibration and GPTQ or AWQ (4 bits, group 64): lf-export against gptqmodel and llm-compressor.

All get the same token ids. Wall time, CPU seconds (user and system) and peak memory are those that the system charges
to the child process, imports included; the damage is the KL divergence from the unquantized model on held-out call
tokens, everything computed in fp32. The peers run in an environment of their own:

    python -m venv PEERS && PEERS/bin/pip install torch==2.13.0 gptqmodel==7.6.0 llmcompressor==0.14.0.1
    python benchmarks/gptq.py --model MERGED --peers PEERS [--method awq] [--runs 3] [--json FILE]

Without --peers (or LF_EXPORT_PEERS) only lf-export runs. One run of each warms up first: gptqmodel compiles C++ then.
Run it on an idle machine, and trust ratios more than seconds.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from charged import charged
from ran import add_run_options, environment, leave, medians_of, show_data, show_environment

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "calibration"
PEERS = ("gptqmodel", "llmcompressor")
OURS = "lf-export"
OPTIONS = {"gptq": {"bits": 4, "group_size": 64, "sym": True}, "awq": {"bits": 4, "group_size": 64}}
# The most that ours may be of each peer.
BOUNDS = {
    "gptq": {peer: {"wall_s": 0.4, "cpu_s": 0.4, "peak_mb": 0.5, "kl": 1.0} for peer in PEERS},
    "awq": {"gptqmodel": {"cpu_s": 0.7, "kl": 1.0}, "llmcompressor": {"cpu_s": 0.3, "kl": 1.0}},
}


def prepare(model: Path, folder: Path, num_samples: int, num_heldout: int) -> None:
    """Render calibration and held-out conversations with the model's tokenizer and write their ids."""
    from transformers import AutoTokenizer

    from lf_export.calibration.build import CalibrationOptions, build
    from lf_export.calibration.tokens import TokenClass

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    common = {"max_seq_length": 1024, "allow_dropped": 1.0}
    files = {"calls": (DATA / "calls.jsonl",), "chat": (DATA / "chat.jsonl",)}
    calibration = build(CalibrationOptions(**files, num_samples=num_samples, **common), tokenizer)
    (folder / "calibration").mkdir()
    calibration.save(folder / "calibration")
    (folder / "ids.json").write_text(json.dumps([sample.ids.tolist() for sample in calibration.samples]))
    suites = {"calls": (DATA / "suites" / "calls.jsonl",), "chat": (DATA / "suites" / "chat.jsonl",), "share": 1.0}
    heldout = build(CalibrationOptions(**suites, num_samples=num_heldout, seed=1, **common), tokenizer)
    items = []
    for sample in heldout.samples:
        inside = (sample.classes[1:] >= TokenClass.NAME).nonzero()[0]  # row j predicts token j + 1
        if len(inside):
            items.append({"ids": sample.ids.tolist(), "positions": inside.tolist()})
    (folder / "heldout.json").write_text(json.dumps(items))
    tokens = sum(len(sample.ids) for sample in calibration.samples)
    judged = sum(len(item["positions"]) for item in items)
    facts = {"samples": len(calibration.samples), "tokens": tokens, "heldout_call_tokens": judged}
    (folder / "data.json").write_text(json.dumps(facts))


def command_of(model: str, folder: Path, out: Path, threads: int, method: str) -> list[str]:
    """Our side: the command itself, journal, digests and manifest included."""
    given = ["--calibration", str(folder / "calibration"), "--group-size", "64", "--threads", str(threads)]
    return [sys.executable, "-m", "lf_export", "quantize", model, "--format", method, *given, "-o", str(out)]


def logits(model: Path, folder: Path, out: Path) -> None:
    """Logits of a model folder, GPTQ and AWQ by our own unpacking, at the held-out call tokens."""
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.quant import dequantize_awq, dequantize_stored
    from lf_export.quant.pack import STORED, stored_bits

    checkpoint = open_checkpoint(model)
    config = AutoConfig.from_pretrained(model, local_files_only=True)
    quantization = checkpoint.config.get("quantization_config")
    if quantization:
        del config.quantization_config
    loaded = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    state = {}
    for name in checkpoint.tensors:
        stem, _, part = name.rpartition(".")
        if part == "qweight":
            parts = {kind: f"{stem}.{kind}" for kind in STORED}
            stored = {kind: checkpoint.read(part) for kind, part in parts.items() if part in checkpoint.tensors}
            if quantization["quant_method"] == "awq":
                state[f"{stem}.weight"] = dequantize_awq(stored)
            else:
                bits = stored_bits(len(stored["qweight"]), len(stored["g_idx"]))
                state[f"{stem}.weight"] = dequantize_stored(stored, bits)
        elif part not in STORED:
            state[name] = checkpoint.read(name, dtype=torch.float32)
    problems = loaded.load_state_dict(state, strict=False)
    if problems.unexpected_keys or [name for name in problems.missing_keys if name != "lm_head.weight"]:
        sys.exit(f"{model}: {problems}")
    loaded.tie_weights()
    rows = []
    with torch.inference_mode():
        for item in json.loads((folder / "heldout.json").read_text()):
            hidden = loaded.model(torch.tensor([item["ids"]])).last_hidden_state[0, item["positions"]]
            rows.append(loaded.lm_head(hidden).numpy())
    np.save(out, np.concatenate(rows))


def divergence(folder: Path, arm: str) -> dict[str, float]:
    """Mean KL (nats) and top-1 agreement of an arm's logits against the unquantized model's."""
    import numpy as np
    import torch

    base, other = (torch.from_numpy(np.load(folder / f"{name}.npy")).double().log_softmax(-1) for name in ("base", arm))
    kl = (base.exp() * (base - other)).sum(-1).mean()
    return {"kl": float(kl), "top1": float((base.argmax(-1) == other.argmax(-1)).double().mean())}


def child(command: list[str], threads: int, log: Path) -> dict[str, float]:
    """Run a command; wall and CPU seconds, peak memory in MB. What it prints goes to `log`."""
    environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment |= {
        "GPTQMODEL_CPU_WORKERS": str(max(2, threads)),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return charged(command, environment, log)


def measure(options: argparse.Namespace, folder: Path, peers: Path | None) -> dict[str, Any]:
    """Run all arms in turn; the raw values, their medians, and each arm's damage."""
    arms = [OURS, *PEERS] if peers else [OURS]
    model, threads = str(options.model.resolve()), options.threads
    here = [sys.executable, str(Path(__file__).resolve()), "--model", model, "--cache", str(folder), "--task"]
    there = [str(peers), str(HERE / "gptq_peers.py")]
    method = options.method
    sizes = ["--num-samples", str(options.num_samples), "--num-heldout", str(options.num_heldout)]
    child([*here, "prepare", *sizes], threads, folder / "prepare.log")
    child([*here, "logits", "--out", str(folder / "base.npy")], threads, folder / "base.log")
    raw: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for run in range(options.runs + options.warmup):
        for arm in arms:
            out = folder / arm
            shutil.rmtree(out, ignore_errors=True)
            os.sync()  # what the last run left to the kernel must not slow this one
            ours = command_of(model, folder, out, threads, method)
            theirs = [*there, arm, model, str(folder / "ids.json"), str(out), method]
            values = child(ours if arm == OURS else theirs, threads, folder / f"{arm}.log")
            print(f"run {run} {arm}: " + ", ".join(f"{key} {value:.1f}" for key, value in values.items()), flush=True)
            if run >= options.warmup:
                raw[arm].append(values)
    medians = medians_of(raw)
    for arm in arms:
        scores = folder / f"{arm}.npy"
        if arm == "llmcompressor":
            read = [*there, "logits", str(folder / arm), str(folder / "heldout.json"), str(scores)]
        else:
            read = [*here[:3], str(folder / arm), *here[4:], "logits", "--out", str(scores)]
        child(read, threads, folder / f"{arm}-logits.log")
        medians[arm] |= divergence(folder, arm)
    data = json.loads((folder / "data.json").read_text())
    return {"raw": raw, "medians": medians, "data": data, "ratios": ratios(medians)}


def ratios(medians: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Ours against each peer."""
    keys = ("wall_s", "cpu_s", "peak_mb", "kl")
    return {arm: {key: medians[OURS][key] / row[key] for key in keys} for arm, row in medians.items() if arm != OURS}


def report(result: dict[str, Any]) -> bool:
    """Print the table; whether every bound holds."""
    print(
        f"\n| {result['method']}, {OPTIONS[result['method']]} | wall s | CPU s | peak MB | KL on call tokens | top-1 |"
    )
    print("|---|---|---|---|---|---|")
    for arm, row in result["medians"].items():
        print(
            f"| {arm:<21} | {row['wall_s']:6.1f} | {row['cpu_s']:5.1f} | {row['peak_mb']:7.0f} "
            f"| {row['kl']:17.4f} | {row['top1']:.3f} |"
        )
    for peer, ratio in result["ratios"].items():
        print(
            f"| {'ratio to ' + peer:<21} | {ratio['wall_s']:5.2f}x | {ratio['cpu_s']:4.2f}x "
            f"| {ratio['peak_mb']:6.2f}x | {ratio['kl']:16.2f}x | |"
        )
    show_data(result)
    show_environment(result, f", medians of {result['runs']}")
    met = True
    for peer, ratio in result["ratios"].items():
        for key, bound in BOUNDS[result["method"]][peer].items():
            met &= ratio[key] <= bound
            print(f"bound {key} <= {bound} of {peer}: {'met' if ratio[key] <= bound else 'NOT MET'}")
    return met


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a merged model folder")
    parser.add_argument("--method", choices=tuple(OPTIONS), default="gptq")
    parser.add_argument("--num-heldout", type=int, default=32, help="conversations to measure the damage on")
    add_run_options(parser, "gptq")
    parser.add_argument("--task", choices=("prepare", "logits"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task == "prepare":
        return prepare(options.model, options.cache, options.num_samples, options.num_heldout)
    if options.task == "logits":
        return logits(options.model, options.cache, options.out)
    peers = options.peers and options.peers / "bin" / "python"
    if peers and not peers.exists():
        parser.error(f"--peers: no {peers}")
    shutil.rmtree(options.cache, ignore_errors=True)
    options.cache.mkdir(parents=True)
    result = measure(options, options.cache, peers) | {
        "method": options.method,
        "model": options.model.name,
        "runs": options.runs,
        "threads": options.threads,
        **environment("lf-export", "torch", "transformers"),
    }
    met = report(result)
    return leave(result, options.json, met=met)


if __name__ == "__main__":
    main()
