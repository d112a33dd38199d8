"""Measure an adapter on the shipped suites: greedy answers of the merged model, judged strictly.

    python recipes/quickstart/evaluate_adapter.py ADAPTER [--every 4] [--dtype float32] [--wrong 20]

Items of one block share its prefill, and a few blocks are answered together. `--every N` takes each Nth block.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from lf_export.functions.compare import compare
from lf_export.functions.dialects import dialect_for, text_of
from lf_export.functions.spec import from_openai

HERE = Path(__file__).resolve().parent
SUITES = HERE.parent.parent / "calibration" / "suites"
sys.path[:0] = [str(HERE)]

import peft_alone  # noqa: E402, F401
from fetch_base import fetch_base  # noqa: E402

Item = dict[str, Any]


def load_items(every: int, first: int) -> list[list[Item]]:
    """The items of both suites by block."""
    blocks: dict[str, list[Item]] = defaultdict(list)
    for name in ("calls", "no-call"):
        with (SUITES / f"{name}.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                item = json.loads(line)
                blocks[item["block"]].append({**item, "suite": name})
    return [blocks[name] for name in sorted(blocks)][first::every]


def answer(model: Any, prompts: list[list[list[int]]], end: int, most: int) -> list[list[int]]:
    """Greedy answers to the prompts of several blocks, in order; a block's prompts share their first tokens."""
    flat = [ids for block in prompts for ids in block]
    heads = [_shared(block) for block in prompts]
    rows = torch.tensor([number for number, block in enumerate(prompts) for _ in block])
    shared = [block[0][:head] for block, head in zip(prompts, heads, strict=True)]
    width = max(heads)
    # Heads are padded on the left, the rest of each prompt on the right: the mask hides both.
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in shared])
    ids = torch.tensor([[end] * (width - len(ids)) + ids for ids in shared])
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    model.model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache)
    cache.reorder_cache(rows)
    mask = mask[rows]
    tails = [prompt[heads[row] :] for prompt, row in zip(flat, rows.tolist(), strict=True)]
    longest = max(map(len, tails))
    ids = torch.tensor([tail + [end] * (longest - len(tail)) for tail in tails])
    mask = torch.cat([mask, torch.tensor([[1] * len(tail) + [0] * (longest - len(tail)) for tail in tails])], 1)
    start = torch.tensor([heads[row] for row in rows.tolist()])
    lengths = torch.tensor([len(tail) for tail in tails])
    positions = start[:, None] + torch.arange(longest)[None]
    hidden = model.model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache)[0]
    last = hidden[torch.arange(len(flat)), lengths - 1]
    position = start + lengths
    answers: list[list[int]] = [[] for _ in flat]
    done = torch.zeros(len(flat), dtype=torch.bool)
    for _ in range(most):
        token = model.lm_head(last).argmax(-1)
        done |= token == end
        for number in (~done).nonzero()[:, 0].tolist():
            answers[number].append(int(token[number]))
        if bool(done.all()):
            break
        mask = torch.cat([mask, torch.ones(len(flat), 1, dtype=mask.dtype)], 1)
        last = model.model(
            input_ids=token[:, None], attention_mask=mask, position_ids=position[:, None], past_key_values=cache
        )[0][:, 0]
        position = position + 1
    return answers


def _shared(prompts: list[list[int]]) -> int:
    """The tokens that all prompts begin with, at least one short of the shortest."""
    most = min(map(len, prompts)) - 1
    return next((n for n in range(most) if len({prompt[n] for prompt in prompts}) > 1), most)


@torch.inference_mode()
def main() -> None:
    """Answer, judge, print counts by category."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="with --every: the block to begin with")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--wrong", type=int, default=0, help="print this many wrong answers")
    parser.add_argument("--log", type=Path, help="append the judgement of each item to this file, as JSON lines")
    parser.add_argument("--together", type=int, default=4, help="blocks in a batch")
    options = parser.parse_args()
    base = fetch_base()
    tokenizer = AutoTokenizer.from_pretrained(base)
    dialect = dialect_for("chat-template", tokenizer)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, options.adapter).merge_and_unload()
    model = model.to(getattr(torch, options.dtype)).eval()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    names: list[bool] = []
    left = options.wrong
    loaded = load_items(options.every, options.first)
    for first in range(0, len(loaded), options.together):
        blocks = loaded[first : first + options.together]
        prompts = [[_prompt(item, dialect, tokenizer) for item in block] for block in blocks]
        texts = [tokenizer.decode(ids) for ids in answer(model, prompts, end, 160)]
        for item, text in zip([item for block in blocks for item in block], texts, strict=True):
            functions = from_openai(item["tools"])
            expected = dialect.parse(_reference(item, functions, dialect)).calls
            outcome = compare(dialect.parse(text), expected, functions)
            right[item["suite"], item["category"]].append(outcome.exact)
            if expected:
                names.append(outcome.name_ok)
            if options.log:
                with options.log.open("a", encoding="utf-8") as log:
                    row = {"id": item["id"], "suite": item["suite"], "category": item["category"]}
                    print(json.dumps({**row, "exact": outcome.exact, "name_ok": outcome.name_ok}), file=log)
            if not outcome.exact and left:
                left -= 1
                asked = item["messages"][-2]["content"]
                wanted = _reference(item, functions, dialect)
                what = f"{item['id']} {item['category']} {','.join(outcome.errors)}"
                print(f"[{what}]\n  {asked}\n  + {wanted}\n  - {text}")
        done = [mark for marks in right.values() for mark in marks]
        print(f"{len(done)} items, {sum(done)} right", file=sys.stderr, flush=True)
    _table(right, names)


def _prompt(item: Item, dialect: Any, tokenizer: Any) -> list[int]:
    pieces = dialect.render(item["messages"][:-1], from_openai(item["tools"]), generate=True)
    return tokenizer(text_of(pieces), add_special_tokens=False)["input_ids"]


def _reference(item: Item, functions: Any, dialect: Any) -> str:
    return dialect.render(item["messages"], functions)[-2].text


def _table(right: dict[tuple[str, str], list[bool]], names: list[bool]) -> None:
    for (suite, category), marks in sorted(right.items()):
        print(f"{suite:8} {category:18} {sum(marks):4} / {len(marks):4}  {sum(marks) / len(marks):.1%}")
    for title, keep in (
        ("single + one_of_several", lambda key: key[1] in {"single", "one_of_several"}),
        ("all call items", lambda key: key[0] == "calls"),
        ("no-call items", lambda key: key[0] == "no-call"),
    ):
        marks = [mark for key, values in right.items() if keep(key) for mark in values]
        if marks:
            print(f"{title:27} {sum(marks):4} / {len(marks):4}  {sum(marks) / len(marks):.1%}")
    print(f"right names on call items   {sum(names):4} / {len(names):4}  {sum(names) / max(len(names), 1):.1%}")


if __name__ == "__main__":
    main()
