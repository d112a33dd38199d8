"""Data cards: what each generated file is, how it was made, how much of what, and its digest."""

import hashlib
from collections import Counter

from generator.blocks import Record

ABOUT = {
    "calls.jsonl": (
        "Function-call conversations for calibration",
        (
            "Drawn from `seeds/train/`: hand-written functions and phrasings, filled with values from hand-"
            "written pools. Each conversation shows two to six functions. The quickstart's adapter was trained on"
            " the same seeds, with other values."
        ),
    ),
    "chat.jsonl": (
        "Chat conversations for calibration",
        ("Hand-written in `seeds/chat/`: explaining, rewriting, lists, code, arithmetic, small talk."),
    ),
    "suites/calls.jsonl": (
        "Evaluation suite: requests that need a call",
        (
            "Drawn from `seeds/eval/`, whose functions, phrasings and most values are in no training or "
            "calibration file (a test proves it by hash). The last message is the reference. Items with the same "
            "`block` show the same functions in the same order, also across `no-call.jsonl`, so that they can "
            "share a prefill."
        ),
    ),
    "suites/no-call.jsonl": (
        "Evaluation suite: requests that need prose",
        (
            "On the blocks of `calls.jsonl`: a request for a function that is not shown, a request that lacks a "
            "required argument, and chat. Any well-formed prose is a correct abstention; the last message is one "
            "of many good answers."
        ),
    ),
    "suites/chat.jsonl": (
        "Evaluation suite: chat text for perplexity",
        ("Hand-written in `seeds/chat/eval*.yaml`; no conversation is in `chat.jsonl`."),
    ),
}


def cards(rows: dict[str, list[Record]], files: dict[str, bytes]) -> dict[str, bytes]:
    """One Markdown card for each file, beside it."""
    return {path.removesuffix(".jsonl") + ".md": _card(path, rows[path], files[path]) for path in rows}


def _card(path: str, records: list[Record], content: bytes) -> bytes:
    title, how = ABOUT[path]
    lines = [f"# {title}", "", f"`{path.rpartition('/')[2]}`. {how}", ""]
    lines += [f"- conversations: {len(records)}"]
    functions = {tool["function"]["name"] for record in records for tool in record.get("tools", [])}
    if functions:
        called = {
            call["function"]["name"]
            for record in records
            for message in record["messages"]
            for call in message.get("tool_calls", [])
        }
        lines += [f"- distinct functions shown: {len(functions)}, called: {len(called)}"]
        lines += [f"- domains: {len({record['domain'] for record in records})}"]
    blocks = {record["block"] for record in records if "block" in record}
    lines += [f"- blocks: {len(blocks)}"] if blocks else []
    lines += [
        "- form: JSON lines, OpenAI messages and tools; `phrasings` are the hashes of the templates",
        "- made by: `python calibration/generate.py`",
        "- licence: Apache-2.0, as the project",
        f"- sha256: `{hashlib.sha256(content).hexdigest()}`",
        "",
        "| category | conversations |",
        "|---|---|",
    ]
    counts = Counter(record["category"] for record in records)
    lines += [f"| {category} | {count} |" for category, count in sorted(counts.items())]
    return ("\n".join(lines) + "\n").encode()
