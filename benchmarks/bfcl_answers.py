"""Answers to a question of BFCL, right ones and seeded mutations of these: what `bfcl.py` compares two checkers on."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lf_export.calibration.bfcl import BfclRow
from lf_export.functions.answers import Call, write_calls
from lf_export.functions.java_literals import write_java
from lf_export.functions.javascript_literals import write_javascript
from lf_export.functions.possible import OMITTED, PossibleCall

MARKS = " ,./-_*^'\"()[]{}:;<>\n"


def answers_for(row: BfclRow, rng: random.Random, mutations: int) -> Iterator[list[Call]]:
    """The reference, each allowed value in turn, everything left out that may be, then mutations of random ones."""
    reference = [possible.reference() for possible in row.possible]
    yield reference
    yield list(reversed(reference))
    for at, possible in enumerate(row.possible):
        for name, allowed in possible.arguments.items():
            for value in allowed:
                for written in forms(possible, name, value, rng):
                    yield _with(reference, at, name, written)
                yield _with(reference, at, name, value)
        bare = {name: value for name, value in reference[at].arguments.items() if name in possible.needed}
        yield [*reference[:at], Call(possible.name, bare), *reference[at + 1 :]]
    for _ in range(mutations):
        calls = [_drawn(possible, rng) for possible in row.possible]
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            calls = rng.choice(MUTATIONS)(calls, row, rng)
        yield calls


def texts(row: BfclRow, rng: random.Random) -> Iterator[str]:
    """Answers as text to a question that no function serves."""
    spec = row.functions[0]
    properties = spec.parameters.get("properties", {})
    call = write_calls([Call(spec.name, {name: rng.choice((1, "x", True, [])) for name in properties})])
    yield from ("", " ", "None of these functions can do that.", "[]", "{}", "[{}]", "```json\n[]\n```")
    yield from (call, f"{call}\n{call}", f"```json\n{call}\n```", f"Sure: {call}", call[: rng.randrange(1, len(call))])
    yield from (f"[{spec.name}(a=1)]", f"{spec.name}()", '{"function_call": {"name": 5}}', "<tool_call>")


def forms(possible: PossibleCall, name: str, value: Any, rng: random.Random) -> Iterator[Any]:
    """An allowed value as an argument: tables made into objects, source text in several ways of writing."""
    kind, items = possible.kind_of(name)
    value = _chosen(value, rng)
    if possible.language == "python":
        yield value
    elif possible.language == "java":
        yield write_java(value, kind, items)
        yield write_java(value, "ArrayList", "String")
        if isinstance(value, list):
            yield "new ArrayList<>() {{ " + " ".join(f"add({_java(each)});" for each in value) + " }}"
            yield f"new String[] {{ {', '.join(map(_java, value))} }}"
            yield f"Arrays.asList({', '.join(map(_java, value))})"
        if isinstance(value, dict):
            yield "new HashMap<>() {" + "".join(f'put("{key}", {_java(each)});' for key, each in value.items()) + "}"
        yield _java(value)
    else:
        yield write_javascript(value, kind)
        if isinstance(value, list):
            yield f"new Array({', '.join(map(_javascript, value))})"
            yield f"[{','.join(map(_javascript, value))}]"
            yield f"[[{', '.join(map(_javascript, value))}], [1, 2]]"
            yield f"new Array([{', '.join(map(_javascript, value))}] , [])"
        if isinstance(value, dict):
            yield "{" + ", ".join(f"{key}: {_javascript(each)}" for key, each in value.items()) + "}"
        yield _javascript(value)


def _java(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else write_java(value, "any")


def _javascript(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else write_javascript(value, "any")


def _chosen(value: Any, rng: random.Random) -> Any:
    """One value out of a table of allowed ones."""
    if isinstance(value, dict):
        drawn = {
            key: rng.choice(allowed) if isinstance(allowed, list) and allowed else allowed
            for key, allowed in value.items()
        }
        return {key: each for key, each in drawn.items() if each != OMITTED}
    if isinstance(value, list):
        return [_chosen(each, rng) if isinstance(each, dict) else each for each in value]
    return value


def _drawn(possible: PossibleCall, rng: random.Random) -> Call:
    arguments: dict[str, Any] = {}
    for name, allowed in possible.arguments.items():
        value = rng.choice(list(allowed)) if allowed else OMITTED
        if value != OMITTED:
            arguments[name] = rng.choice(list(forms(possible, name, value, rng)))
        elif name in possible.required:
            arguments[name] = possible.reference().arguments.get(name, "")
    return Call(possible.name, arguments)


def _with(calls: Sequence[Call], at: int, name: str, value: Any) -> list[Call]:
    return [*calls[:at], Call(calls[at].name, {**calls[at].arguments, name: value}), *calls[at + 1 :]]


Mutation = Callable[[list[Call], BfclRow, random.Random], list[Call]]


def _some(calls: list[Call], rng: random.Random) -> tuple[int, str | None]:
    at = rng.randrange(len(calls)) if calls else 0
    names = list(calls[at].arguments) if calls else []
    return at, rng.choice(names) if names else None


def _value(change: Callable[[Any, BfclRow, random.Random], Any]) -> Mutation:
    """A mutation of one argument's value."""

    def mutate(calls: list[Call], row: BfclRow, rng: random.Random) -> list[Call]:
        at, name = _some(calls, rng)
        return calls if name is None else _with(calls, at, name, change(calls[at].arguments[name], row, rng))

    return mutate


