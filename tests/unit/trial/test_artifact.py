"""Artifacts speak the dialect of their manifest, render as the model's folder does, and come back when they died."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from conversations import ENDING
from models import tiny_model

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError, MissingError, StepError
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.functions.answers import read_answer
from lf_export.functions.dialects import dialect_for, text_of
from lf_export.functions.grammars import call_grammar
from lf_export.functions.spec import FunctionSpec
from lf_export.runtimes.guides import Guide
from lf_export.trial import open_artifacts
from lf_export.trial.template import GgufTemplate, rendering_tokenizer

SPEC = FunctionSpec("get_x", "", {"type": "object", "properties": {}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("trial") / "tiny")


@pytest.fixture(scope="module")
def gguf(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf")
    FORMAT.open(open_checkpoint(folder), out, GgufOptions(types=("F32",), name="m"), "digest").finish()
    manifest = {"schema": 1, "kind": "gguf", "calibration": {"dialect": "chat-template"}}
    (out / "lf-export.json").write_text(json.dumps(manifest), encoding="utf-8")
    return out


def test_a_gguf_renders_as_the_folder_it_was_made_from(folder: Path, gguf: Path) -> None:
    messages = [{"role": "user", "content": "What is <it>?"}]
    (file,) = gguf.glob("*.gguf")
    rendered = {
        text_of(dialect_for("chat-template", rendering_tokenizer(path)).render(messages, [SPEC], generate=True))
        for path in (folder, gguf, file)
    }
    (text,) = rendered
    assert text.endswith("What is <it>?<|im_end|>\n<|im_start|>assistant\n")


def test_an_artifact_streams_in_its_own_runtime_and_comes_back_when_its_child_died(gguf: Path, tmp_path: Path) -> None:
    (artifact,), dialect = open_artifacts([gguf], dialect=None, runtimes=[None], threads=1, workdir=tmp_path)
    try:
        assert (artifact.runtime, artifact.representative, dialect.name) == ("llamacpp", True, "chat-template")
        *_, first = artifact.stream("What is it?", 6)
        os.kill(artifact.session._process.pid, signal.SIGKILL)
        with pytest.raises(StepError, match="SIGKILL"):
            list(artifact.stream("What is it?", 6))
        *_, again = artifact.stream("What is it?", 6)
        assert again.ids == first.ids
        *_, held = artifact.stream("What is it?", 96, Guide(call_grammar(ENDING), "call"))
        assert artifact.guided == "llama.cpp"
        assert read_answer(held.text).kind == "call"
        with pytest.raises(InputError, match="context of 512"):
            list(artifact.stream("x" * 2000, 6))
        process = artifact.session._process
    finally:
        artifact.close()
    assert process.poll() is not None
    assert list(tmp_path.iterdir()) == []


def test_the_dialect_is_the_manifests_unless_another_is_asked_for(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lf_export.trial.artifact.Artifact", lambda *_: None)
    shutil.copytree(gguf, tmp_path / "other")
    manifest = {"schema": 1, "kind": "gguf", "calibration": {"dialect": "llama-functions"}}
    (tmp_path / "other" / "lf-export.json").write_text(json.dumps(manifest), encoding="utf-8")

    def spoken(*paths: Path, dialect: str | None = None) -> str:
        count = len(paths)
        return open_artifacts(paths, dialect=dialect, runtimes=[None] * count, threads=1, workdir=tmp_path)[1].name

    assert spoken(gguf) == "chat-template"
    # a tokenizer without <s> cannot speak it, which says that the manifest was heard
    with pytest.raises(InputError, match="the dialect llama-functions needs: <s>"):
        spoken(tmp_path / "other")
    assert spoken(tmp_path / "other", dialect="chat-template") == "chat-template"
    with pytest.raises(InputError, match="no dialect is named 'x'"):
        spoken(gguf, dialect="x")


def test_what_cannot_be_tried_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nothing: no such artifact"):
        open_artifacts([tmp_path / "nothing"], dialect=None, runtimes=[None], threads=1, workdir=tmp_path)
    with pytest.raises(InputError, match="no tokenizer there"):
        rendering_tokenizer(tmp_path)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 60)
    with pytest.raises(InputError, match="no tokenizer can be read"):
        GgufTemplate(tmp_path / "broken.gguf")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingError, match="gguf is not installed"):
        GgufTemplate(tmp_path / "broken.gguf")
    assert folder.is_dir()
