"""A run is planned: the items that a verdict needs, before anything is measured."""

import json

import pytest
from click.testing import CliRunner

from lf_export.cli.bench import bench
from lf_export.errors import InputError
from lf_export.stats import items_for_pass
from lf_export.steps.bench_plan import PlanOptions, plan_bench

SUITES = {"calls": ("shipped:suites/calls.jsonl", None), "no_call": ("shipped:suites/no-call.jsonl", None)}


def test_items_that_share_functions_are_planned_as_less_evidence() -> None:
    calls, _ = plan_bench(PlanOptions(SUITES, discordance=(0.05,)))["plan"]
    assert calls["design_effect"] == pytest.approx(1.3)  # four items show the same functions
    alone = items_for_pass(0.05, 0.05)
    assert alone is not None
    assert alone * 1.3 <= calls["items_needed"] < alone * 1.3 + 1
    assert calls["enough"] == (calls["items"] >= calls["items_needed"])


def test_a_part_of_a_suite_is_enough_for_less() -> None:
    whole = plan_bench(PlanOptions(SUITES, discordance=(0.02,)))["plan"][0]
    limited = {**SUITES, "calls": (SUITES["calls"][0], 40)}
    part = plan_bench(PlanOptions(limited, discordance=(0.02,)))["plan"][0]
    assert (whole["enough"], part["enough"], part["items"]) == (True, False, 40)


def test_no_number_of_items_passes_what_loses_the_margin() -> None:
    rows = plan_bench(PlanOptions(SUITES, discordance=(0.1,), loss=0.05))["plan"]
    assert [(row["items_needed"], row["enough"]) for row in rows] == [(None, False)] * 2


def test_a_loss_without_flips_is_refused() -> None:
    with pytest.raises(InputError, match=r"a loss of 0\.05 needs flips"):
        plan_bench(PlanOptions(SUITES, discordance=(0.01,), loss=0.05))


def test_the_command_plans_without_a_model_and_measures_with_one_alone() -> None:
    planned = CliRunner().invoke(bench, ["--plan", "--margin", "0.03", "--discordance", "0.02", "--json"])
    assert planned.exit_code == 0
    assert {row["margin"] for row in json.loads(planned.stdout)["plan"]} == {0.03}
    shown = CliRunner().invoke(bench, ["--plan"])
    assert "items needed" in shown.stdout
    for given, missing in (([], "ARTIFACTS"), (["x"], "--baseline"), (["x", "--baseline", "y"], "--out")):
        refused = CliRunner().invoke(bench, given)
        assert refused.exit_code == 2
        assert missing in refused.output
