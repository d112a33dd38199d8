"""What an artifact's card says about running it is done as it stands there, where the runtime can run."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from llama_server import llama_server

from lf_export.provenance import read_manifest

Run = Callable[..., Any]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


TARGETS = {
    "gptq": {"format": "gptq", "bits": 4, "group_size": 32},
    "gguf": {"format": "gguf", "type": "Q8_0"},
    "onnx": {"format": "onnx", "precision": "fp32"},
}


@pytest.fixture
def make(lf_export: Run, recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Make artifacts by name; gives the run's folder."""

    def run(*names: str) -> Path:
        ended = lf_export("run", recipe(quantize={name: TARGETS[name] for name in names}, bench=None))
        assert ended.status == 0, ended.err
        return tmp_path / "run"

    return run


def blocks(folder: Path) -> list[str]:
    card = (folder / "README.md").read_text(encoding="utf-8")
    return [code for language, code in _BLOCK.findall(card) if language == "python"]


def test_the_commands_of_the_cards_run_as_they_stand(make: Callable[..., Path]) -> None:
    made = make("gptq", "onnx")
    environment = os.environ | {"GPTQMODEL_CPU_WORKERS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    answers = []
    for name, count in (("gptq", 1), ("onnx", 2)):
        codes = blocks(made / name)
        assert len(codes) == count
        for code in codes:
            # a tiny model never ends its answer by itself, and has room for 512 tokens
            short = code.replace("192", "4")
            done = subprocess.run(
                [sys.executable, "-c", short],
                cwd=made / name,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            answers.append(done.stdout.strip())
    assert all(answers)
    assert "past_key_values.0.key" in answers[2]


def test_the_file_that_the_card_names_is_served_with_its_own_template(make: Callable[..., Path]) -> None:
    folder = make("gguf") / "gguf"
    card = (folder / "README.md").read_text(encoding="utf-8")
    (file,) = re.findall(r"llama-server --model (\S+) --alias gguf --jinja", card)
    with llama_server(folder / file) as url:
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}
        request = Request(f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - loopback
        with urlopen(request) as answer:  # noqa: S310 - loopback
            assert json.load(answer)["usage"]["completion_tokens"] == 4
    manifest = read_manifest(folder)
    assert manifest is not None
    assert {"Modelfile", file} <= manifest["files"].keys()
    page = (Path(__file__).parents[2] / "docs" / "reference" / "manifest.md").read_text(encoding="utf-8")
    assert manifest.keys() <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    modelfile = (folder / "Modelfile").read_text(encoding="utf-8")
    assert re.findall(r"^FROM \./(.+)$", modelfile, re.MULTILINE) == [file]
    assert "<|im_start|>assistant" in modelfile
