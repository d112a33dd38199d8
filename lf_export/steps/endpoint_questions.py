"""Items as a server is asked them, and its replies as answers that are judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from lf_export.errors import InputError
from lf_export.functions.answers import Answer, answer_of, dumps, write_calls
from lf_export.functions.chat_template import ChatTemplate
from lf_export.functions.dialects import Dialect
from lf_export.functions.spec import to_openai
from lf_export.runtimes.endpoint import Question
from lf_export.runtimes.endpoint_reply import Reply
from lf_export.steps.prompts import Prompt


@dataclass(frozen=True)
class Served:
    """What a reply comes to.

    Attributes:
        answer: to be judged.
        ids: its token ids, an end token at the end unless it was cut: the server's own, or those of its text.
        untranslated: a call came as text over the chat interface, where a client looks for `tool_calls`.
    """

    answer: Answer
    ids: tuple[int, ...]
    untranslated: bool = False


def question_of(prompt: Prompt, dialect: Dialect, tokenizer: Any) -> Question:
    """The item in every form in which a server may take it."""
    bos = dialect.bos or (tokenizer.bos_token or "")
    item = prompt.item
    if shows_as_text(dialect):
        messages, tools = dialect.plain_messages(item.messages, item.functions), []
    else:
        messages, tools = openai_messages(item.messages), [to_openai(spec) for spec in item.functions]
    return Question(prompt.text, bos if bos and prompt.text.startswith(bos) else "", prompt.ids, messages, tools)


def shows_as_text(dialect: Dialect) -> TypeGuard[ChatTemplate]:
    """Whether the model sees functions, and writes calls, as text in messages: its template knows no tools."""
    return isinstance(dialect, ChatTemplate) and not dialect.shows_tools


def openai_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with what servers insist on: ids of calls, results that name them, arguments as text."""
    found: list[dict[str, Any]] = []
    waiting: list[str] = []
    for position, message in enumerate(messages):
        kept = dict(message)
        if kept.get("tool_calls"):
            kept["tool_calls"] = [
                _with_id(call, f"call_{position}_{number}") for number, call in enumerate(kept["tool_calls"])
            ]
            waiting = [call["id"] for call in kept["tool_calls"]]
        elif kept.get("role") == "tool":
            following = waiting.pop(0) if waiting else None
            kept.setdefault("tool_call_id", following)
        found.append(kept)
    return found


def served(reply: Reply, dialect: Dialect, tokenizer: Any, ends: frozenset[int], *, chat: bool) -> Served:
    """The reply as an answer; over the chat interface `tool_calls` are calls, and what does not read is malformed."""
    ids = reply.token_ids
    text = reply.text if ids is None else decoded(tokenizer, ids, ends)
    if chat and reply.calls:
        answer, text = _called(reply), f"{reply.text}\n{_raw(reply)}".strip()
    else:
        answer = dialect.parse(text)
    untranslated = chat and not reply.calls and answer.kind == "call" and not shows_as_text(dialect)
    if untranslated:
        answer = Answer("malformed", answer.calls, answer.text)
    if ids is None:
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not reply.cut and (not ids or ids[-1] not in ends):
        ids = (*ids, min(ends))
    return Served(answer, ids, untranslated)


def decoded(tokenizer: Any, ids: Sequence[int], ends: frozenset[int]) -> str:
    """The text of token ids, special tokens kept, without an end token at the end."""
    kept = ids[:-1] if ids and ids[-1] in ends else ids
    return str(tokenizer.decode(list(kept), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _called(reply: Reply) -> Answer:
    """The calls of a reply; beside text, or with arguments that are no JSON object, it is malformed."""
    try:
        found = answer_of({"content": None, "tool_calls": reply.calls}, "answer")
    except InputError:
        return Answer("malformed", (), f"{reply.text}\n{_raw(reply)}".strip())
    if reply.text.strip():
        return Answer("malformed", found.calls, f"{reply.text.strip()}\n{write_calls(found.calls)}")
    return found


def _raw(reply: Reply) -> str:
    """The calls as the server wrote them, a line each."""
    return "\n".join(dumps(call["function"]) for call in reply.calls)


def _with_id(call: Mapping[str, Any], fallback: str) -> dict[str, Any]:
    function = dict(call["function"])
    if not isinstance(function.get("arguments", "{}"), str):
        function["arguments"] = dumps(function["arguments"])
    return {"type": "function", **call, "id": call.get("id") or fallback, "function": function}
