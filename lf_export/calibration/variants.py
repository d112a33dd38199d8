"""Items made out of a suite's items: the same requests, the functions shown otherwise.

- `masked`: functions and arguments have neutral names, and only descriptions tell what they are for. A model that goes
  by names alone falls. After Q. Lin et al., "Hammer: Robust Function-Calling for On-Device Language Models via Function
  Masking" (arXiv 2410.04587).
- `distractors:N`: N functions of other items are shown too, in a shuffled order. Only for items that expect a call:
  where none is expected, a function of another item could serve.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lf_export.calibration.suites import EvalItem, functions_of
from lf_export.errors import InputError
from lf_export.functions.answers import Call, calling, dumps, loads
from lf_export.functions.possible import PossibleCall
from lf_export.functions.spec import FunctionSpec

MASKED, DISTRACTORS = "masked", "distractors"
_MOST = 64


@dataclass(frozen=True)
class Variant:
    """A way to change items; `count` is the number of distractors."""

    name: str
    count: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.count}" if self.count else self.name


def parse_variant(text: str) -> Variant:
    """The variant that `masked` or `distractors:N` names.

    Raises:
        InputError: no such variant.
    """
    name, _, count = text.partition(":")
    if text == MASKED:
        return Variant(MASKED)
    if name == DISTRACTORS and count.isascii() and count.isdigit() and 1 <= int(count) <= _MOST:
        return Variant(DISTRACTORS, int(count))
    raise InputError(f"no variant is named {text!r}, expected masked or distractors:N with N from 1 to {_MOST}")


def vary(
    items: Sequence[EvalItem], variant: Variant, *, pool: Sequence[EvalItem] = (), seed: int = 0
) -> list[EvalItem]:
    """The items in a variant, with ids `ID~VARIANT`.

    Args:
        items: what to change.
        variant: how.
        pool: items whose functions distract; `items` themselves where it is empty.
        seed: the same seed gives the same items, and items that share their functions share their distractors.
    """
    if variant.name == MASKED:
        return [_masked(item, variant) for item in items]
    functions = list(functions_of(pool or items).values())
    return [_distracted(item, variant, functions, seed) for item in items if item.expected.calls]


def _renamed(item: EvalItem, variant: Variant, **changes: Any) -> EvalItem:
    return replace(item, id=f"{item.id}~{variant}", block=f"{item.block}~{variant}", variant=str(variant), **changes)


def _distracted(item: EvalItem, variant: Variant, functions: Sequence[FunctionSpec], seed: int) -> EvalItem:
    names = {spec.name for spec in item.functions}
    rng = random.Random(f"{seed}:{item.block}:{','.join(sorted(names))}")  # noqa: S311 - a reproducible choice
    others = [spec for spec in functions if spec.name not in names]
    shown = [*item.functions, *rng.sample(others, min(variant.count, len(others)))]
    rng.shuffle(shown)
    return _renamed(item, variant, functions=tuple(shown))


def _masked(item: EvalItem, variant: Variant) -> EvalItem:
    masks = {spec.name: _Mask(spec, f"function_{at}") for at, spec in enumerate(item.functions, 1)}
    calls = [_masked_call(call, masks) for call in item.expected.calls]
    return _renamed(
        item,
        variant,
        functions=tuple(mask.spec for mask in masks.values()),
        expected=calling(*calls) if calls else item.expected,
        possible=tuple(masks[call.name].possible(call) if call.name in masks else call for call in item.possible),
        messages=tuple(_masked_message(message, masks) for message in item.messages),
    )


def _masked_call(call: Call, masks: Mapping[str, "_Mask"]) -> Call:
    mask = masks.get(call.name)
    return call if mask is None else Call(mask.spec.name, mask.arguments(call.arguments))


def _masked_message(message: Mapping[str, Any], masks: Mapping[str, "_Mask"]) -> Mapping[str, Any]:
    """Earlier calls and results by the neutral names."""
    changed = dict(message)
    if message.get("role") == "tool" and message.get("name") in masks:
        changed["name"] = masks[message["name"]].spec.name
    if calls := message.get("tool_calls"):
        changed["tool_calls"] = [_masked_tool_call(call, masks) for call in calls]
    return changed


def _masked_tool_call(call: Mapping[str, Any], masks: Mapping[str, "_Mask"]) -> dict[str, Any]:
    function = call["function"]
    given = function.get("arguments", "{}")
    arguments = loads(given) if isinstance(given, str) else given
    made = _masked_call(Call(function["name"], arguments), masks)
    written = dumps(dict(made.arguments)) if isinstance(given, str) else dict(made.arguments)
    return {**call, "function": {**function, "name": made.name, "arguments": written}}


class _Mask:
    """A function with neutral names, and what was renamed: property names of one schema, those of nested ones below."""

    def __init__(self, spec: FunctionSpec, name: str) -> None:
        self._old = spec
        self.spec = FunctionSpec(name, spec.description, _masked_schema(spec.parameters))

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by their neutral names; one that the function does not have keeps its own."""
        found: dict[str, Any] = _masked_value(given, self._old.parameters)
        return found

    def possible(self, call: PossibleCall) -> PossibleCall:
        """The call with all its right values by the neutral names."""
        names = _names(self._old.parameters)
        shown = self._old.parameters.get("properties") or {}
        python = call.language == "python"
        return PossibleCall(
            self.spec.name,
            {
                names.get(name, name): [_masked_value(each, shown.get(name)) for each in allowed] if python else allowed
                for name, allowed in call.arguments.items()
            },
            {names.get(name, name): schema for name, schema in call.properties.items()},
            tuple(names.get(name, name) for name in call.required),
            call.language,
        )


def _names(schema: Any) -> dict[str, str]:
    """Old → neutral, for the properties of one object."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return {}
    return {name: f"argument_{at}" for at, name in enumerate(properties, 1)}


def _masked_schema(schema: Any) -> Any:
    """The schema with neutral names of properties, nested ones too; behind references and alternatives they stay."""
    if not isinstance(schema, Mapping):
        return schema
    names = _names(schema)
    masked = {key: value for key, value in schema.items() if key not in {"title", "examples", "example"}}
    if names:
        masked["properties"] = {names[name]: _masked_schema(child) for name, child in schema["properties"].items()}
    if isinstance(schema.get("required"), list):
        masked["required"] = [names.get(name, name) for name in schema["required"]]
    for key in ("items", "additionalProperties"):
        if key in schema:
            masked[key] = _masked_schema(schema[key])
    for key in ("default", "const"):
        if key in schema:
            masked[key] = _masked_value(schema[key], schema)
    if isinstance(schema.get("enum"), list):
        masked["enum"] = [_masked_value(each, schema) for each in schema["enum"]]
    return masked


def _masked_value(value: Any, schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, Mapping):
        names, properties = _names(schema), schema.get("properties") or {}
        others = schema.get("additionalProperties")
        return {
            names.get(name, name): _masked_value(each, properties.get(name, others)) for name, each in value.items()
        }
    if isinstance(value, list) and "items" in schema:
        return [_masked_value(each, schema["items"]) for each in value]
    return value
