"""Our BFCL rules give the verdicts of the leaderboard's own checker, recorded by `benchmarks/bfcl_record.py`."""

import json
from pathlib import Path
from typing import Any

import pytest

from lf_export.calibration.bfcl import bfcl_row
from lf_export.functions.answers import Call
from lf_export.functions.bfcl import bfcl_right

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "bfcl_verdicts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", RECORDED, ids=[f"{at}-{case['category']}" for at, case in enumerate(RECORDED)])
def test_every_recorded_answer_is_judged_as_the_leaderboard_judges_it(case: dict[str, Any]) -> None:
    row = bfcl_row(
        {"id": "x", "question": [[]], "function": case["function"]}, case["category"], {"x": case["ground_truth"]}
    )
    for verdict in ("right", "wrong"):
        assert len(case[verdict]) >= 3
        for said in case[verdict]:
            calls = [Call(name, arguments) for each in said for name, arguments in each.items()]
            assert bfcl_right(calls, row.possible) == (verdict == "right"), said
