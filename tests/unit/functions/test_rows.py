import pytest
from conversations import FUNCTIONS, calls, returns, says, user

from lf_export.errors import InputError
from lf_export.functions.dialects import dialect_for, functions_block, text_of
from lf_export.functions.rows import read_row

SYSTEM = {"role": "system", "content": "Be kind.\n\nAnd short."}


@pytest.mark.parametrize("functions", [(), FUNCTIONS])
@pytest.mark.parametrize(
    "messages",
    [
        [user("Hi"), says("Hello.")],
        [SYSTEM, user("Hi\n\nthere [/INST?"), says("Hello.")],
        [
            user("a"),
            calls(("get_weather", {"city": "x"}), ("sendEmail", {})),
            user("b"),
            says("c"),
            user("d"),
            says("e"),
        ],
        [user("a"), calls(("get_weather", {"city": "x"})), returns("7"), says("c")],
    ],
)
def test_a_row_renders_to_its_own_bytes(messages: list[object], functions: tuple[object, ...]) -> None:
    dialect = dialect_for("llama-functions")
    text = text_of(dialect.render(messages, functions))  # type: ignore[arg-type]
    prompt, _, output = text.removesuffix("</s>").rpartition("[/INST]")
    read, shown = read_row(f"{prompt}[/INST]", output)
    assert shown == functions
    assert text_of(dialect.render(read, shown)) == text


@pytest.mark.parametrize(
    ("prompt", "output", "words"),
    [
        ("Hi", " a ", r"input: expected '\[INST\]"),
        ("[INST] Hi [/INST]", "", "output: the answer is empty"),
        ("[INST] Hi [/INST]", ' {"function_call":', "output: the answer is malformed"),
        ("[INST] a </s><s>[INST] b [/INST]", " c ", "turn 1 has no answer"),
        ("[INST] <<SYS>>\n<<API>>\nx\n<</API>>\n<</SYS>>\n\na [/INST]", " c ", "block does not read"),
        (f"[INST] <<SYS>>\n{functions_block(())[:-20]}x\n<</SYS>>\n\na [/INST]", " c ", "block does not read"),
        ("[INST] <<SYS>>\n<<API>>\n```\n{x}\n```\n<</API>>\n<</SYS>>\n\na [/INST]", " c ", "are not JSON"),
        ("[INST] <<SYS>>\n<<API>>\n```\n{}\n```\n<</API>>\n<</SYS>>\n\na [/INST]", " c ", "has no 'functions'"),
        (
            '[INST] <<SYS>>\n<<API>>\n```\n{"functions":[5]}\n```\n<</API>>\n<</SYS>>\n\na [/INST]',
            " c ",
            r"input: functions\[0\]: expected an object",
        ),
    ],
)
def test_another_form_is_refused(prompt: str, output: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_row(prompt, output)
