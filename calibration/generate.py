"""Write the calibration conversations and the evaluation suites from the hand-written seeds.

    python calibration/generate.py           # write the files and their data cards
    python calibration/generate.py --check   # exit 1 unless the files here are what the seeds make, byte for byte

Everything is drawn from seeded generators: the same seeds make the same bytes. Needs the standard library and PyYAML.
"""

import argparse
import json
import sys
from pathlib import Path

from generator.blocks import Record, calibration_calls
from generator.cards import cards
from generator.chat import chat_records
from generator.seeds import load_chat, load_split
from generator.suites import build_suites

HERE = Path(__file__).resolve().parent

CALIBRATION = {
    "single": 130,
    "one_of_several": 110,
    "parallel": 50,
    "nested": 40,
    "array": 50,
    "enum": 50,
    "optional": 50,
    "numbers_dates": 50,
    "multi_turn": 50,
    "clarify": 30,
    "no_function_fits": 30,
}
CALLS = {
    "single": 84,
    "one_of_several": 84,
    "parallel": 24,
    "nested": 24,
    "array": 24,
    "enum": 28,
    "optional": 28,
    "numbers_dates": 28,
    "multi_turn": 24,
}
NO_CALL = {"no_function_fits": 70, "chat": 74, "clarify": 48}


def make() -> dict[str, bytes]:
    """The files by their path below `calibration/`."""
    train, held = load_split("train"), load_split("eval")
    calls, no_calls = build_suites(held, CALLS, NO_CALL, seed=2)
    rows: dict[str, list[Record]] = {
        "calls.jsonl": calibration_calls(train, CALIBRATION, seed=1),
        "chat.jsonl": chat_records(load_chat("train")),
        "suites/calls.jsonl": calls,
        "suites/no-call.jsonl": no_calls,
        "suites/chat.jsonl": chat_records(load_chat("eval")),
    }
    files = {path: _jsonl(records) for path, records in rows.items()}
    return files | cards(rows, files)


def main() -> None:
    """Write, or check, every generated file."""
    parser = argparse.ArgumentParser(description="Make the calibration data and the evaluation suites.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not what it should be")
    check = parser.parse_args().check
    stale = []
    for path, content in make().items():
        target = HERE / path
        if target.is_file() and target.read_bytes() == content:
            continue
        stale.append(path)
        if not check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    if check and stale:
        sys.exit(f"error: not what the seeds make: {', '.join(stale)}\nhint: python calibration/generate.py")
    print("up to date" if not stale else f"wrote {', '.join(stale)}")


def _jsonl(records: list[Record]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


if __name__ == "__main__":
    main()
