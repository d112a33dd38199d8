"""What a report keeps of items that flipped, and of the quantizer's errors."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from flipped_report import flipped_report

from lf_export.calibration.suites import EvalItem
from lf_export.functions.answers import Answer, Call
from lf_export.functions.spec import FunctionSpec
from lf_export.steps import evidence
from lf_export.steps.evidence import item_texts, layer_errors
from lf_export.steps.prompts import Prompt

REPORT = flipped_report(24)
FLIPPED = {
    item.id
    for artifact in REPORT.artifacts
    for before, item in zip(REPORT.baseline.raw.items, artifact.raw.items, strict=True)
    if before.correct != item.correct
}


def prompts(length: int = 10) -> list[Prompt]:
    spec = FunctionSpec("book", "Book a seat. " + "x" * length, {"type": "object", "properties": {}})
    return [
        cast(
            "Prompt",
            SimpleNamespace(
                item=EvalItem(
                    id=item.id,
                    category=item.category,
                    block="b",
                    messages=(
                        {"role": "user", "content": f"{item.id} " + "y" * length},
                        {"role": "assistant", "tool_calls": [{"function": {"name": "book", "arguments": "{}"}}]},
                    ),
                    functions=(spec,),
                    expected=Answer("call", (Call("book", {"seat": 1}),)) if at % 2 else Answer("prose", text="No."),
                )
            ),
        )
        for at, item in enumerate(REPORT.baseline.raw.items)
    ]


def test_every_flipped_item_and_no_other_is_kept_with_its_texts() -> None:
    found = item_texts(prompts(), REPORT.baseline, REPORT.artifacts)
    assert {item.id for item in found.items} == FLIPPED
    assert 0 < len(FLIPPED) < 24
    assert (len(found.functions), found.left_out) == (1, 0)
    call = next(item for item in found.items if item.suite == "calls")
    assert call.expected_calls == [{"name": "book", "arguments": {"seat": 1}}]
    assert [turn.role for turn in call.prompt] == ["user", "assistant"]
    assert call.prompt[1].text == '{"name": "book", "arguments": "{}"}'
    assert call.functions == list(found.functions)
    assert next(item for item in found.items if item.suite == "no_call").expected_text == "No."


def test_long_texts_are_cut_and_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "_ROOM", 30_000)
    found = item_texts(prompts(9_000), REPORT.baseline, REPORT.artifacts)
    assert found.left_out == len(FLIPPED) - len(found.items) > 0
    assert len(found.items) >= 4
    assert all(len(turn.text) < 4_100 for item in found.items for turn in item.prompt)
    assert len(found.model_dump_json()) < 33_000


def linears(*names: str, plain: str = "rtn_error") -> dict[str, dict[str, Any]]:
    return {name: {"error": 0.001 * (at + 1), plain: 0.01, "method": "gptq"} for at, name in enumerate(names)}


def test_errors_are_gathered_by_layer_with_the_worst_linear() -> None:
    names = ("model.layers.10.mlp.up_proj", "model.layers.2.q_proj", "lm_head", "model.layers.2.mlp.experts.7.w1")
    found = layer_errors({"artifact": {"linears": linears(*names)}})
    assert found is not None
    assert found.plain == "rtn"
    assert [(each.layer, each.linears, each.worst) for each in found.layers] == [
        (2, 2, "model.layers.2.mlp.experts.7.w1"),
        (10, 1, "model.layers.10.mlp.up_proj"),
        (None, 1, "lm_head"),
    ]
    assert found.layers[0].error == pytest.approx(0.003)
    assert found.layers[0].plain_error == pytest.approx(0.01)


def test_errors_of_a_gguf_file_are_found_by_the_files_name() -> None:
    files = {
        "a.gguf": {"linears": linears("blk.0.attn_q", plain="imatrix_error")},
        "b.gguf": {"linears": linears("blk.3.attn_q", plain="imatrix_error")},
    }
    made = {"artifact": {"files": files}}
    named, first = layer_errors(made, "b.gguf"), layer_errors(made, "folder")
    assert named is not None
    assert first is not None
    assert (named.plain, named.layers[0].layer, first.layers[0].layer) == ("imatrix", 3, 0)


@pytest.mark.parametrize("made", [{}, {"artifact": {}}, {"artifact": {"files": {"a.gguf": {"bytes": 3}}}}])
def test_a_format_without_errors_by_linear_has_none(made: dict[str, Any]) -> None:
    assert layer_errors(made) is None
