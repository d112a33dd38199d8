"""The part of a card about running an artifact: a command for each runtime of its format."""

import ast
import re
import shlex
from typing import Any

import pytest

from lf_export.report.serve import serving

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def made(kind: str, dialect: str = "chat-template", *files: str, **options: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "options": options,
        "calibration": {"dialect": dialect},
        "files": {file: {} for file in files},
    }


def page(name: str, manifest: dict[str, Any]) -> str:
    return "\n".join(serving(name, manifest))


def titles(text: str) -> list[str]:
    return re.findall("^### (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_safetensors_are_served_by_three(kind: str) -> None:
    text = page("four", made(kind, bits=4))
    assert titles(text) == ["Transformers", "vLLM", "SGLang"]
    assert "vllm serve . --served-model-name four --port 8000" in text
    assert "python -m sglang.launch_server --model-path . --served-model-name four" in text
    assert "Its kernels are for 4 and 8 bits" not in text
    assert ("Its kernels are for 4 and 8 bits" in page("x", made(kind, bits=3.5))) is True


def test_a_gguf_is_served_by_llama_cpp_and_ollama() -> None:
    text = page("q8", made("gguf", "chat-template", "imatrix.gguf", "a b-Q8_0.gguf", "Modelfile"))
    assert titles(text) == ["llama.cpp", "Ollama"]
    assert "llama-server --model 'a b-Q8_0.gguf' --alias q8 --jinja --port 8080" in text
    assert "ollama create q8 -f Modelfile\nollama run q8" in text


def test_a_gguf_in_parts_is_not_offered_to_ollama() -> None:
    text = page("q8", made("gguf", "chat-template", "m-00002-of-00002.gguf", "m-00001-of-00002.gguf"))
    assert "--model m-00001-of-00002.gguf" in text
    assert "ollama create" not in text
    assert "llama-gguf-split --merge" in text


def test_onnx_is_served_by_both_of_its_runtimes() -> None:
    assert titles(page("o", made("onnx", provider="cpu"))) == ["ONNX Runtime GenAI", "ONNX Runtime"]
    assert "onnxruntime-genai-cuda" in page("o", made("onnx", provider="cuda"))
    assert "No graph for cuda was ever run" in page("o", made("onnx", provider="cuda"))


def test_a_model_of_another_dialect_is_asked_for_completions() -> None:
    for kind in ("gptq", "gguf", "onnx"):
        text = page("x", made(kind, "llama-functions", "m.gguf"))
        assert "/v1/completions" in text
        assert "apply_chat_template" not in text
        assert "--jinja" not in text


@pytest.mark.parametrize("kind", ["gptq", "awq", "gguf", "onnx"])
@pytest.mark.parametrize("dialect", ["chat-template", "llama-functions"])
def test_every_block_is_code(kind: str, dialect: str) -> None:
    blocks = _BLOCK.findall(page("x", made(kind, dialect, "m.gguf", "Modelfile")))
    assert len(blocks) >= 2
    for language, code in blocks:
        if language == "python":
            ast.parse(code)
        else:
            assert all(shlex.split(line) for line in code.splitlines())


def test_what_is_no_artifact_of_a_format_has_no_commands() -> None:
    assert serving("x", made("merged")) == []
