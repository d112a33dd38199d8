"""The dialect `chat-template`: the tokenizer's own template decides what the model sees.

A template that shows tools gets the functions through `tools`; any other gets the origin's `<<API>>` block as (the
beginning of) the system message, and calls as text. Which stretch of the output is an answer is found by rendering
again with a marker in the answer's place, so no template is parsed or guessed at.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, ClassVar

from lf_export.errors import InputError
from lf_export.functions.answers import Answer, Call, Form, calling, read_answer, write_calls
from lf_export.functions.pieces import Piece, functions_block
from lf_export.functions.spec import FunctionSpec, to_openai
from lf_export.functions.turns import Turn, read_turns, responses_as_user

_MARKER = "lfxANSWERxfl"
_USER_MARKER = "lfxREQUESTxfl"
_PROBE = FunctionSpec(
    "lfx_probe", "Probe", {"type": "object", "properties": {"lfx_key": {"type": "string"}}, "required": ["lfx_key"]}
)
_PROBE_CALL = Call("lfx_probe", {"lfx_key": "x"})
# Tokens that templates write and that text tokenizers do not know: each must be one token.
_SPECIAL = re.compile(r"<\|[^|<>\s]+\|>|</?s>|<(?:start|end)_of_turn>|<bos>|<eos>")

Message = dict[str, Any]


class ChatTemplate:
    """A conversation through the tokenizer's chat template.

    Args:
        tokenizer: a Transformers tokenizer with a chat template.

    Raises:
        InputError: no template, a template that fails, calls written in a form that cannot be read back, or tokens
            of the template that the vocabulary lacks.
    """

    name: ClassVar[str] = "chat-template"
    bos: ClassVar[str] = ""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                f"the tokenizer {_called(tokenizer)} has no chat template",
                "choose the dialect llama-functions, or add chat_template.jinja to the model's folder",
            )
        self._ends: tuple[str, ...] = ()
        probe = [Turn("user", "x"), Turn("assistant", "y", Answer("prose", (), "y")), Turn("user", "z")]
        self.shows_tools = _PROBE.name in self._apply(self._plain(probe, ()), (_PROBE,))
        self.form: Form = "hermes" if self.shows_tools else "function_call"
        pieces = self._pieces(probe, (_PROBE,) if self.shows_tools else (), generate=False)
        self._check_tokens("".join(piece.text for piece in pieces))
        self._ends = _ends(next(piece.text for piece in pieces if piece.role == "prose"), "y")
        if self.shows_tools:
            self._check_calls()

    def render(
        self, messages: Sequence[Mapping[str, Any]], functions: Sequence[FunctionSpec], *, generate: bool = False
    ) -> list[Piece]:
        """The conversation as the template writes it; see `Dialect.render`.

        Raises:
            InputError: the template refuses the conversation, drops the system message, or rewrites answers.
        """
        turns = read_turns(messages)
        if generate and turns[-1].role == "assistant":
            raise InputError("the conversation ends with an answer, expected the user's turn to generate after")
        return self._pieces(turns, tuple(functions), generate=generate)

    def plain_messages(self, messages: Sequence[Mapping[str, Any]], functions: Sequence[FunctionSpec]) -> list[Message]:
        """The messages that a template without tools is given: functions and calls as text in them."""
        return self._plain(responses_as_user(read_turns(messages)), functions)

    def parse(self, text: str) -> Answer:
        """What the model's text is; see `Dialect.parse`."""
        return read_answer(text, self.form, self._ends)

    def _pieces(self, turns: Sequence[Turn], functions: tuple[FunctionSpec, ...], *, generate: bool) -> list[Piece]:
        native = self.shows_tools
        plain = self._native(turns) if native else self._plain(responses_as_user(turns), functions)
        shown = functions if native else ()
        text = self._apply(plain, shown, generate=generate)
        spans: list[tuple[int, int, Any]] = []
        if functions:
            block = self._tools_span(plain, shown, text) if native else _block_span(text, functions)
            spans.append((*block, "functions"))
        answers = [turn.answer for turn in turns if turn.answer is not None]
        places = [position for position, message in enumerate(plain) if message["role"] == "assistant"]
        for place, answer in zip(places, answers, strict=True):
            marked = [*plain[:place], {"role": "assistant", "content": _MARKER}, *plain[place + 1 :]]
            start, end = _span(text, self._apply(marked, shown, generate=generate), _MARKER)
            end += _end_token(text[end:])
            if answer.calls and self.parse(text[start:end]).calls != answer.calls:
                raise _UnreadableCallError(f"the call does not read back from {text[start:end]!r}")
            spans.append((start, end, "call" if answer.kind == "call" else "prose"))
        return _cut(text, spans)

    def _apply(self, messages: list[Message], functions: Sequence[FunctionSpec], *, generate: bool = False) -> str:
        tools = [to_openai(spec) for spec in functions] or None
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=generate
            )
        except Exception as error:  # a template is foreign code: what it raises is a mistake in the input
            raise InputError(f"the chat template of {_called(self._tokenizer)} fails: {error}") from error
        return str(text)

    def _plain(self, turns: Sequence[Turn], functions: Sequence[FunctionSpec]) -> list[Message]:
        """Messages for a template without tools: the functions and the calls are text."""
        messages: list[Message] = []
        if functions:
            messages.append({"role": "system", "content": functions_block(functions)})
        for turn in turns:
            if turn.role == "system" and functions:
                messages[0]["content"] += f"\n\n{turn.text}"
            elif turn.answer is not None and turn.answer.kind == "call":
                messages.append({"role": "assistant", "content": write_calls(turn.answer.calls)})
            else:
                messages.append({"role": turn.role, "content": turn.text})
        return messages

    def _native(self, turns: Sequence[Turn]) -> list[Message]:
        """Messages for a template that shows tools; arguments as objects, which it writes with `tojson`."""
        messages: list[Message] = []
        for turn in turns:
            message: Message = {"role": turn.role, "content": turn.text}
            if turn.answer is not None and turn.answer.calls:
                message["tool_calls"] = [
                    {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
                    for call in turn.answer.calls
                ]
            if turn.name:
                message["name"] = turn.name
            messages.append(message)
        return messages

    def _tools_span(self, messages: list[Message], shown: Sequence[FunctionSpec], text: str) -> tuple[int, int]:
        """Where the functions stand: what the template writes before the first user text because there are tools."""
        first = next((place for place, message in enumerate(messages) if message["role"] == "user"), None)
        if first is None:
            raise InputError("a conversation without a user message cannot show functions")
        marked = [*messages[:first], {"role": "user", "content": _USER_MARKER}]
        with_tools = self._apply(marked, shown).partition(_USER_MARKER)[0]
        without = self._apply(marked, ()).partition(_USER_MARKER)[0]
        start = _shared(with_tools, without)
        shared = _shared(with_tools[start:][::-1], without[start:][::-1])
        end = len(with_tools) - shared
        if start >= end or not text.startswith(with_tools):
            raise InputError("the chat template does not show the functions before the first user message")
        return start, end

    def _check_tokens(self, text: str) -> None:
        vocabulary = self._tokenizer.get_vocab()
        missing = [
            token
            for token in dict.fromkeys(_SPECIAL.findall(text))
            if token not in vocabulary or self._tokenizer.encode(token, add_special_tokens=False) != [vocabulary[token]]
        ]
        if missing:
            raise InputError(
                f"the tokenizer {_called(self._tokenizer)} lacks tokens that its chat template writes: "
                + ", ".join(missing)
            )

    def _check_calls(self) -> None:
        """Refuse a template whose calls cannot be read back: they could never be judged."""
        try:
            self._pieces([Turn("user", "x"), Turn("assistant", "", calling(_PROBE_CALL))], (_PROBE,), generate=False)
        except _UnreadableCallError as error:
            raise InputError(
                f"the chat template of {_called(self._tokenizer)} writes calls in an unknown form: {error.message}"
            ) from error


class _UnreadableCallError(InputError):
    """A call that does not come back from what the template writes."""


def _block_span(text: str, functions: Sequence[FunctionSpec]) -> tuple[int, int]:
    block = functions_block(functions)
    start = text.find(block)
    if start < 0:
        raise InputError("the chat template does not write the system message as it is, so functions cannot be shown")
    return start, start + len(block)


def _span(text: str, marked: str, marker: str) -> tuple[int, int]:
    """Where `text` differs from the rendering that has `marker` in the answer's place."""
    before, found, after = marked.partition(marker)
    end = len(text) - len(after)
    if not found or not text.startswith(before) or not text.endswith(after) or end < len(before):
        raise InputError("the chat template does not write an answer in one place, so it cannot be marked")
    return len(before), end


def _shared(first: str, second: str) -> int:
    """The length of the longest common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _end_token(rest: str) -> int:
    """The length of the end token at the start of `rest`, which belongs to the answer."""
    found = _SPECIAL.match(rest)
    return found.end() if found else 0


def _ends(text: str, answer: str) -> tuple[str, ...]:
    end = text.removeprefix(answer)
    return (end,) if end else ()


def _cut(text: str, spans: list[tuple[int, int, Any]]) -> list[Piece]:
    pieces: list[Piece] = []
    position = 0
    for start, end, role in spans:
        if start > position:
            pieces.append(Piece(text[position:start], "prompt"))
        if end > start:
            pieces.append(Piece(text[start:end], role))
        position = end
    if position < len(text):
        pieces.append(Piece(text[position:], "prompt"))
    return pieces


def _called(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
