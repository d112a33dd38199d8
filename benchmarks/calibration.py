"""Does calibration with function calls help? The same quantizers, calibrated with different data of equal token counts.

Arms: no calibration, random tokens, generic text, chat alone, calls alone, half and half, and half and half with the
tokens of calls weighted. Each is quantized to GPTQ and AWQ (4 bits, group 64, asymmetric) and GGUF Q4_K_M (llama.cpp's
own rounding with an importance matrix) in one pass, for several seeds, and judged in its own runtime: the KL divergence
from the unquantized model on the call tokens of conversations from another source and of the shipped suites,
perplexity of chat, and for the first seed, with --answers, exact calls and abstention. Intervals are a bootstrap over
conversations, of the mean over seeds; differences are paired with half and half.

    python benchmarks/calibration.py --model FOLDER --text FILE --calls FILE --chat FILE [--tokens 8192] [--seeds 0 1 2]
        [--answers 60] [--json FILE]

--text is plain text, --calls and --chat are JSONL of OpenAI messages that nothing was trained on. Weights that sit on a
4-bit grid already flatter every method: take them off it with benchmarks/off_grid.py.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ran import environment

DATA = Path(__file__).resolve().parent.parent / "calibration"
CALL_CLASSES = ("name", "key", "value", "punct")
WEIGHTS = (2, 4, 8)
ARMS = ("none", "random", "text", "chat", "calls", "half", *(f"half, calls x{weight}" for weight in WEIGHTS))
REFERENCE = "half"
SETS = ("calls elsewhere", "calls shipped", "chat")
QUANTIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gptq": ("gptq", {"bits": 4, "group_size": 64, "sym": False}),
    "awq": ("awq", {"bits": 4, "group_size": 64}),
    "q4_k_m": ("gguf", {"types": ("Q4_K_M",), "method": "imatrix", "name": "m"}),
}
UNCALIBRATED: dict[str, tuple[str, dict[str, Any]]] = {
    "q4_k_m": ("gguf", {"types": ("Q4_K_M",), "method": "rtn", "name": "m"}),
}
ROUNDED = {"bits": 4, "group_size": 64, "sym": False, "clip_search": False}
LENGTH = 256  # tokens of a sample of random tokens or of text


def data_of(arm: str, seed: int, options: argparse.Namespace, tokenizer: Any) -> Any:
    """The calibration set of an arm; each has the same number of tokens, to a conversation's length."""
    from lf_export.calibration.build import CalibrationOptions, build
    from lf_export.calibration.tokens import TokenClass, TokenizedSample

    share = {"chat": 0.0, "calls": 1.0}.get(arm, 0.5)
    weight = float(arm.partition(" x")[2] or 1)
    made = build(
        CalibrationOptions(
            calls=(DATA / "calls.jsonl",),
            chat=(DATA / "chat.jsonl",),
            share=share,
            max_tokens=options.tokens,
            max_seq_length=1024,
            allow_dropped=1.0,
            seed=seed,
            weights=dict.fromkeys(CALL_CLASSES, weight),
        ),
        tokenizer,
    )
    if arm not in {"random", "text"}:
        return made
    rng = np.random.default_rng(seed)
    if arm == "random":
        plain = [index for index in range(len(tokenizer)) if index not in tokenizer.all_special_ids]
        rows = rng.choice(plain, size=(options.tokens // LENGTH, LENGTH))
    else:
        ids = np.array(tokenizer(options.text.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"])
        pieces = ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)
        rows = pieces[rng.choice(len(pieces), size=options.tokens // LENGTH, replace=False)]
    classes = np.full(LENGTH, TokenClass.PROSE, np.uint8)
    samples = tuple(TokenizedSample(f"{arm}-{row}", ids.astype(np.int32), classes) for row, ids in enumerate(rows))
    return replace(made, samples=samples)


def heldout(options: argparse.Namespace, tokenizer: Any) -> list[dict[str, Any]]:
    """The conversations that judge: their ids, and the positions of judged tokens, of calls or of chat's answers."""
    from lf_export.calibration.build import CalibrationOptions, build
    from lf_export.calibration.tokens import TokenClass

    sources = (
        (SETS[0], {"calls": (options.calls,), "share": 1.0}),
        (SETS[1], {"calls": (DATA / "suites" / "calls.jsonl",), "share": 1.0}),
        (SETS[2], {"chat": (options.chat,), "share": 0.0}),
    )
    items = []
    for name, source in sources:
        # room for conversations without a call among them
        wanted: dict[str, Any] = {"num_samples": 2 * options.heldout, "max_seq_length": 1024, "allow_dropped": 1.0}
        made = build(CalibrationOptions(**source, **wanted), tokenizer)
        found = 0
        for sample in made.samples:
            inside = sample.classes == TokenClass.PROSE if name == "chat" else sample.classes >= TokenClass.NAME
            places = np.flatnonzero(inside[1:]) + 1
            if len(places) and found < options.heldout:
                items.append({"set": name, "ids": sample.ids.tolist(), "places": places.tolist()})
                found += 1
    return items


def rows_of(session: Any, items: Sequence[dict[str, Any]]) -> Iterator[np.ndarray[Any, Any]]:
    """For each item the logits that predict its judged tokens, [places, vocabulary]."""
    for item in items:
        first = item["places"][0]
        scores = session.score([], [item["ids"]], [first])[0]
        yield scores[[place - first for place in item["places"]]]


def quantize(options: argparse.Namespace, arm: str, seed: int, tokenizer: Any, out: Path) -> dict[str, Path]:
    """The artifacts of an arm, in one pass."""
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.formats import FORMATS
    from lf_export.walk.stream import walk

    data = data_of(arm, seed, options, tokenizer)
    checkpoint = open_checkpoint(options.model)
    targets = {}
    for name, (kind, chosen) in (UNCALIBRATED if arm == "none" else QUANTIZERS).items():
        folder = out / name
        folder.mkdir(parents=True)
        threads = {"threads": options.threads} if kind == "gguf" else {}
        targets[folder] = FORMATS[kind].open(
            checkpoint, folder, FORMATS[kind].options(**chosen, **threads), data.digest
        )
    walk(checkpoint, data, list(targets.values()))
    for target in targets.values():
        target.finish()
    made = {folder.name: folder for folder in targets}
    if arm == "none":
        made["rtn"] = out / "rtn"
        write_plain(options.model, made["rtn"], rounded=True)
    return made


def write_plain(model: Path, out: Path, *, rounded: bool) -> None:
    """The model in float32, so that it computes as quantized ones do; its linears rounded to nearest, if wanted."""
    import torch
    from safetensors.torch import save_file

    from lf_export.checkpoint.carry import copy_companions
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.formats.linears import linear_names
    from lf_export.quant.gptq import dequantize, rtn
    from lf_export.quant.grid import Scheme

    checkpoint = open_checkpoint(model)
    tensors = {name: checkpoint.read(name, dtype=torch.float32) for name in checkpoint.tensors}
    for name in linear_names(checkpoint) if rounded else ():
        weight = f"{name}.weight"
        tensors[weight] = dequantize(rtn(tensors[weight], Scheme(**ROUNDED))).contiguous()
    out.mkdir()
    copy_companions(checkpoint.root, out, lambda config: {**config, "dtype": "float32", "torch_dtype": "float32"})
    save_file(tensors, out / "model.safetensors", {"format": "pt"})


def opened(folder: Path, threads: int) -> Any:
    """A session of an artifact in its own runtime."""
    from lf_export.runtimes import llamacpp, torch

    gguf = any(folder.glob("*.gguf"))
    return (llamacpp if gguf else torch).open_session(folder, threads)


def judge(folder: Path, base: Path, items: Sequence[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """Of each item the sums of KL and of the artifact's surprise, in nats, and the number of tokens."""
    from lf_export.metrics.fidelity import compare_logits

    session = opened(folder, threads)
    rows = []
    for number, (item, logits) in enumerate(zip(items, rows_of(session, items), strict=True)):
        found = compare_logits(
            np.load(base / f"{number}.npy"), logits, [item["ids"][place] for place in item["places"]]
        )
        rows.append(
            {"set": item["set"], "tokens": len(found.kl), "kl": float(found.kl.sum()), "nll": float(found.nll.sum())}
        )
    session.close()
    return rows


def answers(folder: Path, count: int, threads: int, model: Path) -> dict[str, list[bool]]:
    """Right or wrong on a stratified part of the shipped suites, by suite."""
    from transformers import AutoTokenizer

    from lf_export.calibration.suites import load_suite, stratified
    from lf_export.functions.dialects import dialect_for
    from lf_export.metrics.calls import judge_item
    from lf_export.steps.prompts import grouped, prepare

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    dialect = dialect_for("chat-template", tokenizer)
    session = opened(folder, threads)
    found: dict[str, dict[str, bool]] = {}
    for suite in ("calls", "no-call"):
        items = stratified(load_suite(DATA / "suites" / f"{suite}.jsonl"), count)
        groups = grouped(prepare(items, dialect, tokenizer))
        marks = found.setdefault(suite, {})
        asked = [(group.prefix, group.branches) for group in groups]
        for number, made in session.generate_groups(asked, max_new_tokens=128):
            for prompt, each in zip(groups[number].prompts, made, strict=True):
                item = prompt.item
                answer = dialect.parse(each.text)
                marks[item.id] = judge_item(answer, item, each.ids, session.eos_ids).exact
    session.close()
    return {suite: [marks[key] for key in sorted(marks)] for suite, marks in found.items()}


def measure(options: argparse.Namespace, log: Path) -> None:
    """Judge every arm and seed; each result is a line of `log`, those that are there are not done again."""
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    items = heldout(options, tokenizer)
    base, whole = options.cache / "base", options.cache / "model"
    if not whole.exists():
        write_plain(options.model, whole, rounded=False)
    if not (base / f"{len(items) - 1}.npy").exists():
        base.mkdir(exist_ok=True)
        session = opened(whole, options.threads)
        for number, logits in enumerate(rows_of(session, items)):
            np.save(base / f"{number}.npy", logits)
        session.close()
    done = {(row["arm"], row["seed"]) for row in read(log)}
    if ("unquantized", 0) not in done:
        found = {"rows": judge(whole, base, items, options.threads)}
        if options.answers:
            found["answers"] = answers(whole, options.answers, options.threads, options.model)
        note(log, {"arm": "unquantized", "seed": 0, "artifacts": {"model": found}})
    for seed in options.seeds:
        for arm in options.arms:
            if (arm, seed) in done or (arm == "none" and seed != options.seeds[0]):
                continue
            out = options.cache / "made"
            shutil.rmtree(out, ignore_errors=True)
            made = {}
            for name, folder in quantize(options, arm, seed, tokenizer, out).items():
                made[name] = {"rows": judge(folder, base, items, options.threads)}
                if options.answers and seed == options.seeds[0] and name in options.answered:
                    made[name]["answers"] = answers(folder, options.answers, options.threads, options.model)
            note(log, {"arm": arm, "seed": seed, "artifacts": made})
            print(
                f"{arm}, seed {seed}: " + ", ".join(f"{name} {mean(each['rows']):.5f}" for name, each in made.items())
            )
            sys.stdout.flush()


def mean(rows: Sequence[dict[str, Any]], judged: str = SETS[0], key: str = "kl") -> float:
    """The mean over the tokens of a set."""
    chosen = [row for row in rows if row["set"] == judged]
    return float(sum(row[key] for row in chosen) / sum(row["tokens"] for row in chosen))


def read(log: Path) -> list[dict[str, Any]]:
    """The results that are there."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def note(log: Path, row: dict[str, Any]) -> None:
    """Append one result."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def summary(log: Path) -> dict[str, Any]:
    """By artifact and arm: each set's mean with its interval, and the difference from half and half with its own."""
    from lf_export.stats.bootstrap import cluster_bootstrap

    runs = read(log)
    table: dict[str, Any] = {}
    for name in ("model", "rtn", *QUANTIZERS):
        seeds: dict[str, list[list[dict[str, Any]]]] = {}
        marks: dict[str, Any] = {}
        for run in runs:
            if name in run["artifacts"]:
                seeds.setdefault(run["arm"], []).append(run["artifacts"][name]["rows"])
                marks.setdefault(run["arm"], run["artifacts"][name].get("answers"))
        for arm, each in seeds.items():
            cells: dict[str, Any] = {"seeds": len(each), "answers": marks[arm]}
            for judged in SETS:
                key = "nll" if judged == "chat" else "kl"
                per_token = clusters(each, judged, key)
                cells[judged] = vars_of(cluster_bootstrap(per_token))
                if arm != REFERENCE and REFERENCE in seeds:
                    other = clusters(seeds[REFERENCE], judged, key)
                    pairs = [one - two for one, two in zip(per_token, other, strict=True)]
                    cells[f"{judged}, against {REFERENCE}"] = vars_of(cluster_bootstrap(pairs))
            table.setdefault(name, {})[arm] = cells
    return table


def clusters(seeds: Sequence[Sequence[dict[str, Any]]], judged: str, key: str) -> list[np.ndarray[Any, Any]]:
    """One array for each conversation of a set: its mean over seeds, once for each of its tokens."""
    found = []
    for rows in zip(*seeds, strict=True):
        if rows[0]["set"] == judged:
            value = sum(row[key] for row in rows) / len(rows) / rows[0]["tokens"]
            found.append(np.full(rows[0]["tokens"], value))
    return found


def vars_of(interval: Any) -> list[float]:
    """Estimate, lower and upper end."""
    return [interval.estimate, interval.lower, interval.upper]


def report(table: dict[str, Any]) -> None:
    """Print a table for each artifact."""
    for name, arms in table.items():
        print(f"\n| {name} | KL, {SETS[0]} | against {REFERENCE} | KL, {SETS[1]} | chat, nats | exact | abstention |")
        print("|---|---|---|---|---|---|---|")
        for arm, cells in arms.items():
            difference = cells.get(f"{SETS[0]}, against {REFERENCE}")
            marks = cells["answers"] or {}
            print(
                f"| {arm} | {shown(cells[SETS[0]])} | {shown(difference)} | {shown(cells[SETS[1]])} "
                f"| {shown(cells['chat'])} | {share(marks.get('calls'))} | {share(marks.get('no-call'))} |"
            )


def shown(interval: list[float] | None) -> str:
    """An estimate with its interval."""
    return "-" if interval is None else f"{interval[0]:.4f} [{interval[1]:.4f}, {interval[2]:.4f}]"


def share(marks: list[bool] | None) -> str:
    """Right answers of all."""
    return f"{sum(marks)} of {len(marks)}" if marks else "-"


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks"
    parser.add_argument("--model", type=Path, required=True, help="a merged model folder")
    parser.add_argument("--text", type=Path, required=True, help="plain text")
    parser.add_argument("--calls", type=Path, required=True, help="held-out conversations with calls")
    parser.add_argument("--chat", type=Path, required=True, help="held-out conversations without functions")
    parser.add_argument("--tokens", type=int, default=8192, help="of each calibration")
    parser.add_argument("--heldout", type=int, default=40, help="conversations of each held-out set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--answers", type=int, default=0, help="items of each suite to answer, with the first seed")
    parser.add_argument("--answered", nargs="+", default=["gptq", "rtn"], help="artifacts that answer")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", action="store_true", help="go on where a stopped run was")
    parser.add_argument("--json", type=Path, help="write the values there")
    parser.add_argument("--cache", type=Path, default=default / "calibration", help="where inputs and results lie")
    options = parser.parse_args()
    if not options.keep:
        shutil.rmtree(options.cache, ignore_errors=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    log = options.cache / "results.jsonl"
    measure(options, log)
    table = summary(log)
    report(table)
    ran = environment("lf-export", "torch", "transformers", "gguf", "xllamacpp")
    print("\n" + ", ".join(f"{name} {version}" for name, version in ran["versions"].items()))
    print(
        f"{options.tokens:,} tokens of calibration, {options.heldout} conversations of each set, seeds {options.seeds}"
    )
    if options.json:
        result = {"table": table, "tokens": options.tokens, "heldout": options.heldout, "seeds": options.seeds, **ran}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
