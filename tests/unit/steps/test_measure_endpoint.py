"""A server's answers are judged as those of any other artifact: by all that an item says of what is right."""

from types import SimpleNamespace
from typing import Any

import pytest

from lf_export.calibration.suites import EvalItem
from lf_export.functions.answers import Call, calling
from lf_export.functions.llama_functions import LlamaFunctions
from lf_export.functions.possible import PossibleCall
from lf_export.functions.spec import FunctionSpec
from lf_export.runtimes.endpoint_reply import Reply
from lf_export.steps import measure_endpoint
from lf_export.steps.measure import Measured

ENDS = frozenset({2})
FIRST, SECOND = Call("get", {"unit": "celsius"}), Call("get", {"unit": "kelvin"})
SPEC = FunctionSpec("get", "", {"type": "object", "properties": {"unit": {"type": "string"}}, "required": ["unit"]})


def judged(item: EvalItem, text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    reply = Reply(text=text, ids=[5, 2], finish="stop", completion_tokens=2)
    monkeypatch.setattr(measure_endpoint, "served", lambda *_, **__: SimpleNamespace(
        answer=LlamaFunctions().parse(text), ids=(5, 2), untranslated=False
    ))  # fmt: skip
    asking: Any = SimpleNamespace(
        workload=SimpleNamespace(prompts=[SimpleNamespace(item=item)], max_new_tokens=8),
        session=SimpleNamespace(ask=lambda *_: reply, counts_otherwise=lambda *_: None),
        question=lambda prompt: prompt,
        together=map,
        dialect=None, tokenizer=None, ends=ENDS, chat=False, found=Measured("endpoint"), advance=lambda *_: None,
    )  # fmt: skip
    measure_endpoint._answers(asking)
    return asking.found.answers[item.id]


def text_of(*calls: Call) -> str:
    return calling(*calls).text


def test_any_of_the_possible_values_is_right_over_a_server_too(monkeypatch: pytest.MonkeyPatch) -> None:
    possible = PossibleCall("get", {"unit": ["celsius", "kelvin"]}, SPEC.parameters["properties"], ("unit",))
    item = EvalItem("a", "simple", "", (), (SPEC,), calling(FIRST), possible=(possible,))
    assert judged(item, text_of(SECOND), monkeypatch).exact
    assert not judged(EvalItem("a", "simple", "", (), (SPEC,), calling(FIRST)), text_of(SECOND), monkeypatch).exact


def test_calls_in_another_order_are_wrong_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    for ordered in (False, True):
        item = EvalItem("a", "parallel", "", (), (SPEC,), calling(FIRST, SECOND), ordered=ordered)
        assert judged(item, text_of(SECOND, FIRST), monkeypatch).exact is not ordered
