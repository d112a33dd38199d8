"""What an answer is worth: its kind, and each call argument by argument, in plain words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lf_export.errors import InputError
from lf_export.functions.answers import Call, dumps
from lf_export.functions.dialects import Dialect
from lf_export.functions.models import Mistake, arguments_model
from lf_export.functions.spec import FunctionSpec
from lf_export.functions.validate import joined, validate

# What Pydantic's classes of mistakes say of an argument.
_WORDS = {
    "missing": "is required and not given",
    "extra_forbidden": "is not one of the function's",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "dict_type": "expected an object",
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
    "none_required": "expected null",
    "literal_error": "is not one of the values allowed",
    "string_too_short": "is too short",
    "string_too_long": "is too long",
    "too_short": "has too few items",
    "too_long": "has too many items",
    "string_pattern_mismatch": "does not match the pattern",
    "greater_than": "is too small",
    "greater_than_equal": "is too small",
    "less_than": "is too large",
    "less_than_equal": "is too large",
    "too_complex": "takes too many steps to check",
}


@dataclass(frozen=True)
class Argument:
    """One top-level argument of a call: its value as JSON, None where it is missing; what is wrong with it."""

    name: str
    value: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class JudgedCall:
    """One call; `problem` is what is wrong with the whole."""

    name: str
    arguments: tuple[Argument, ...]
    problem: str = ""

    @property
    def valid(self) -> bool:
        """Whether the function would take it."""
        return not self.problem and not any(argument.problems for argument in self.arguments)


@dataclass(frozen=True)
class Judged:
    """What an answer is: `call`, `prose`, `malformed` or `empty`, and its calls."""

    kind: str
    calls: tuple[JudgedCall, ...]


def judge(text: str, dialect: Dialect, functions: Sequence[FunctionSpec]) -> Judged:
    """Parse an answer's text, and ask each call's Pydantic model what it says."""
    answer = dialect.parse(text)
    return Judged(answer.kind, tuple(_judged(call, functions) for call in answer.calls))


def _judged(call: Call, functions: Sequence[FunctionSpec]) -> JudgedCall:
    given = {joined("", name): dumps(value) for name, value in call.arguments.items()}
    spec = next((spec for spec in functions if spec.name == call.name), None)
    if spec is None:
        known = ", ".join(each.name for each in functions) or "none"
        plain = tuple(Argument(name, value, ()) for name, value in given.items())
        return JudgedCall(call.name, plain, f"no function is named {call.name}; the functions are: {known}")
    try:
        problems = _problems(call, spec)
    except InputError as error:
        return JudgedCall(call.name, tuple(Argument(name, value, ()) for name, value in given.items()), error.message)
    names = list(dict.fromkeys([*given, *(name for name in problems if name)]))
    arguments = tuple(Argument(name, given.get(name), tuple(problems.get(name, ()))) for name in names)
    return JudgedCall(call.name, arguments, "; ".join(problems.get("", ())))


def _problems(call: Call, spec: FunctionSpec) -> Mapping[str, list[str]]:
    """Sentences by top-level argument: our own words where our check names the same place, else Pydantic's class."""
    checked = {error.path: error.message for error in validate(call, [spec])}
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for mistake in arguments_model(spec).mistakes(call.arguments):
        path = _path(mistake, call.arguments)
        seen.add(path)
        said = checked.get(path) or f"{path} {_WORDS.get(mistake.kind, mistake.message.lower())}".strip()
        there = found.setdefault(_top(path), [])
        if said not in there:  # each type of a union makes a mistake of its own
            there.append(said)
    for path, sentence in checked.items():
        if path not in seen and not any(path.startswith(each) for each in seen if each):
            found.setdefault(_top(path), []).append(sentence)
    return found


def _path(mistake: Mistake, arguments: Any) -> str:
    """`address.zip`, `tags[2]`: Pydantic's place without what it adds for its own unions and functions."""
    path, value = "", arguments
    for at, part in enumerate(mistake.place):
        last = at == len(mistake.place) - 1
        if (
            isinstance(value, dict)
            and isinstance(part, str)
            and (part in value or (last and mistake.kind == "missing"))
        ):
            path, value = joined(path, part), value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            path, value = f"{path}[{part}]", value[part]
    return path


def _top(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]
