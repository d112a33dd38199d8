"""Answers to the shipped suites with shared prefixes and batches, as a bench gets them, against one item at a time.

Both ways run in the same process on the same loaded model, in turns of a few functions blocks each: one way, the
other way, the other way, one way, … The plain way prefills every prompt anew and decodes it alone (`generate_one`).
Answers are compared token by token; where one differs, the gap between the two tokens' logits at the first
difference says whether it was a tie that rounding decides. In fp32 (the model's weights as float32, an F32 GGUF) all
must be equal, or ties.

    python benchmarks/sharing.py --model MERGED [--share 0.25] [--json benchmarks/results/sharing.json]

A share takes every n-th functions block of both suites, whole, so that what can be shared is as in the suites. Run it
on an idle machine, and trust ratios more than seconds.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from charged import charged
from ran import environment, leave, show_environment

SUITES = ("calls", "no-call")
# Name: runtime, what it loads, the least ratio, whether every answer must be the plain way's.
ARMS = {
    "torch": ("torch", "stored", 3.0, False),
    "torch fp32": ("torch", "fp32", None, True),
    "llama.cpp Q8_0": ("llamacpp", "Q8_0", 2.0, False),
    "llama.cpp F32": ("llamacpp", "F32", None, True),
}
# Logits of two tokens that are nearer than this are a tie in float32: sums of hundreds of terms round by about that.
TIE = 1e-3


def make(model: Path, what: str, folder: Path) -> Path:
    """The model as an arm loads it: as stored, with its weights as float32, or as a GGUF."""
    if what == "stored":
        return model
    out = folder / what
    shutil.rmtree(out, ignore_errors=True)
    if what == "fp32":
        from safetensors.torch import load_file, save_file

        shutil.copytree(model, out)
        for file in out.glob("*.safetensors"):
            save_file({name: tensor.float() for name, tensor in load_file(file).items()}, file, {"format": "pt"})
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
        return out
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.formats.gguf import FORMAT, GgufOptions

    out.mkdir()
    FORMAT.open(open_checkpoint(model), out, GgufOptions(types=(what,), name="m"), "digest").finish()
    return out


def blocks(model: Path, share: float) -> list[Any]:
    """Groups of prompts that show the same functions: every n-th one of both suites, at most `share` of all."""
    from lf_export.calibration.suites import load_suite
    from lf_export.functions.dialects import dialect_for
    from lf_export.runtimes.causal import load_tokenizer
    from lf_export.shipped import shipped
    from lf_export.steps.prompts import grouped, prepare

    tokenizer = load_tokenizer(model)
    items = [item for name in SUITES for item in load_suite(shipped("calibration") / "suites" / f"{name}.jsonl")]
    groups = grouped(prepare(items, dialect_for("chat-template", tokenizer), tokenizer))
    return groups[:: max(1, round(1 / share))]


def turns(groups: Sequence[Any], count: int) -> Iterator[tuple[Sequence[Any], tuple[str, str]]]:
    """Parts of the groups, and which way is first in each."""
    size = -(-len(groups) // count)
    for number, start in enumerate(range(0, len(groups), size)):
        yield groups[start : start + size], ("shared", "plain") if number % 2 == 0 else ("plain", "shared")


def answers(session: Any, groups: Sequence[Any], way: str, most: int) -> dict[str, tuple[int, ...]]:
    """The answer's tokens by item."""
    if way == "plain":
        asked = [prompt for group in groups for prompt in group.prompts]
        return {prompt.item.id: session.generate_one(prompt.ids, most).ids for prompt in asked}
    found = {}
    for number, given in session.generate_groups([(group.prefix, group.branches) for group in groups], most):
        found |= {prompt.item.id: each.ids for prompt, each in zip(groups[number].prompts, given, strict=True)}
    return found


def gap(session: Any, prompt: Any, plain: Sequence[int], shared: Sequence[int]) -> float:
    """Between the logits of the two tokens at the first difference of two answers, given what precedes it."""
    at = next(place for place, (a, b) in enumerate(zip(plain, shared, strict=False)) if a != b)
    text = [*prompt.ids, *plain[: at + 1]]
    (rows,) = session.score((), [text], [len(text) - 1])
    return float(abs(rows[0][plain[at]] - rows[0][shared[at]]))


