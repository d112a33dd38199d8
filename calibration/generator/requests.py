"""Fill phrasing templates: a request's text and the arguments that it asks for."""

import random
from dataclasses import dataclass
from typing import Any

from generator.fresh import FreshPools
from generator.seeds import SLOT, Function, slots

Pools = dict[str, list[Any]]


@dataclass(frozen=True)
class Request:
    """A request in words, and the calls that answer it: (function, arguments) each."""

    text: str
    calls: tuple[tuple[Function, dict[str, Any]], ...]
    spoken: dict[str, str]  # slot -> its words, for the prose that follows a result
    template: str


def ask(function: Function, template: str, pools: Pools, rng: random.Random) -> Request:
    """Fill `template` with fresh values; a template with `#2` slots asks for two calls."""
    named = slots(template)
    first = {name for name, _ in named}
    used: set[str] = set()
    arguments, spoken = _fill(function.parameters, first, pools, rng, used)
    calls = [(function, arguments)]
    seconds = {name for name, second in named if second}
    spoken_two: dict[str, str] = {}
    if seconds:
        again, spoken_two = _fill(function.parameters, seconds, pools, rng, used)
        calls.append((function, _overlay(function.parameters, arguments, again)))
    text = SLOT.sub(lambda match: (spoken_two if match[2] else spoken)[match[1]], template)
    return Request(text, tuple(calls), spoken, template)


def ask_again(request: Request, template: str, pools: Pools, rng: random.Random) -> Request:
    """A follow-up of `request`: the same call with only the slots of `template` changed."""
    function, arguments = request.calls[0]
    named = {name for name, _ in slots(template)}
    again, spoken = _fill(function.parameters, named, pools, rng, set(request.spoken.values()))
    text = SLOT.sub(lambda match: spoken[match[1]], template)
    return Request(text, ((function, _overlay(function.parameters, arguments, again)),), spoken, template)


def tell(function: Function, request: Request) -> str | None:
    """The prose after the function's result, or None where it needs an argument that the request did not give."""
    if function.answer is None or function.result is None:
        return None
    words = dict(request.spoken)
    for name, _ in slots(function.answer):
        if name.startswith("result."):
            value: Any = function.result
            for key in name.split(".")[1:]:
                value = value[key]
            words[name] = _words(value)
        elif name not in words:
            return None
    text = SLOT.sub(lambda match: words[match[1]], function.answer)
    return text[0].upper() + text[1:]


def _fill(
    parameters: dict[str, Any], named: set[str], pools: Pools, rng: random.Random, used: set[str], prefix: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values for the slots in `named`, in the order of the parameters, and their words by slot."""
    arguments: dict[str, Any] = {}
    spoken: dict[str, str] = {}
    for key, parameter in parameters.items():
        dotted = prefix + key
        if parameter["type"] == "object":
            if any(name.startswith(dotted + ".") for name in named):
                arguments[key], inner = _fill(parameter["properties"], named, pools, rng, used, dotted + ".")
                spoken |= inner
        elif dotted in named:
            for _ in range(20):  # two slots of one request differ where their pool allows it
                value, text = _draw(parameter, pools, rng)
                if text not in used:
                    break
            used.add(text)
            arguments[key], spoken[dotted] = value, text
    return arguments, spoken


def _overlay(parameters: dict[str, Any], arguments: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """`arguments` with `changed` laid over them, in the order of the parameters."""
    merged = {}
    for key, parameter in parameters.items():
        if key in changed and key in arguments and parameter["type"] == "object":
            merged[key] = _overlay(parameter["properties"], arguments[key], changed[key])
        elif key in changed or key in arguments:
            merged[key] = changed.get(key, arguments.get(key))
    return merged


def _draw(parameter: dict[str, Any], pools: Pools, rng: random.Random) -> tuple[Any, str]:
    kind = parameter["type"]
    say = parameter.get("say") or {}
    if kind == "array":
        low, high = parameter.get("length", [2, 3])
        values: list[Any] = []
        texts: list[str] = []
        wanted = rng.randint(low, high)
        for _ in range(60):
            if len(values) == wanted:
                break
            value, text = _draw(parameter["items"], pools, rng)
            if value not in values:
                values.append(value)
                texts.append(text)
        return values, texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    if kind == "boolean":
        value = rng.choice(sorted(parameter["say"]))
    elif "enum" in parameter:
        value = rng.choice(parameter["enum"])
    elif "range" in parameter:
        value = _draw_number(parameter, rng)
    else:
        value = rng.choice(pools[parameter["from"]] if "from" in parameter else parameter["values"])
        if kind == "string":
            value = str(value)
            if isinstance(pools, FreshPools) and value not in say:
                value = pools.renew(value, rng)
    if value in say:
        text = say[value]
        return value, rng.choice(text) if isinstance(text, list) else str(text)
    return value, value.replace("_", " ") if "enum" in parameter and isinstance(value, str) else _words(value)


def _draw_number(parameter: dict[str, Any], rng: random.Random) -> int | float:
    """A number of the range; whole numbers are JSON integers, as they are written in the request."""
    low, high = parameter["range"]
    step = parameter.get("step", 1)
    value = low + step * rng.randint(0, int((high - low) / step + 1e-9))
    value = round(value, 6)
    return int(value) if value == int(value) else value


def _words(value: Any) -> str:
    if isinstance(value, list):
        texts = [_words(item) for item in value]
        return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    return str(value).lower() if isinstance(value, bool) else str(value)
