from typing import Any

import pytest
from conversations import FUNCTIONS, calls, returns, says, user
from models import tiny_tokenizer
from templates import DROPS_SYSTEM, FOREIGN_CALLS, HERMES, NO_SYSTEM, OTHER_TOKENS, SHOUTS

from lf_export.errors import InputError
from lf_export.functions.answers import Call, calling, prose
from lf_export.functions.dialects import Dialect, Piece, dialect_for, functions_block, split_at_functions, text_of
from lf_export.functions.spec import from_llama_functions

LISTED = (
    '{"functions":[{"name":"f","description":"Adds","parameters":[{"description":"One","name":"a","type":"string"},'
    '{"description":"Two","name":"b","optional":true,"type":"number"}]}]}'
)
# The origin's bytes, written out once more.
ORIGIN = (
    "[INST] <<SYS>>\n<<API>>\nYou may answer by calling one of the following functions. If you can infer a function's "
    "required arguments, respond with a the function name and arguments. If multiple functions can be called, pick the "
    f"one that best answers the question.\n\n```\n{LISTED}\n```\n<</API>>\n<</SYS>>\n\nAdd it. [/INST]"
)
ADD = from_llama_functions(
    [
        {
            "name": "f",
            "description": "Adds",
            "parameters": [
                {"name": "a", "type": "string", "description": "One"},
                {"name": "b", "type": "number", "description": "Two", "optional": True},
            ],
        }
    ]
)
CONVERSATION = [
    {"role": "system", "content": "Be short."},
    user("Weather in Paris and Rome?"),
    calls(("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome", "days": 2})),
    returns('{"high": 21}', 0),
    returns("rain", 1),
    says("Fine in Paris, rain in Rome."),
    user("Thanks"),
    says("You are welcome."),
]
EXPECTED = [
    calling(Call("get_weather", {"city": "Paris"}), Call("get_weather", {"city": "Rome", "days": 2})),
    prose("Fine in Paris, rain in Rome."),
    prose("You are welcome."),
]


def tokenizer_with(template: str | None) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def answers(dialect: Dialect, pieces: list[Piece]) -> list[Any]:
    return [(a.kind, a.calls, a.text if a.kind == "prose" else "") for a in parsed(dialect, pieces)]


def parsed(dialect: Dialect, pieces: list[Piece]) -> list[Any]:
    return [dialect.parse(piece.text) for piece in pieces if piece.role in {"call", "prose"}]


def test_llama_functions_writes_the_bytes_of_the_origin() -> None:
    dialect = dialect_for("llama-functions")
    messages = [user("Add it."), calls(("f", {"a": "x", "b": 2}))]
    assert text_of(dialect.render(messages[:1], ADD, generate=True)) == ORIGIN
    answer = ' {"function_call":{"name":"f","arguments":{"a":"x","b":2}}} '
    assert text_of(dialect.render(messages, ADD)) == f"{ORIGIN}{answer}</s>"
    assert dialect.bos == "<s>"


def test_llama_functions_frames_later_turns_as_llama_2_does() -> None:
    text = text_of(dialect_for("llama-functions").render(CONVERSATION, ()))
    assert text.startswith("[INST] <<SYS>>\nBe short.\n<</SYS>>\n\nWeather in Paris and Rome? [/INST] {")
    assert text.endswith(" Fine in Paris, rain in Rome. </s><s>[INST] Thanks [/INST] You are welcome. </s>")


def test_llama_functions_without_functions_and_system_has_no_system_section() -> None:
    assert text_of(dialect_for("llama-functions").render([user("Hi")], (), generate=True)) == "[INST] Hi [/INST]"


def test_a_system_message_follows_the_functions_block() -> None:
    block = functions_block(FUNCTIONS)
    for name in ("llama-functions", "chat-template"):
        text = text_of(dialect_for(name, tokenizer_of(name)).render(CONVERSATION, FUNCTIONS))
        assert f"{block}\n\nBe short." in text


def tokenizer_of(name: str) -> Any:
    return None if name == "llama-functions" else tiny_tokenizer()


@pytest.mark.parametrize(
    ("messages", "generate"),
    [
        ([user("a"), user("b")], False),
        ([says("a")], False),
        ([{"role": "system", "content": "a"}], False),
        ([user("a"), says("b")], True),
    ],
)
def test_llama_functions_refuses_turns_that_do_not_alternate(messages: list[Any], generate: bool) -> None:
    with pytest.raises(InputError, match="expected"):
        dialect_for("llama-functions").render(messages, (), generate=generate)


@pytest.mark.parametrize("template", ["chatml", HERMES])
@pytest.mark.parametrize("functions", [(), FUNCTIONS])
@pytest.mark.parametrize("conversation", [CONVERSATION, CONVERSATION[1:], CONVERSATION[1:3]])
def test_pieces_are_exactly_what_the_template_writes(template: str, functions: Any, conversation: list[Any]) -> None:
    tokenizer = tiny_tokenizer() if template == "chatml" else tokenizer_with(template)
    dialect = dialect_for("chat-template", tokenizer)
    pieces = dialect.render(conversation, functions)
    if template == "chatml":
        head = [{"role": "system", "content": functions_block(functions)}] if functions else []
        assert ("named SmolLM" in text_of(pieces)) == (conversation[0]["role"] != "system" and not functions)
        assert all(message["content"] in text_of(pieces) for message in head)
    else:
        native = [
            message
            | (
                {"content": ""}
                | {"tool_calls": [{"function": {"name": c.name, "arguments": c.arguments}} for c in EXPECTED[0].calls]}
                if "tool_calls" in message
                else {}
            )
            for message in conversation
        ]
        from lf_export.functions.spec import to_openai

        tools = [to_openai(spec) for spec in functions] or None
        assert text_of(pieces) == tokenizer.apply_chat_template(native, tools=tools, tokenize=False)
    assert parsed_equal(dialect, pieces, len(conversation))


