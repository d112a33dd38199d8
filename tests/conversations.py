"""Conversations and functions for tests."""

import json
from typing import Any

from lf_export.functions.answers import Call
from lf_export.functions.spec import FunctionSpec, from_openai

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather for a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "City name"},
                "days": {"type": "integer", "minimum": 1, "maximum": 10},
                "units": {"type": "string", "enum": ["metric", "imperial"], "default": "metric"},
            },
            "required": ["city"],
        },
    },
}
EMAIL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "sendEmail",
        "description": "Send an email",
        "parameters": {
            "type": "object",
            "properties": {
                "to": {"type": "array", "items": {"type": "string"}},
                "body": {
                    "type": "object",
                    "properties": {"title": {"type": "string"}, "urgent": {"type": "boolean"}},
                    "required": ["title"],
                },
                "delay": {"type": "number"},
            },
            "required": ["to", "body"],
        },
    },
}
FUNCTIONS: tuple[FunctionSpec, ...] = from_openai([WEATHER, EMAIL])


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def calls(*named: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": f"call_{at}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
            }
            for at, (name, arguments) in enumerate(named)
        ],
    }


def returns(text: str, call: int = 0) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{call}", "content": text}


def call_record(name: str, city: str = "Paris", **fields: Any) -> dict[str, Any]:
    """A line of a calibration file that calls a function once."""
    return {
        "id": name,
        "category": "single",
        "messages": [user(f"What is the weather in {city}?"), calls(("get_weather", {"city": city, "days": 3}))],
        "tools": [WEATHER],
        **fields,
    }


def chat_record(name: str, answer: str = "It is a fine day.") -> dict[str, Any]:
    """A line of a calibration file that only talks."""
    return {"id": name, "category": "chat", "messages": [user("How is the day?"), says(answer)]}


# Nothing here can be written without an end, so that even a random model comes to one.
_LAMP = {
    "type": "object",
    "properties": {
        "room": {"type": "string", "enum": ["kitchen", "hall"]},
        "on": {"type": "boolean"},
        "colour": {"type": ["null", "boolean"]},
    },
    "required": ["room", "on"],
}
ENDING = from_openai([{"name": "set_lamp", "parameters": _LAMP}, {"name": "ring", "parameters": None}])

# Calls to FUNCTIONS, in the order of their arguments.
MAIL = {"to": ["a@b.c", 'say "hi"\n'], "body": {"title": "Zürich \\", "urgent": False}, "delay": -1.5e3}
GOOD = [
    Call("get_weather", {"city": "Paris"}),
    Call("get_weather", {"city": "", "days": 3}),
    Call("get_weather", {"city": "Paris", "units": "metric"}),
    Call("get_weather", {"city": "Paris", "days": 1, "units": "imperial"}),
    Call("sendEmail", MAIL),
    Call("sendEmail", {"to": [], "body": {"title": ""}}),
]
BAD = [
    Call("other", {}),
    Call("get_weather", {}),
    Call("get_weather", {"city": 5}),
    Call("get_weather", {"city": "Paris", "zip": "1"}),
    Call("get_weather", {"city": "Paris", "units": "kelvin"}),
    Call("get_weather", {"city": "Paris", "days": "3"}),
    Call("sendEmail", {"to": [5], "body": {"title": "x"}}),
    Call("sendEmail", {"to": [], "body": {}}),
    Call("sendEmail", {"to": [], "body": {"title": "x", "cc": "y"}}),
]
