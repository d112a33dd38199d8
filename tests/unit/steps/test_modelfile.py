"""The Modelfile of a GGUF artifact: its template writes what the model was trained to see."""

import json
import re
from pathlib import Path

import pytest
from go_template import rendered
from models import tiny_model
from templates import HERMES, NO_SYSTEM

from lf_export.checkpoint.index import open_checkpoint
from lf_export.functions.dialects import dialect_for, functions_block, text_of
from lf_export.functions.frame import Frame
from lf_export.functions.spec import FunctionSpec
from lf_export.report.modelfile import go_template, modelfile
from lf_export.runtimes.causal import load_tokenizer
from lf_export.steps.modelfile import write_modelfile

SPEC = FunctionSpec("get_weather", 'The "weather"', {"type": "object", "properties": {"city": {"type": "string"}}})
TURNS = ["What is the weather in Paris?", '{"function_call": {"name": "get_weather"}}', "And {{ .Content }}?"]


def folder_of(root: Path, *files: str) -> Path:
    folder = root / "artifact"
    folder.mkdir()
    for name in files or ("tiny-Q8_0.gguf", "imatrix.gguf"):
        (folder / name).write_bytes(b"")
    return folder


def template_of(text: str) -> str:
    return text.split('TEMPLATE """', 1)[1].split('"""', 1)[0]


def conversation(system: str) -> list[dict[str, str]]:
    turns = [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(TURNS)]
    return [{"role": "system", "content": system}, *turns]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "model")


def test_the_template_writes_what_the_model_s_own_template_writes(model: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    write_modelfile(open_checkpoint(model), folder, "chat-template")
    text = (folder / "Modelfile").read_text(encoding="utf-8")
    dialect = dialect_for("chat-template", load_tokenizer(model))
    expected = text_of(dialect.render(conversation("Be brief."), [SPEC], generate=True))
    assert "get_weather" in expected
    shown = conversation(f"{functions_block([SPEC])}\n\nBe brief.")
    assert rendered(template_of(text), shown) == expected
    plain = load_tokenizer(model).apply_chat_template(conversation("S")[1:], tokenize=False, add_generation_prompt=True)
    assert rendered(template_of(text), conversation("S")[1:]) == plain
    assert "FROM ./tiny-Q8_0.gguf\n" in text
    assert 'PARAMETER stop "<|im_end|>"\n' in text
    assert "system message, as the <<API>> block" in text


def test_a_template_that_shows_tools_says_that_they_are_not_offered(tmp_path: Path) -> None:
    model, folder = tiny_model(tmp_path / "model"), folder_of(tmp_path)
    (model / "chat_template.jinja").write_text(HERMES, encoding="utf-8")
    write_modelfile(open_checkpoint(model), folder, "chat-template")
    text = (folder / "Modelfile").read_text(encoding="utf-8")
    assert "Functions are not offered" in text
    assert ".Tools" not in text
    expected = load_tokenizer(model).apply_chat_template(conversation("S"), tokenize=False, add_generation_prompt=True)
    assert rendered(template_of(text), conversation("S")) == expected


@pytest.mark.parametrize(
    ("template", "dialect"), [(NO_SYSTEM, "chat-template"), ("{{ 1/0 }}", "chat-template"), ("", "llama-functions")]
)
def test_what_ollama_cannot_write_goes_in_raw_and_is_said(tmp_path: Path, template: str, dialect: str) -> None:
    model, folder = tiny_model(tmp_path / "model"), folder_of(tmp_path)
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    write_modelfile(open_checkpoint(model), folder, dialect)
    text = (folder / "Modelfile").read_text(encoding="utf-8")
    assert template_of(text) == "{{ .Prompt }}"
    assert "Prompts go in raw" in text
    assert all(line.startswith(("#", "FROM ", "TEMPLATE ", "PARAMETER ")) for line in text.splitlines())


def test_a_file_in_parts_has_no_modelfile(model: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "tiny-00001-of-00002.gguf", "tiny-00002-of-00002.gguf")
    write_modelfile(open_checkpoint(model), folder, "chat-template")
    assert not (folder / "Modelfile").exists()


FRAME = Frame(("<s>A", "B"), "<s>", "\n", " ", '</s>"{{')


def test_the_bos_that_ollama_writes_itself_is_left_out() -> None:
    turns = [{"role": "user", "content": "u"}]
    assert rendered(go_template(FRAME), turns) == "<s>u\n"
    assert rendered(go_template(FRAME, "<s>"), turns) == "u\n"
    assert rendered(go_template(FRAME, "<s>"), conversation("S")).startswith("AS")
    assert rendered(go_template(FRAME), conversation("S")) == FRAME.text("S", TURNS)


def test_a_tool_s_result_is_shown_as_the_user_s() -> None:
    turns = [{"role": role, "content": role[0]} for role in ("user", "assistant", "tool")]
    assert rendered(go_template(FRAME), turns) == '<s>u\n a</s>"{{t\n'


def test_stop_tokens_and_comments_are_quoted() -> None:
    text = modelfile("m.gguf", FRAME, ['a"b\n', "</s>"], ["one\ntwo"])
    assert text.startswith("# one\n# two\nFROM ./m.gguf\n")
    assert [json.loads(each) for each in re.findall("^PARAMETER stop (.*)$", text, re.MULTILINE)] == ['a"b\n', "</s>"]