def _other_type(value: Any, _: BfclRow, rng: random.Random) -> Any:
    ways: list[Any] = [None, True, False, 0, 1, 1.0, "", [], {}, str(value), [value], {"value": value}, [[value]]]
    if isinstance(value, int | float):
        ways += [float(value), int(value), str(value), f"{value}L", f"{value}f", f"{value}n", -value, value + 1]
    if isinstance(value, str):
        ways += [float(len(value)), *([int(value)] if value.isdecimal() else [])]
    return rng.choice(ways)


def _text(value: Any, row: BfclRow, rng: random.Random) -> Any:
    if not isinstance(value, str):
        return _inside(value, row, rng)
    at = rng.randrange(len(value) + 1)
    return rng.choice(
        (
            value.upper(), value.lower(), value.swapcase(), value.title(), f" {value} ", f'"{value}"', f"'{value}'",
            value[:at] + rng.choice(MARKS) + value[at:], value[:at] + value[at + 1 :], value[:at], value[at:],
            value.replace(" ", ""), value.replace("-", " "), value.replace("'", '"'), value.replace('"', "'"),
            value.replace(",", ", "), value + "\n", value.replace("[", "[["), value.replace("]", "]]"), value + value,
            value[:at] + rng.choice("aZ9é٣ß İ") + value[at:],
        )
    )  # fmt: skip


def _inside(value: Any, row: BfclRow, rng: random.Random) -> Any:
    """Something changed one level down."""
    if isinstance(value, list) and value:
        at = rng.randrange(len(value))
        changed = rng.choice((_text, _other_type))(value[at], row, rng)
        return rng.choice(
            (
                [*value[:at], changed, *value[at + 1 :]], value[::-1], [*value, value[at]],
                value[:at] + value[at + 1 :], tuple(value), [value], [*value, changed], [],
            )
        )  # fmt: skip
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        rest = {name: each for name, each in value.items() if name != key}
        changed = rng.choice((_text, _other_type))(value[key], row, rng)
        return rng.choice((rest, {**value, key: changed}, {**value, "extra": 1}, {**rest, key.upper(): value[key]}, {}))
    return _other_type(value, row, rng)


def _elsewhere(_: Any, row: BfclRow, rng: random.Random) -> Any:
    """A value that another argument allows, as the leaderboard writes it."""
    allowed = [value for possible in row.possible for values in possible.arguments.values() for value in values]
    return rng.choice(allowed or [""])


def _drop_argument(calls: list[Call], _: BfclRow, rng: random.Random) -> list[Call]:
    at, name = _some(calls, rng)
    if name is None:
        return calls
    kept = {key: value for key, value in calls[at].arguments.items() if key != name}
    return [*calls[:at], Call(calls[at].name, kept), *calls[at + 1 :]]


def _add_argument(calls: list[Call], row: BfclRow, rng: random.Random) -> list[Call]:
    if not calls:
        return calls
    names = [name for spec in row.functions for name in spec.parameters.get("properties", {})] + ["extra", "", "Unit"]
    return _with(calls, rng.randrange(len(calls)), rng.choice(names), rng.choice((1, "x", "", True, [], {}, None)))


def _calls(calls: list[Call], row: BfclRow, rng: random.Random) -> list[Call]:
    """Wrong counts, orders and functions."""
    if not calls:
        return [possible.reference() for possible in row.possible]
    at = rng.randrange(len(calls))
    other = rng.choice(
        [*(spec.name for spec in row.functions), calls[at].name.upper(), "unheard_of", calls[at].name.replace(".", "_")]
    )
    shuffled = rng.sample(calls, len(calls))
    return rng.choice(
        (
            shuffled, shuffled, [], calls[:at] + calls[at + 1 :], [*calls, calls[at]], [calls[at]] * len(calls),
            [*calls[:at], Call(other, calls[at].arguments), *calls[at + 1 :]],
        )
    )  # fmt: skip


MUTATIONS: tuple[Mutation, ...] = (
    _value(_other_type), _value(_text), _value(_text), _value(_inside), _value(_elsewhere),
    _drop_argument, _add_argument, _calls,
)  # fmt: skip
