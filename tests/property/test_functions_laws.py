"""Laws of functions and answers: what is written reads back."""

import json
from typing import Any

import jsonschema
from conversations import user
from hypothesis import given, settings
from hypothesis import strategies as st
from models import tiny_tokenizer
from strategies import CALLS, PROSE, STRING, VALUE, calls_to, specs
from templates import HERMES

from lf_export.functions.answers import Call, calling, prose, read_answer, write_calls
from lf_export.functions.compare import compare
from lf_export.functions.dialects import Dialect, dialect_for, text_of
from lf_export.functions.schemas import json_schema
from lf_export.functions.spec import (
    FunctionSpec,
    from_llama_functions,
    from_openai,
    schema_hash,
    to_llama_functions,
    to_openai,
)
from lf_export.functions.validate import validate
from lf_export.functions.values import json_equal


def same(first: tuple[Call, ...], second: list[Call]) -> bool:
    return [(c.name, json.dumps(dict(c.arguments))) for c in first] == [
        (c.name, json.dumps(dict(c.arguments))) for c in second
    ]


@given(CALLS)
def test_calls_read_back_as_they_were_written(calls: list[Call]) -> None:
    answer = read_answer(write_calls(calls))
    assert answer.kind == "call"
    assert same(answer.calls, calls)
    assert answer == calling(*calls)


@given(CALLS, st.data())
def test_a_call_that_is_cut_is_malformed_and_never_prose(calls: list[Call], data: st.DataObject) -> None:
    text = write_calls(calls[:1])
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    assert read_answer(cut).kind == "malformed"


@given(CALLS, PROSE)
def test_a_call_with_words_around_it_is_malformed_and_never_prose(calls: list[Call], words: str) -> None:
    text = write_calls(calls)
    assert read_answer(f"{text}\n{words}").kind == "malformed"
    assert read_answer(f"{words}\n{text}").kind == "malformed"


def dialects() -> list[Dialect]:
    hermes = tiny_tokenizer()
    hermes.chat_template = HERMES
    return [
        dialect_for("llama-functions"),
        dialect_for("chat-template", tiny_tokenizer()),
        dialect_for("chat-template", hermes),
    ]


DIALECTS = dialects()


def message(calls: list[Call]) -> dict[str, Any]:
    made = [{"function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))}} for call in calls]
    return {"role": "assistant", "content": None, "tool_calls": made}


@settings(max_examples=25, deadline=None)
@given(CALLS, st.lists(specs(), max_size=2, unique_by=lambda spec: spec.name), STRING, PROSE)
def test_every_dialect_parses_the_answers_that_it_renders(
    calls: list[Call], functions: list[FunctionSpec], request: str, words: str
) -> None:
    for dialect in DIALECTS:
        messages = [user(request), message(calls), user("and?"), {"role": "assistant", "content": words}]
        pieces = dialect.render(messages, functions)
        first, second = (dialect.parse(piece.text) for piece in pieces if piece.role in {"call", "prose"})
        assert first.kind == "call"
        assert same(first.calls, calls)
        assert second == prose(words)
        prompt = text_of(dialect.render(messages[:1], functions, generate=True))
        assert text_of(pieces).startswith(prompt)


@given(specs())
def test_a_function_survives_both_of_its_forms(spec: FunctionSpec) -> None:
    assert from_openai([to_openai(spec)]) == (spec,)
    listed = to_llama_functions(spec)
    (again,) = from_llama_functions(json.loads(json.dumps([listed])))
    assert again == spec
    assert json.dumps(to_llama_functions(again)) == json.dumps(listed)
    assert schema_hash(again) == schema_hash(spec)


@settings(max_examples=50, deadline=None)
@given(calls_to())
def test_a_call_made_from_the_schema_is_valid_by_every_measure(made: tuple[FunctionSpec, Call]) -> None:
    spec, call = made
    assert validate(call, [spec]) == []
    jsonschema.validate(json.loads(write_calls([call])), json_schema([spec]))
    outcome = compare(calling(call), [call], [spec])
    assert outcome.exact
    assert outcome.bfcl_like


@settings(max_examples=50, deadline=None)
@given(specs(), st.data())
def test_validation_agrees_with_jsonschema(spec: FunctionSpec, data: st.DataObject) -> None:
    names = st.sampled_from([*spec.parameters["properties"], "other"])
    call = Call(spec.name, data.draw(st.dictionaries(names, VALUE, max_size=4)))
    validator = jsonschema.Draft202012Validator(json_schema([spec]))
    assert (validate(call, [spec]) == []) == validator.is_valid(json.loads(write_calls([call])))


@given(VALUE, VALUE)
def test_json_equality_is_symmetric_and_survives_json(first: Any, second: Any) -> None:
    assert json_equal(first, json.loads(json.dumps(first)))
    assert json_equal(first, second) == json_equal(second, first)


@given(calls_to(), st.data())
def test_exact_means_no_errors_and_no_errors_means_exact(made: tuple[FunctionSpec, Call], data: st.DataObject) -> None:
    spec, call = made
    other = Call(spec.name, data.draw(st.dictionaries(st.sampled_from([*call.arguments, "x"]), VALUE, max_size=4)))
    outcome = compare(calling(other), [call], [spec])
    assert outcome.exact == (outcome.errors == ())
