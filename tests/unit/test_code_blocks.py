"""Every fenced block of the pages is code that holds: Python, recipes, rows of data, shell."""

import ast
import importlib
import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import lf_export
from lf_export.calibration.samples import load_samples
from lf_export.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
# Blocks of `text` are what programs print, and trees: test_docs.py holds quoted errors against the code.
LANGUAGES = {"console", "json", "python", "sh", "text", "yaml"}
# A recipe's part is put into this one.
WHOLE = {
    "name": "whole",
    "base": {"path": "base"},
    "adapters": ["adapter"],
    "output": "runs/whole",
    "quantize": {"gptq-4bit": {"format": "gptq", "bits": 4}},
}
_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def _blocks(*languages: str) -> list[Any]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for each in _FENCE.finditer(text):
            name = f"{page.relative_to(ROOT)}:{text[: each.start()].count(chr(10)) + 1}"
            if each[2] in languages or not languages:
                found.append(pytest.param(each[3] if languages else each[2], id=name))
    return found


def test_every_block_says_its_language() -> None:
    assert {each.id: each.values for each in _blocks() if each.values[0] not in LANGUAGES} == {}


@pytest.mark.parametrize("block", _blocks("python"))
def test_python_is_code_whose_names_are_ours(block: str) -> None:
    tree = ast.parse(block)
    compile(block, "block", "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lf_export"):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lf_export":
            assert node.attr in lf_export.__all__
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"lf_export.{name}" for name in lf_export.__all__}:
            function = getattr(lf_export, ast.unparse(node.func).removeprefix("lf_export."))
            inspect.signature(function).bind(*node.args, **{str(each.arg): each.value for each in node.keywords})


def test_the_prompt_of_the_page_on_serving_is_made_as_it_says() -> None:
    page = (ROOT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    (block,) = [found[3] for found in _FENCE.finditer(page) if found[2] == "python"]
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 - our own page
    assert names["prompt"].startswith("[INST]")
    assert "<<API>>" in names["prompt"]


@pytest.mark.parametrize("block", _blocks("yaml"))
def test_yaml_is_a_recipe_or_a_part_of_one(block: str, tmp_path: Path) -> None:
    part = yaml.safe_load(block)
    assert isinstance(part, dict)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**WHOLE, **part}), encoding="utf-8")
    load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("block", _blocks("json"))
def test_json_is_a_row_that_calibrates(block: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(json.loads(block)) + "\n", encoding="utf-8")
    assert len(load_samples(tmp_path / "rows.jsonl")) == 1


@pytest.mark.parametrize("block", _blocks("sh", "console"))
def test_shell_parses(block: str) -> None:
    typed = "".join(re.sub(r"^\$ ", "", line) for line in block.splitlines(keepends=True) if "$ " in line[:2]) or block
    done = subprocess.run(["bash", "-n", "-c", typed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
