"""Graphs by torch's dynamo exporter: the same folder, in standard operators alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import tiny_model
from onnx_folders import Exported

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError, MissingError, StepError
from lf_export.formats import onnx_rules
from lf_export.formats.onnx import FORMAT
from lf_export.formats.onnx_options import OnnxOptions
from lf_export.formats.onnx_rules import exporter_for
from lf_export.quant.ort import open_graph
from lf_export.runtimes import runtime

Cases = Callable[[str], Exported]
EXPORTED = ("gemma3-fp16", "mistral-dynamo")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def _graph(folder: Path) -> Any:
    import onnx

    return onnx.load(str(folder / "model.onnx"), load_external_data=False)


@pytest.mark.parametrize("name", EXPORTED)
def test_the_graph_has_standard_operators_of_opset_23_alone(exported: Cases, name: str) -> None:
    model = _graph(exported(name).folder)
    assert {(each.domain, each.version) for each in model.opset_import} == {("", 23)}
    kinds = [node.op_type for node in model.graph.node]
    assert {node.domain for node in model.graph.node} == {""}
    assert kinds.count("Attention") == (6 if name.startswith("gemma3") else 2)  # one for each layer


@pytest.mark.parametrize("name", EXPORTED)
def test_the_folder_holds_what_a_built_one_holds(exported: Cases, name: str) -> None:
    names = {path.name for path in exported(name).folder.iterdir()}
    assert names == {path.name for path in exported("qwen2-fp16").folder.iterdir()}
    assert exported(name).facts["options"]["exporter"] == "dynamo"
    assert exported("qwen2-fp16").facts["options"]["exporter"] == "builder"


@pytest.mark.parametrize("name", EXPORTED)
def test_inputs_and_outputs_are_named_as_the_builder_names_them(exported: Cases, name: str) -> None:
    session, built = (open_graph(exported(each).folder / "model.onnx", 1) for each in (name, "llama-fp32"))
    layers = json.loads((exported(name).model / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    names = {each.name for each in [*session.get_inputs(), *session.get_outputs()]}
    theirs = {each.name for each in [*built.get_inputs(), *built.get_outputs()]}
    assert names - {"position_ids"} >= theirs
    assert sum(each.startswith("present.") for each in names) == 2 * layers
    wanted = "tensor(float16)" if name.endswith("fp16") else "tensor(float)"
    assert {each.type for each in session.get_outputs()} == {wanted}


def test_an_fp16_graph_computes_on_the_cpu_and_its_logits_are_the_models(exported: Cases) -> None:
    case = exported("gemma3-fp16")
    assert open_graph(case.folder / "model.onnx", 1).get_providers() == ["CPUExecutionProvider"]
    ids = list(range(5, 60))  # longer than the window
    (found,) = runtime("onnx").open_session(case.folder, 1).score([], [ids], [1])
    (expected,) = runtime("torch").open_session(case.model, 1).score([], [ids], [1])
    assert np.abs(found - expected).max() < 0.02 * expected.std()  # fp16 has three digits


def test_a_window_is_in_the_graph(exported: Cases, tmp_path: Path) -> None:
    case = exported("mistral-dynamo")
    ids = list(range(5, 60))
    (found,) = runtime("onnx").open_session(case.folder, 1).score([], [ids], [1])
    model = Path(shutil.copytree(case.model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"sliding_window": None}), encoding="utf-8")
    (without,) = runtime("torch").open_session(model, 1).score([], [ids], [1])
    np.testing.assert_allclose(found[:7], without[:7], atol=2e-5)
    assert np.abs(found[8:] - without[8:]).max() > 0.1


@pytest.mark.parametrize(
    ("model_type", "precision", "wanted", "found"),
    [
        ("llama", "fp32", "auto", "builder"),
        ("llama", "int4", "auto", "builder"),
        ("llama", "fp16", "dynamo", "dynamo"),
        ("gemma3_text", "fp16", "auto", "dynamo"),
        ("gemma3_text", "fp32", "dynamo", "dynamo"),
    ],
)
def test_the_builder_is_asked_where_it_serves(model_type: str, precision: str, wanted: Any, found: str) -> None:
    assert exporter_for({"model_type": model_type}, precision, "cpu", wanted) == found


@pytest.mark.parametrize(
    ("model_type", "options", "message"),
    [
        (
            "gemma3_text",
            ("int4", "cpu", "auto"),
            "is not offered for int4-cpu, expected one of fp32-cpu, fp16-cpu",
        ),
        ("gemma3_text", ("fp16", "cuda", "auto"), "model_type 'gemma3_text' is not offered for fp16-cuda"),
        ("gemma3_text", ("fp32", "cpu", "builder"), "model_type 'gemma3_text' is not offered, expected one of llama"),
        ("llama", ("int4", "cpu", "dynamo"), "the dynamo exporter is not offered for int4-cpu"),
        ("llama", ("fp16", "cuda", "dynamo"), "the dynamo exporter is not offered for fp16-cuda"),
        ("mixtral", ("fp32", "cpu", "auto"), "model_type 'mixtral' is not offered"),
    ],
)
def test_what_neither_does_right_is_refused_by_name(
    model_type: str, options: tuple[str, str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        exporter_for({"model_type": model_type}, *options)


def test_a_rope_of_one_kind_of_layer_that_was_not_measured_is_refused() -> None:
    rope = {"full_attention": {"rope_type": "yarn"}, "sliding_attention": {"rope_type": "default"}}
    with pytest.raises(InputError, match="rope_type 'yarn' is not offered, expected one of default, llama3, linear"):
        exporter_for({"model_type": "gemma3_text", "rope_parameters": rope}, "fp32", "cpu", "auto")


def test_a_model_without_an_end_token_is_refused_before_it_is_exported(tiny: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny, tmp_path / "model"))
    for name in ("config.json", "generation_config.json"):
        fields = json.loads((model / name).read_text(encoding="utf-8"))
        (model / name).write_text(json.dumps(fields | {"eos_token_id": None}), encoding="utf-8")
    with pytest.raises(InputError, match="names an end token"):
        FORMAT.open(open_checkpoint(model), tmp_path, OnnxOptions(precision="fp32", exporter="dynamo"), "")


def test_the_exporters_failure_is_a_failed_step(tiny: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny, tmp_path / "model"))
    (tmp_path / "out").mkdir()
    target = FORMAT.open(open_checkpoint(model), tmp_path / "out", OnnxOptions(precision="fp32", exporter="dynamo"), "")
    (model / "model.safetensors").unlink()
    with pytest.raises(StepError, match=r"torch's dynamo exporter exited with 1: .*"):
        target.finish()


def test_the_exporter_needs_no_genai_and_the_builder_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_rules.util, "find_spec", lambda name: None if name == "onnxruntime_genai" else object())
    onnx_rules.check_packages("dynamo")
    with pytest.raises(MissingError, match="not installed: onnxruntime_genai"):
        onnx_rules.check_packages("builder")
