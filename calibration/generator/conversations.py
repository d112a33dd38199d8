"""Conversations in the OpenAI form: tools as JSON Schema, calls as `tool_calls` with arguments as JSON text."""

import json
import random
import re
from dataclasses import dataclass, field
from typing import Any

from generator.requests import Pools, Request, ask, ask_again, tell
from generator.seeds import Exchange, Function, Split, phrasing_hash, slots

Message = dict[str, Any]

# Traits that a single call can have; the rest are structures of conversations.
TRAITS = ("nested", "array", "enum", "optional", "numbers_dates")
_NUMBER_OR_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{2}:\d{2}")


@dataclass
class Conversation:
    """Messages under way, with the hashes of the phrasings that made them."""

    domain: str
    messages: list[Message] = field(default_factory=list)
    phrasings: list[str] = field(default_factory=list)
    calls: int = 0

    def user(self, text: str, template: str) -> None:
        """Add a user turn."""
        self.messages.append({"role": "user", "content": text})
        self.phrasings.append(phrasing_hash(template))

    def prose(self, text: str) -> None:
        """Add an assistant turn in prose."""
        self.messages.append({"role": "assistant", "content": text})

    def call(self, calls: tuple[tuple[Function, dict[str, Any]], ...]) -> None:
        """Add an assistant turn that calls functions."""
        rows = []
        for function, arguments in calls:
            self.calls += 1
            text = json.dumps(arguments, ensure_ascii=False)
            rows.append(
                {
                    "id": f"call_{self.calls}",
                    "type": "function",
                    "function": {"name": function.name, "arguments": text},
                }
            )
        self.messages.append({"role": "assistant", "content": None, "tool_calls": rows})

    def result(self, function: Function) -> None:
        """Add the result of the last call."""
        content = json.dumps(function.result, ensure_ascii=False)
        self.messages.append(
            {"role": "tool", "tool_call_id": f"call_{self.calls}", "name": function.name, "content": content}
        )


def tool(function: Function) -> dict[str, Any]:
    """The function as an OpenAI tool."""
    parameters = _object_schema(function.parameters)
    return {
        "type": "function",
        "function": {"name": function.name, "description": function.description, "parameters": parameters},
    }


def _object_schema(parameters: dict[str, Any]) -> dict[str, Any]:
    required = [key for key, parameter in parameters.items() if not parameter.get("optional")]
    return {
        "type": "object",
        "properties": {key: _schema(parameter) for key, parameter in parameters.items()},
        "required": required,
    }


def _schema(parameter: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter["type"]}
    if "description" in parameter:
        schema["description"] = parameter["description"]
    if "enum" in parameter:
        schema["enum"] = list(parameter["enum"])
    if parameter["type"] == "array":
        schema["items"] = _schema(parameter["items"])
    if parameter["type"] == "object":
        schema |= {key: value for key, value in _object_schema(parameter["properties"]).items() if key != "type"}
    return schema


def traits(function: Function, template: str) -> set[str]:
    """What a call by this phrasing exercises, of `TRAITS`."""
    named = {name for name, _ in slots(template)}
    found = set()
    given = {name.split(".")[0] for name in named}
    for key, parameter in function.parameters.items():
        if key not in given:
            found.add("optional")  # the call must leave it out
            continue
        if parameter.get("optional"):
            found.add("optional")
        for leaf in [parameter, *parameter.get("properties", {}).values()]:
            if leaf["type"] == "object":
                found.add("nested")
            elif leaf["type"] == "array":
                found.add("array")
            elif "enum" in leaf:
                found.add("enum")
            elif leaf["type"] in {"integer", "number"} or leaf.get("from") in {"date", "time", "datetime"}:
                found.add("numbers_dates")
    return found


def single(function: Function, pools: Pools, rng: random.Random, wanted: str | None = None) -> Conversation | None:
    """One request, one call; `wanted` is a trait that it must show, "plain" one without objects and arrays."""
    templates = list(function.phrasings)
    if wanted == "plain":
        templates = [template for template in templates if not traits(function, template) & {"nested", "array"}]
    elif wanted is not None:
        templates = [template for template in templates if wanted in traits(function, template)]
    if not templates:
        return None
    request = ask(function, rng.choice(templates), pools, rng)
    conversation = Conversation(function.domain)
    conversation.user(request.text, request.template)
    conversation.call(request.calls)
    return conversation


def parallel(function: Function, pools: Pools, rng: random.Random) -> Conversation | None:
    """One request that needs two calls of the same function."""
    if not function.parallel:
        return None
    request = ask(function, rng.choice(function.parallel), pools, rng)
    conversation = Conversation(function.domain)
    conversation.user(request.text, request.template)
    conversation.call(request.calls)
    return conversation


def multi_turn(
    function: Function, other: Function | None, pools: Pools, rng: random.Random, *, end: str
) -> Conversation | None:
    """A call, its result, the prose about it; `end` "call" goes on to a second call, "prose" stops there."""
    if function.result is None:
        return None
    for _ in range(8):
        request = ask(function, rng.choice(function.phrasings), pools, rng)
        reply = tell(function, request)
        if reply:
            break
    else:
        return None
    conversation = Conversation(function.domain)
    conversation.user(request.text, request.template)
    conversation.call(request.calls)
    conversation.result(function)
    conversation.prose(reply)
    if end == "call":
        second = _second(request, function, other, pools, rng)
        if second is None:
            return None
        conversation.user(second.text, second.template)
        conversation.call(second.calls)
    return conversation


def _second(
    request: Request, function: Function, other: Function | None, pools: Pools, rng: random.Random
) -> Request | None:
    follows = function.followup is not None and all(name in request.spoken for name, _ in slots(function.followup))
    if follows and function.followup is not None and (other is None or rng.random() < 0.6):
        return ask_again(request, function.followup, pools, rng)
    return None if other is None else ask(other, rng.choice(other.phrasings), pools, rng)


def clarify(function: Function, rng: random.Random) -> Conversation | None:
    """A request that lacks a required argument, answered by a question."""
    return exchange(rng.choice(function.missing), function.domain) if function.missing else None


def no_function_fits(function: Function, split: Split, rng: random.Random) -> Conversation:
    """A request for a function that is not shown, declined in a sentence."""
    request = ask(function, rng.choice(function.phrasings), split.pools, rng)
    topic = function.description[0].lower() + function.description[1:].rstrip(".")
    conversation = Conversation(function.domain)
    conversation.user(request.text, request.template)
    conversation.prose(rng.choice(split.refusals).replace("{topic}", topic))
    return conversation


def exchange(case: Exchange, domain: str = "chat") -> Conversation:
    """A request that is answered in prose."""
    conversation = Conversation(domain)
    conversation.user(case.ask, case.ask)
    conversation.prose(case.reply)
    return conversation
