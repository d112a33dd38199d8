"""Values, calls and functions for property tests."""

from typing import Any

from hypothesis import strategies as st

from lf_export.functions.answers import Call
from lf_export.functions.spec import FunctionSpec

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
TRICKY = st.sampled_from(
    ['"', "\\", "```", "\n", "</s>", "<|im_end|>", '{"function_call":', "\u2028", "😀", "\x7f", "\x00"]
)
STRING = st.one_of(TEXT, TRICKY, st.builds("{}{}{}".format, TEXT, TRICKY, TEXT))
NUMBER = st.one_of(
    st.integers(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False, allow_infinity=False, width=64)
)
SCALAR = st.one_of(st.none(), st.booleans(), NUMBER, STRING)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRING, inner, max_size=3), max_leaves=8
)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
CALLS = st.lists(st.builds(Call, NAME, st.dictionaries(STRING, VALUE, max_size=4)), min_size=1, max_size=3)
PROSE = st.from_regex(r"[A-Z][a-z ,.?!0-9é]{0,40}[a-z.]", fullmatch=True)

NODE = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "number", "boolean"])}),
        st.fixed_dictionaries(
            {"type": st.just("string"), "enum": st.lists(STRING, min_size=1, max_size=3, unique=True)}
        ),
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.dictionaries(NAME, inner, min_size=1, max_size=3).flatmap(
            lambda properties: st.fixed_dictionaries(
                {
                    "type": st.just("object"),
                    "properties": st.just(properties),
                    "required": st.sets(st.sampled_from(sorted(properties))).map(
                        lambda names: [name for name in properties if name in names]
                    ),
                }
            )
        ),
    ),
    max_leaves=4,
)


@st.composite
def specs(draw: st.DrawFn) -> FunctionSpec:
    properties = draw(st.dictionaries(NAME, NODE, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    schema = {"type": "object", "properties": properties, "required": required}
    return FunctionSpec(draw(NAME), draw(STRING), schema)


def value_for(draw: st.DrawFn, schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    if schema["type"] == "array":
        return [value_for(draw, schema["items"]) for _ in range(draw(st.integers(0, 2)))]
    if schema["type"] == "object":
        given_names = [name for name in schema["properties"] if name in schema["required"] or draw(st.booleans())]
        return {name: value_for(draw, schema["properties"][name]) for name in given_names}
    kinds = {"string": STRING, "integer": st.integers(), "number": NUMBER, "boolean": st.booleans()}
    return draw(kinds[schema["type"]])


@st.composite
def calls_to(draw: st.DrawFn) -> tuple[FunctionSpec, Call]:
    spec = draw(specs())
    return spec, Call(spec.name, value_for(draw, dict(spec.parameters)))
