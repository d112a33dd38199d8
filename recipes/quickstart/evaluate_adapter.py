"""Measure an adapter on the shipped suites: greedy answers of the merged model, judged strictly.

    python recipes/quickstart/evaluate_adapter.py ADAPTER [--every 4] [--dtype float32] [--wrong 20]

`--every N` takes each Nth block of items that share their functions. The package's own session and judge are used, as
`lf-export bench` uses them; only the merge is PEFT's.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lf_export.calibration.suites import EvalItem, load_suite
from lf_export.functions.answers import dumps
from lf_export.functions.dialects import dialect_for
from lf_export.metrics.calls import JudgedAnswer, judge
from lf_export.runtimes.causal import CausalSession
from lf_export.steps.prompts import grouped, prepare

HERE = Path(__file__).resolve().parent
SUITES = HERE.parent.parent / "calibration" / "suites"
sys.path[:0] = [str(HERE)]

import peft_alone  # noqa: E402, F401
from fetch_base import fetch_base  # noqa: E402


def load_items(every: int, first: int) -> list[EvalItem]:
    """The items of each `every`th block of both suites, from block `first` on."""
    items = [item for name in ("calls", "no-call") for item in load_suite(SUITES / f"{name}.jsonl")]
    blocks = sorted({item.block for item in items})[first::every]
    return [item for item in items if item.block in blocks]


def merged_session(adapter: Path, dtype: torch.dtype) -> CausalSession:
    """The base with the adapter merged into it in float32, then in `dtype`."""
    base = fetch_base()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).merge_and_unload().to(dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    return CausalSession(model, tokenizer, name="torch", representative=True, load_seconds=0.0)


def main() -> None:
    """Answer, judge, print counts by category."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="with --every: the block to begin with")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--wrong", type=int, default=0, help="print this many wrong answers")
    parser.add_argument("--log", type=Path, help="append the judgement of each item to this file, as JSON lines")
    options = parser.parse_args()
    session = merged_session(options.adapter, getattr(torch, options.dtype))
    tokenizer = AutoTokenizer.from_pretrained(fetch_base())
    dialect = dialect_for("chat-template", tokenizer)
    groups = grouped(prepare(load_items(options.every, options.first), dialect, tokenizer))
    judged: list[tuple[EvalItem, JudgedAnswer]] = []
    asked = [(group.prefix, group.branches) for group in groups]
    for number, answers in session.generate_groups(asked, max_new_tokens=160):
        for prompt, found in zip(groups[number].prompts, answers, strict=True):
            item = prompt.item
            answer = judge(dialect.parse(found.text), item.expected.calls, item.functions, found.ids, session.eos_ids)
            judged.append((item, answer))
            if options.log:
                with options.log.open("a", encoding="utf-8") as log:
                    row = {"id": item.id, "category": item.category, "exact": answer.exact, "name_ok": answer.name_ok}
                    print(json.dumps(row), file=log)
            if not answer.exact and options.wrong > 0:
                options.wrong -= 1
                _show(item, answer)
        right = sum(answer.exact for _, answer in judged)
        print(f"{len(judged)} items, {right} right", file=sys.stderr, flush=True)
    _table(judged)


def _show(item: EvalItem, answer: JudgedAnswer) -> None:
    wanted = [{"name": call.name, "arguments": call.arguments} for call in item.expected.calls]
    print(f"[{item.id} {item.category} {','.join(answer.errors)}]\n  {item.messages[-1]['content']}")
    print(f"  + {dumps(wanted) if wanted else item.expected.text}\n  - {answer.text}")


def _table(judged: list[tuple[EvalItem, JudgedAnswer]]) -> None:
    right: dict[str, list[bool]] = defaultdict(list)
    for item, answer in judged:
        suite = "calls" if item.expected.calls else "no-call"
        right[f"{suite:8} {item.category}"].append(answer.exact)
        right[f"~all {suite}"].append(answer.exact)
        if item.category in {"single", "one_of_several"}:
            right["~single + one_of_several"].append(answer.exact)
        if item.expected.calls:
            right["~right names on call items"].append(answer.name_ok)
    for title, marks in sorted(right.items()):
        print(f"{title.lstrip('~'):28} {sum(marks):4} / {len(marks):4}  {sum(marks) / len(marks):.1%}")


if __name__ == "__main__":
    main()