def arm(options: argparse.Namespace) -> None:
    """One arm: both ways in turn; what was found as JSON."""
    from lf_export.runtimes import runtime

    name, what, *_ = ARMS[options.arm]
    groups = blocks(options.model, options.share)
    session = runtime(name).open_session(make(options.model, what, options.cache), options.threads)
    answers(session, groups[:1], "shared", 2)
    answers(session, groups[:1], "plain", 2)  # warm
    seconds = {"shared": 0.0, "plain": 0.0}
    cpu = dict(seconds)
    found: dict[str, dict[str, tuple[int, ...]]] = {"shared": {}, "plain": {}}
    for part, order in turns(groups, options.turns):
        for way in order:
            began, used = time.perf_counter(), time.process_time()
            found[way] |= answers(session, part, way, options.max_new_tokens)
            seconds[way] += time.perf_counter() - began
            cpu[way] += time.process_time() - used
            print(f"{options.arm}, {way}: {len(found[way])} items, {seconds[way]:.1f} s", flush=True)
    prompts = {prompt.item.id: prompt for group in groups for prompt in group.prompts}
    other = [item for item in prompts if found["plain"][item] != found["shared"][item]]
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "items": len(prompts),
        "blocks": len(groups),
        "prompt_tokens": sum(len(prompt.ids) for prompt in prompts.values()),
        "prefilled_when_shared": sum(len(each.prefix) + sum(map(len, each.branches)) for each in groups),
        "answer_tokens": sum(map(len, found["plain"].values())),
        "differing": {item: gap(session, prompts[item], found["plain"][item], found["shared"][item]) for item in other},
    }
    session.close()
    options.out.write_text(json.dumps(result))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every arm in a process of its own."""
    found = {}
    for name in options.only:
        out, log = options.cache / "arm.json", options.cache / f"{name}.log"
        command = [sys.executable, str(Path(__file__).resolve()), "--model", str(options.model), "--arm", name]
        for key in ("share", "turns", "max_new_tokens", "threads", "cache"):
            command += [f"--{key.replace('_', '-')}", str(getattr(options, key))]
        variables = os.environ | {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
        charged([*command, "--out", str(out)], variables, log)
        found[name] = json.loads(out.read_text())
        print(row(name, found[name]), flush=True)
    return found


def row(name: str, part: dict[str, Any]) -> str:
    """A line of the table."""
    plain, shared = part["seconds"]["plain"], part["seconds"]["shared"]
    same = part["items"] - len(part["differing"])
    gaps = f", gap ≤ {max(part['differing'].values()):.3g}" if part["differing"] else ""
    ratios = f"{plain / shared:4.2f}x | {part['cpu_seconds']['plain'] / part['cpu_seconds']['shared']:4.2f}x"
    return f"| {name:<14} | {plain:7.1f} | {shared:6.1f} | {ratios} | {same} of {part['items']}{gaps} |"


def met(arms: dict[str, Any]) -> Iterable[bool]:
    """Whether each bound holds, said."""
    for name, part in arms.items():
        _, _, least, exact = ARMS[name]
        ratio = part["seconds"]["plain"] / part["seconds"]["shared"]
        if least is not None:
            print(f"bound {name} >= {least}x: {'met' if ratio >= least else 'NOT MET'} ({ratio:.2f}x)")
            yield ratio >= least
        if exact:
            far = [item for item, between in part["differing"].items() if between > TIE]
            print(f"bound {name}: no answer differs but by a tie (logits within {TIE}): {'NOT MET' if far else 'met'}")
            yield not far


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks" / "sharing"
    parser.add_argument("--model", type=Path, required=True, help="a merged model folder")
    parser.add_argument("--share", type=float, default=1.0, help="of the functions blocks of both suites")
    parser.add_argument("--turns", type=int, default=4, help="parts of them, in which the two ways take turns")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--json", type=Path, help="write the raw values there")
    parser.add_argument("--cache", type=Path, default=cache, help="where converted models lie")
    parser.add_argument("--arm", choices=tuple(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.arm:
        arm(options)
        return
    print("| runtime        | plain s | shared s | wall | CPU | the same answers |\n|---|---|---|---|---|---|")
    arms = measure(options)
    first = next(iter(arms.values()))
    result = {
        "model": options.model.name,
        "suites": SUITES,
        "share": options.share,
        "max_new_tokens": options.max_new_tokens,
        "threads": options.threads,
        "arms": arms,
        **environment("lf-export", "torch", "transformers", "xllamacpp"),
    }
    print(
        f"\n{first['items']} items in {first['blocks']} functions blocks, {first['prompt_tokens']:,} prompt tokens "
        f"({first['prefilled_when_shared']:,} prefilled when shared), {first['answer_tokens']:,} answer tokens"
    )
    show_environment(result)
    leave(result, options.json, met=all(list(met(arms))))


if __name__ == "__main__":
    main()
