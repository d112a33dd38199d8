"""Conversations and functions for tests."""

import json
from typing import Any

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
