"""A conversation of OpenAI messages as turns of text: what every dialect starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lf_export.errors import InputError
from lf_export.functions.answers import Answer, answer_of, dumps, loads

Role = Literal["system", "user", "assistant", "tool"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


@dataclass(frozen=True)
class Turn:
    """One turn. An assistant's has an answer; a tool's has the function's name, and its text is what it gave back."""

    role: Role
    text: str
    answer: Answer | None = None
    name: str = ""


def read_turns(messages: Any, where: str = "messages") -> list[Turn]:
    """The turns of an OpenAI conversation.

    Raises:
        InputError: not such a conversation; every mistake, a line each, after `where`.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputError(f"{where}: expected a list of at least one message")
    problems: list[str] = []
    turns: list[Turn] = []
    called = _Called()
    for position, message in enumerate(messages):
        at = f"{where}[{position}]"
        try:
            turn = _read_turn(message, at, called)
            if turn.role == "system" and position:
                raise InputError(f"{at}.role: a system message stands only at the start")  # noqa: TRY301
            turns.append(turn)
        except InputError as error:
            problems.append(error.message)
    if problems:
        raise InputError.of(problems)
    return turns


def response_text(turn: Turn) -> str:
    """A tool's result as the text of a user's turn.

    A result that is a JSON object or list goes in as it is, any other as a JSON string.
    """
    try:
        value = loads(turn.text)
    except ValueError:
        value = None
    content = value if isinstance(value, dict | list) else turn.text
    return dumps({"function_response": {"name": turn.name, "content": content}})


def responses_as_user(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with tool results as user turns; results of parallel calls share one, a line each."""
    merged: list[Turn] = []
    after_tool = False
    for turn in turns:
        if turn.role != "tool":
            merged.append(turn)
        elif after_tool:
            merged[-1] = Turn("user", f"{merged[-1].text}\n{response_text(turn)}")
        else:
            merged.append(Turn("user", response_text(turn)))
        after_tool = turn.role == "tool"
    return merged


class _Called:
    """The calls so far: a result names its function, or the call's id, or is the next one's that has none yet."""

    def __init__(self) -> None:
        self._by_id: dict[str, str] = {}
        self._waiting: list[str] = []

    def note(self, calls: Sequence[Any]) -> None:
        self._waiting = [call["function"]["name"] for call in calls]
        self._by_id |= {call["id"]: call["function"]["name"] for call in calls if isinstance(call.get("id"), str)}

    def name_of(self, message: Mapping[str, Any]) -> str | None:
        following = self._waiting.pop(0) if self._waiting else None
        if isinstance(name := message.get("name"), str) and name:
            return name
        if message.get("tool_call_id") is not None:
            return self._by_id.get(str(message["tool_call_id"]))
        return following


def _read_turn(message: Any, at: str, called: "_Called") -> Turn:
    if not isinstance(message, Mapping):
        raise InputError(f"{at}: expected a message object, found {type(message).__name__}")
    role = _ROLES.get(message.get("role", "")) if isinstance(message.get("role"), str) else None
    if role is None:
        raise InputError(f"{at}.role: expected one of {', '.join(_ROLES)}, found {message.get('role')!r}")
    text = _text_of(message.get("content"), f"{at}.content", optional=role == "assistant")
    if role == "assistant":
        answer = answer_of({**message, "content": text}, at)
        called.note(message.get("tool_calls") or [])
        return Turn(role, text, answer)
    if role == "tool":
        name = called.name_of(message)
        if name is None:
            raise InputError(f"{at}: a tool message without a call before it that it answers")
        return Turn(role, text, None, name)
    return Turn(role, text)


def _text_of(content: Any, at: str, *, optional: bool) -> str:
    """Text, also from the list of text parts that OpenAI allows."""
    if isinstance(content, str):
        return content
    if content is None and optional:
        return ""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    raise InputError(f"{at}: expected text, found {type(content).__name__}")
