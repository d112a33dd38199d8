"""Source text of Java and JavaScript as values."""

import time
from typing import Any

import pytest

from lf_export.functions.java_literals import read_java, untyped_java, write_java
from lf_export.functions.javascript_literals import read_javascript, untyped_javascript, write_javascript


@pytest.mark.parametrize(
    ("text", "kind", "items", "value"),
    [
        ("-5", "integer", None, -5),
        ("5.0", "integer", None, "5.0"),
        ("5l", "long", None, 5),
        ("1.5f", "float", None, 1.5),
        ("1.5", "float", None, "1.5"),
        ("1e3", "double", None, 1000.0),
        ("false", "boolean", None, False),
        ("False", "boolean", None, "False"),
        ("'c'", "char", None, "'c'"),
        ("new int[] { 1, 2, }", "Array", "integer", [1, 2]),
        ("new long[]{1L, 2}", "Array", "long", [1, "2"]),
        ("{1, 2}", "Array", "integer", "{1, 2}"),
        ("new ArrayList<Integer>(Arrays.asList(1, 2))", "ArrayList", "integer", [1, 2]),
        ('new ArrayList<>() {{ add("a"); add("b"); }}', "ArrayList", "String", ["a", "b"]),
        ("new ArrayList<>()", "ArrayList", "String", []),
        ("List.of(1)", "ArrayList", "integer", "List.of(1)"),
        ('new HashMap<String, Object>() {{ put("a", 1); put("b", "x"); put("c", true); }}', "HashMap", None,
         {"a": 1, "b": "x", "c": True}),
        ("new HashMap<>()", "HashMap", None, {}),
        ("Map.of()", "HashMap", None, "Map.of()"),
    ],
)  # fmt: skip
def test_java_text_reads_by_its_type_or_stays_text(text: str, kind: str, items: str | None, value: Any) -> None:
    read = read_java(text, kind, items)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "items", "value"),
    [
        ('"a"', "String", None, "a"),
        ("a", "String", None, "a"),
        ("5", "integer", None, 5),
        ("5", "float", None, 5.0),
        ("1e3", "float", None, "1e3"),
        ("5n", "Bigint", None, 5),
        ("true", "Boolean", None, True),
        ("['a', \"b\"]", "array", "String", ["a", "b"]),
        ("new Array(1, 2)", "array", "integer", [1, 2]),
        ("[]", "array", "integer", []),
        ("[1, 2", "array", "integer", "[1, 2"),
        ("[[1, 2], ['a']]", "array", "array", [[1, 2], ["a"]]),
        ("new Array([1], [2])", "array", "array", [[1], [2]]),
        ("{a: 1, 'b': [1, 2], c: true}", "dict", None, {"a": 1, "b": [1, 2], "c": True}),
        ("{}", "dict", None, {}),
        ("options", "dict", None, "options"),
    ],
)
def test_javascript_text_reads_by_its_type_or_stays_text(text: str, kind: str, items: str | None, value: Any) -> None:
    read = read_javascript(text, kind, items)
    assert read == value
    assert type(read) is type(value)


def test_literals_without_a_type_read_as_what_they_look_like() -> None:
    assert [untyped_java(text) for text in ("true", '"a"', "5L", "1.5f", "5", "2.5", "x.y")] == [
        True, "a", 5, 1.5, 5, 2.5, "x.y"
    ]  # fmt: skip
    assert [untyped_javascript(text) for text in ("true", " 'a' ", "5", "2.5", "x.y")] == [True, "a", 5, 2.5, "x.y"]


@pytest.mark.parametrize(
    ("value", "kind", "items"),
    [
        (5, "integer", None), (5, "long", None), (1.5, "float", None), (True, "boolean", None), ("a b", "String", None),
        (["a", "b"], "ArrayList", "String"), ([1, 2], "ArrayList", "long"), ([], "ArrayList", "String"),
        ([1, 2], "Array", "integer"), ({"a": 1, "b": "x"}, "HashMap", None), ({}, "HashMap", None),
    ],
)  # fmt: skip
def test_java_text_that_we_write_reads_back(value: Any, kind: str, items: str | None) -> None:
    assert read_java(write_java(value, kind, items), kind, items) == value


@pytest.mark.parametrize(
    ("value", "kind", "items"),
    [
        (5, "Bigint", None), (2.5, "float", None), (["a"], "array", "String"), ([[1, 2], [3]], "array", "array"),
        ({"a": 1, "b": ["x", "y"]}, "dict", None), ("cb", "any", None),
    ],
)  # fmt: skip
def test_javascript_text_that_we_write_reads_back(value: Any, kind: str, items: str | None) -> None:
    assert read_javascript(write_javascript(value, kind), kind, items) == value


def test_a_list_of_lists_that_never_closes_is_read_in_no_time() -> None:
    started = time.monotonic()
    text = "[" + ", ".join("[1]" for _ in range(2000))
    assert read_javascript(text, "array", "array") == ["[1"]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", ["Set", "Queue", "unheard-of"])
def test_a_type_without_literals_is_an_error(kind: str) -> None:
    with pytest.raises(ValueError, match="no literals"):
        read_java("x", kind)
    with pytest.raises(ValueError, match="no literals"):
        read_javascript("x", kind)
