"""Record the leaderboard's verdicts on answers to questions of our own, for the reference test that runs without it.

The questions are made here, so that no data of the leaderboard is in the file; the answers are the same kinds of
mutations as in `bfcl.py`; half of those kept are right where there are as many.

    python benchmarks/bfcl_record.py --wheel bfcl_eval-2026.3.23-py3-none-any.whl [--each 50]
"""

import argparse
import copy
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bfcl import CATEGORY, official
from bfcl_answers import answers_for

from lf_export.calibration.bfcl import bfcl_row

TARGET = Path(__file__).resolve().parent.parent / "tests" / "reference" / "bfcl_verdicts.json"


def function(name: str, required: Sequence[str], **properties: Mapping[str, Any]) -> dict[str, Any]:
    """A function as the leaderboard describes one."""
    listed = {key: {"description": "", **value} for key, value in properties.items()}
    return {"name": name, "description": "", "parameters": {
        "type": "dict", "properties": listed, "required": list(required)}}  # fmt: skip


def typed(kind: str, items: str | None = None) -> dict[str, Any]:
    """A parameter's type."""
    return {"type": kind, **({"items": {"type": items}} if items else {})}


TRIP = function(
    "trip.plan", ["city"], city=typed("string"), days=typed("integer"), budget=typed("float"),
    stops=typed("array", "string"), rooms=typed("array", "integer"), span=typed("tuple", "float"),
    direct=typed("boolean"), extra=typed("dict"), guests=typed("array", "dict"), note=typed("any"),
)  # fmt: skip
COUNT = function("count", ["n"], n=typed("integer"), unit=typed("string"))
JAVA = function(
    "Desk.open", ["id"], id=typed("integer"), stamp=typed("long"), rate=typed("double"), part=typed("float"),
    wide=typed("boolean"), mark=typed("char"), label=typed("String"), target=typed("any"),
    names=typed("ArrayList", "String"), codes=typed("ArrayList", "integer"), free=typed("ArrayList", "any"),
    args=typed("Array", "String"), nums=typed("Array", "long"), options=typed("HashMap"),
)  # fmt: skip
SCRIPT = function(
    "desk.open", ["id"], id=typed("integer"), big=typed("Bigint"), rate=typed("float"), wide=typed("Boolean"),
    label=typed("String"), target=typed("any"), names=typed("array", "String"), points=typed("array", "float"),
    options=typed("dict"),
)  # fmt: skip

QUESTIONS: list[tuple[str, str, list[Any], list[Any]]] = [
    ("simple_python", "python", [TRIP], [{"trip.plan": {
        "city": ["New York, NY", "NYC"], "days": [3, ""], "budget": [100.0, 100], "direct": [True]}}]),
    ("simple_python", "python", [TRIP], [{"trip.plan": {
        "city": ["O'Hare"], "stops": [["A-b", "C. d"], ["X"], ""], "rooms": [[1, 2]], "span": [[1.5, 2.5]]}}]),
    ("simple_python", "python", [TRIP], [{"trip.plan": {
        "city": ["here"], "extra": [{"who": ["Ann", "ann lee"], "age": [5, ""]}, ""], "note": ["later", 5]}}]),
    ("simple_python", "python", [TRIP], [{"trip.plan": {
        "city": ["x"], "guests": [[{"name": ["Bo"], "age": [1]}, {"name": ["Cy", ""]}], ""], "days": ["days_left"]}}]),
    ("simple_python", "python", [TRIP], [{"trip.plan": {
        "city": ["x", ""], "extra": ["", {"k": ["v"]}], "rooms": [[1, "a"], ""], "stops": ["stops"]}}]),
    ("multiple", "python", [COUNT, TRIP], [{"trip.plan": {
        "city": ["1.5"], "rooms": [[], [0]], "direct": ["", False]}}]),
    ("parallel", "python", [COUNT], [
        {"count": {"n": [1, 2], "unit": ["kg", ""]}}, {"count": {"n": [1], "unit": ["KG."]}}, {"count": {"n": [3]}}]),
    ("parallel_multiple", "python", [COUNT, TRIP], [
        {"trip.plan": {"city": ["a b"], "extra": [{"k": [[1, 2]]}]}}, {"count": {"n": [0], "unit": [""]}}]),
    ("simple_java", "java", [JAVA], [{"Desk.open": {
        "id": [5], "stamp": [7], "rate": [0.5], "part": [1.5], "wide": [True], "mark": ["'c'"], "label": ["a b"]}}]),
    ("simple_java", "java", [JAVA], [{"Desk.open": {
        "id": ["Desk.ID"], "target": ["new Path('/x')"], "names": [["a", "b c"]],
        "codes": [[1, 2]], "nums": [[1, 2]]}}]),
    ("simple_java", "java", [JAVA], [{"Desk.open": {
        "id": [1], "free": [["x", "y"]], "args": [["-v", "2"], "argv"],
        "options": [{"limit": [50], "on": [True, ""]}, {}]}}]),
    ("simple_java", "java", [JAVA], [{"Desk.open": {
        "id": [1], "options": ["opts"], "names": ["list"], "codes": [[7]]}}]),
    ("simple_javascript", "javascript", [SCRIPT], [{"desk.open": {
        "id": [5, ""], "big": [12], "rate": [3.0], "wide": [False], "label": ['Say "hi"'], "target": ["cb"]}}]),
    ("simple_javascript", "javascript", [SCRIPT], [{"desk.open": {
        "id": [0], "names": [["a", "b"], "list"], "points": [[1.0, 2.5]],
        "options": [{"method": ["GET"], "tags": [["x", "y"]], "on": [True]}, ""]}}]),
    ("simple_javascript", "javascript", [SCRIPT], [{"desk.open": {"id": [1], "names": [[["a", 1], ["b"]], []]}}]),
]  # fmt: skip


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--each", type=int, default=50, help="answers kept of each question")
    options = parser.parse_args()
    check, languages = official(options.wheel)
    recorded = []
    for number, (category, language, functions, truth) in enumerate(QUESTIONS):
        row = bfcl_row({"id": str(number), "question": [[]], "function": functions}, category, {str(number): truth})
        rng = random.Random(number)  # noqa: S311 - reproducible answers
        kept: dict[bool, dict[str, Any]] = {True: {}, False: {}}
        for calls in answers_for(row, rng, 3000):
            text = json.dumps([{call.name: dict(call.arguments)} for call in calls])
            said = json.loads(text)  # what JSON cannot say is a list here: tuples
            try:
                speech = getattr(languages, CATEGORY[language])
                valid = check(functions, copy.deepcopy(said), copy.deepcopy(truth), speech, category, "any")["valid"]
            except Exception:  # noqa: BLE001, S112 - the checker itself ends here
                continue
            kept[valid][text] = said
        right = rng.sample(list(kept[True].values()), min(options.each // 2, len(kept[True])))
        wrong = rng.sample(list(kept[False].values()), options.each - len(right))
        recorded.append(
            {"category": category, "function": functions, "ground_truth": truth, "right": right, "wrong": wrong}
        )
        print(f"{category}: {len(right)} right, {len(wrong)} wrong")
    TARGET.write_text(
        json.dumps(recorded, indent=None, ensure_ascii=False).replace('{"category"', '\n{"category"') + "\n"
    )


if __name__ == "__main__":
    main()