def parsed_equal(dialect: Dialect, pieces: list[Piece], turns: int) -> bool:
    wanted = EXPECTED if turns > 3 else EXPECTED[:1]
    return answers(dialect, pieces) == [(a.kind, a.calls, a.text if a.kind == "prose" else "") for a in wanted]


def test_chatml_pieces_end_at_the_block_and_hold_the_end_token_of_answers() -> None:
    pieces = dialect_for("chat-template", tiny_tokenizer()).render([user("Hi"), says("Hello")], FUNCTIONS)
    assert [(piece.role, piece.text) for piece in pieces] == [
        ("prompt", "<|im_start|>system\n"),
        ("functions", functions_block(FUNCTIONS)),
        ("prompt", "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        ("prose", "Hello<|im_end|>"),
        ("prompt", "\n"),
    ]


def test_the_generation_prompt_is_what_stands_before_an_answer() -> None:
    for tokenizer in (tiny_tokenizer(), tokenizer_with(HERMES)):
        dialect = dialect_for("chat-template", tokenizer)
        prompt = text_of(dialect.render(CONVERSATION[:2], FUNCTIONS, generate=True))
        pieces = dialect.render(CONVERSATION[:3], FUNCTIONS)
        before = next(at for at, piece in enumerate(pieces) if piece.role == "call")
        assert text_of(pieces[:before]) == prompt
        with pytest.raises(InputError, match="ends with an answer"):
            dialect.render(CONVERSATION, FUNCTIONS, generate=True)


def test_items_with_the_same_functions_share_the_text_up_to_the_end_of_the_block() -> None:
    for dialect in (
        dialect_for("llama-functions"),
        dialect_for("chat-template", tiny_tokenizer()),
        dialect_for("chat-template", tokenizer_with(HERMES)),
    ):
        first = split_at_functions(dialect.render([user("One")], FUNCTIONS, generate=True))
        second = split_at_functions(dialect.render([user("Another")], FUNCTIONS, generate=True))
        assert first[0] == second[0]
        assert "sendEmail" in first[0]
        assert "One" in first[1]
        assert split_at_functions(dialect.render([user("One")], ()))[0] == ""


def test_a_template_with_tools_shows_functions_in_its_own_way() -> None:
    pieces = dialect_for("chat-template", tokenizer_with(HERMES)).render(CONVERSATION[:3], FUNCTIONS)
    assert "<<API>>" not in text_of(pieces)
    block = next(piece.text for piece in pieces if piece.role == "functions")
    assert block.count('"type": "function"') == 2
    call = next(piece.text for piece in pieces if piece.role == "call")
    assert call.startswith('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n')
    assert call.endswith("</tool_call><|im_end|>")


def test_trimmed_answers_are_found_where_they_are() -> None:
    tokenizer = tokenizer_with("{% for m in messages %}{{ m.role + ': ' + (m.content | trim) + '\n' }}{% endfor %}")
    pieces = dialect_for("chat-template", tokenizer).render([user("Hi"), says("user: Hi\nHi  ")], ())
    assert pieces[1] == Piece("user: Hi\nHi", "prose")
    assert text_of(pieces) == "user: Hi\nassistant: user: Hi\nHi\n"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "has no chat template"),
        (OTHER_TOKENS, r"lacks tokens that its chat template writes: <\|turn\|>, <\|stop\|>"),
        (FOREIGN_CALLS, "writes calls in an unknown form"),
        ("{{ 1 / 0 }}", "fails: division by zero"),
        ("{% for", "fails: "),
        (SHOUTS, "does not write an answer in one place"),
    ],
)
def test_a_template_that_cannot_serve_is_refused_at_once(template: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        dialect_for("chat-template", tokenizer_with(template))


@pytest.mark.parametrize(
    ("template", "words"), [(NO_SYSTEM, "fails: no system role"), (DROPS_SYSTEM, "does not write the system message")]
)
def test_a_template_without_system_messages_cannot_show_functions(template: str, words: str) -> None:
    dialect = dialect_for("chat-template", tokenizer_with(template))
    assert text_of(dialect.render([user("Hi"), says("Hello")], ())) == "user: Hi\nassistant: Hello\n"
    with pytest.raises(InputError, match=words):
        dialect.render([user("Hi")], FUNCTIONS)


def test_a_tokenizer_without_llama_tokens_cannot_speak_llama_functions() -> None:
    with pytest.raises(InputError, match="lacks tokens that the dialect llama-functions needs: <s>, </s>"):
        dialect_for("llama-functions", tiny_tokenizer())


def test_an_unknown_dialect_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match="no dialect is named 'hermes', expected one of llama-functions, chat-templ"):
        dialect_for("hermes")
    with pytest.raises(InputError, match="needs the model's tokenizer"):
        dialect_for("chat-template")
