"""Laws of the scores: what is right stays right under other names, bounds hold, and checks end."""

import contextlib
import time
from typing import Any

from conversations import user
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import CALLS, NAME, VALUE, calls_to, specs

from lf_export.calibration.suites import EvalItem
from lf_export.calibration.variants import Variant, vary
from lf_export.errors import InputError
from lf_export.functions.answers import Call, calling
from lf_export.functions.bfcl import bfcl_right
from lf_export.functions.compare import compare
from lf_export.functions.models import schema_error
from lf_export.functions.possible import possible_of
from lf_export.functions.spec import FunctionSpec
from lf_export.functions.validate import validate

KEYWORDS = st.sampled_from(
    ["type", "properties", "items", "required", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "$defs", "pattern",
     "minimum", "maxLength", "minItems", "additionalProperties", "nullable", "default"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["string", "object", "array", "integer", "#", "#/properties/x", "#/$defs/a", "#/$defs/b", "a", "(a+)+$", "(?=x)"]
)
KEYS = st.one_of(KEYWORDS, st.sampled_from(["a", "b", "x"]))
HOSTILE = st.recursive(
    st.one_of(WORDS, st.booleans(), st.none(), st.integers(-3, 3), st.just({"$ref": "#/properties/x"})),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=12,
)


@st.composite
def items(draw: st.DrawFn) -> EvalItem:
    spec, call = draw(calls_to())
    return EvalItem("i", "", "b", (user("x"),), (spec,), calling(call))


@settings(max_examples=60, deadline=None)
@given(items(), st.data())
def test_masking_changes_no_verdict(item: EvalItem, data: st.DataObject) -> None:
    (masked,) = vary([item], Variant("masked"))
    (call,) = item.expected.calls
    made = Call(call.name, {**call.arguments, **data.draw(st.dictionaries(NAME, VALUE, max_size=1))})
    (other,) = vary([EvalItem("j", "", "b", item.messages, item.functions, calling(made))], Variant("masked"))
    before = compare(calling(made), item.expected.calls, item.functions)
    after = compare(other.expected, masked.expected.calls, masked.functions)
    if not any(name.startswith("argument_") for name in made.arguments):
        assert (before.exact, before.errors, before.arguments_right) == (
            after.exact,
            after.errors,
            after.arguments_right,
        )
    assert compare(masked.expected, masked.expected.calls, masked.functions).exact


@settings(max_examples=40, deadline=None)
@given(items(), st.lists(specs(), max_size=6), st.integers(1, 6), st.integers(0, 3))
def test_distractors_leave_the_functions_and_never_double_a_name(
    item: EvalItem, others: list[FunctionSpec], count: int, seed: int
) -> None:
    pool = [EvalItem("p", "", "", item.messages, (spec,), calling(Call(spec.name, {}))) for spec in others]
    (varied,) = vary([item], Variant("distractors", count), pool=[*pool, item], seed=seed)
    names = [spec.name for spec in varied.functions]
    assert len(names) == len(set(names)) <= count + 1
    assert set(item.functions) <= set(varied.functions)
    assert varied == vary([item], Variant("distractors", count), pool=[*pool, item], seed=seed)[0]


@settings(max_examples=100, deadline=None)
@given(calls_to(), CALLS)
def test_arguments_that_are_right_are_at_most_those_expected(
    made: tuple[FunctionSpec, Call], calls: list[Call]
) -> None:
    spec, call = made
    outcome = compare(calling(*calls, call), [call, *calls], [spec])
    assert outcome.exact
    assert outcome.arguments_right == outcome.arguments_expected == sum(len(c.arguments) for c in (call, *calls))
    less = compare(calling(*calls), [call, *calls], [spec])
    assert less.arguments_right <= less.arguments_expected
    assert not less.exact


@settings(max_examples=60, deadline=None)
@given(calls_to())
def test_a_call_of_strings_and_booleans_is_right_for_the_leaderboard_too(made: tuple[FunctionSpec, Call]) -> None:
    spec, call = made
    plain = Call(call.name, {name: value for name, value in call.arguments.items() if isinstance(value, str | bool)})
    shown = FunctionSpec(spec.name, "", {**spec.parameters, "required": list(plain.arguments)})
    assert bfcl_right([plain], [possible_of(plain, [shown])])


@settings(max_examples=60, deadline=None)
@given(specs(), st.data())
def test_pydantic_and_our_validation_agree_but_for_whole_numbers_written_as_floats(
    spec: FunctionSpec, data: st.DataObject
) -> None:
    names = st.sampled_from([*spec.parameters["properties"], "other"])
    call = Call(spec.name, data.draw(st.dictionaries(names, VALUE, max_size=4)))
    ours, theirs = validate(call, [spec]), schema_error(call, [spec])
    assert (not ours) == (theirs is None) or theirs == "int_type"


@settings(max_examples=150, deadline=None)
@given(HOSTILE, HOSTILE, VALUE)
def test_any_schema_is_checked_or_refused_and_soon(schema: Any, definition: Any, value: Any) -> None:
    parameters = {"type": "object", "properties": {"x": schema}, "$defs": {"a": definition, "b": schema}}
    function = FunctionSpec("f", "", parameters)
    started = time.process_time()
    validate(Call("f", {"x": value}), [function])
    with contextlib.suppress(InputError):
        schema_error(Call("f", {"x": value}), [function])
    assert time.process_time() - started < 5
