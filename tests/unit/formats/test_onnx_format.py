"""Tiny models of every family, through onnxruntime-genai's builder: what comes out is the model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import tiny_model
from onnx_folders import CASES, DATA, Exported, naive_weights
from pydantic import ValidationError

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError, MissingError, StepError
from lf_export.formats import FORMATS, onnx_graph, onnx_verify
from lf_export.formats.onnx import FORMAT
from lf_export.formats.onnx_import import plain_layer
from lf_export.formats.onnx_options import OnnxOptions
from lf_export.formats.onnx_verify import Expected, verify
from lf_export.quant import ort

Cases = Callable[[str], Exported]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model", tokenizer=False)


@pytest.mark.parametrize("name", CASES)
def test_the_graph_is_the_model(exported: Cases, name: str) -> None:
    facts = exported(name).facts
    verified = facts["verified"]
    half = name in {"qwen2-fp16", "gemma3-fp16", "qwen3-cuda"}
    assert verified["deviation"] < (0.02 if half else 1e-4)
    assert verified["greedy_tokens"] == 48
    assert verified["greedy_equal"] >= (46 if half else 48)
    assert verified.get("linears_bit_equal") == (None if facts["scheme"][:2] == "fp" else len(_linears(name)))
    json.dumps(facts)


def _linears(name: str) -> list[str]:
    fused = ["qkv", "o", "gate_up", "down"]
    return 2 * (fused if name.startswith("phi3") else ["q", "k", "v", "o", "gate", "up", "down"])


@pytest.mark.parametrize("name", ["llama3-int4", "qwen2-int4", "phi3-int8"])
def test_the_weights_in_the_graph_are_our_own_bit_for_bit(exported: Cases, name: str) -> None:
    case = exported(name)
    found = naive_weights(case.folder / "model.onnx")
    expected = case.weights
    assert found
    for node, W in found.items():
        stem = node.replace("/", ".").removeprefix(".").replace(".attn.", ".self_attn.").removesuffix(".MatMulNBits")
        parent, _, kind = stem.rpartition(".")
        if kind == "qkv_proj" and stem not in expected:
            reference = torch.cat([expected[f"{parent}.{letter}_proj"] for letter in "qkv"])
        elif stem in expected:
            reference = expected[stem]
        else:
            both = expected[f"{parent}.gate_up_proj"]
            half = both.shape[0] // 2
            reference = both[:half] if kind == "gate_proj" else both[half:]
        np.testing.assert_array_equal(W, reference.numpy(), err_msg=node)


@pytest.mark.parametrize("name", CASES)
def test_the_size_is_known_from_the_shapes(exported: Cases, name: str) -> None:
    case = exported(name)
    size = FORMAT.size(open_checkpoint(case.model), OnnxOptions(**CASES[name][2]))
    assert size == pytest.approx((case.folder / "model.onnx.data").stat().st_size, rel=0.02)


def test_the_folder_holds_the_artifact_and_nothing_of_the_way_to_it(exported: Cases) -> None:
    names = {path.name for path in exported("qwen2-int4").folder.iterdir()}
    assert names == {
        "model.onnx", "model.onnx.data", "genai_config.json", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "LICENSE",
    }  # fmt: skip


def test_a_tied_output_in_float_is_stored_once(exported: Cases) -> None:
    case = exported("llama-fp32")
    parameters = sum(info.nbytes for info in open_checkpoint(case.model).tensors.values())
    cosines_and_sines = 512 * 16 * 4
    assert (case.folder / "model.onnx.data").stat().st_size == parameters + cosines_and_sines


def test_calibrated_errors_are_in_the_facts(exported: Cases) -> None:
    facts = exported("llama3-int4").facts
    assert facts["error"] < facts["rtn_error"]
    assert facts["options"]["method"] == "gptq"
    assert facts["options"]["lm_head"] == "int4"
    assert facts["verified"]["int8_activations"]["kl"] < 0.01


def test_what_was_rounded_to_nearest_needs_no_data_and_claims_no_calibration(exported: Cases) -> None:
    facts = exported("qwen3-cuda").facts
    assert facts["options"]["method"] == "rtn"
    assert "error" not in facts
    assert facts["never_run_on"].startswith("cuda")


@pytest.mark.parametrize(("name", "asked"), [("qwen3-cuda", True), ("qwen2-fp16", False)])
def test_the_config_asks_for_the_provider_that_was_asked_for(exported: Cases, name: str, asked: bool) -> None:
    config = json.loads((exported(name).folder / "genai_config.json").read_text(encoding="utf-8"))
    assert bool(config["model"]["decoder"]["session_options"]["provider_options"]) is asked


def test_a_window_is_written_into_the_graph(exported: Cases) -> None:
    import onnx

    graph = onnx.load(str(exported("mistral-fp32").folder / "model.onnx"), load_external_data=False).graph
    windows = [
        each.i
        for node in graph.node
        for each in node.attribute
        if node.op_type == "GroupQueryAttention" and each.name == "local_window_size"
    ]
    assert windows == [8, 8]


def _expected(case: Exported, **changes: Any) -> Expected:
    checkpoint = open_checkpoint(case.model)
    fields: dict[str, Any] = {
        "checkpoint": checkpoint,
        "layer": lambda prefix: plain_layer(checkpoint, prefix),
        "quantized": None,
        "arithmetic": "fp32",
        "accuracy_level": None,
    }
    return Expected(**(fields | changes))


def test_a_graph_of_other_weights_fails_the_comparison(exported: Cases) -> None:
    case = exported("llama-fp32")
    checkpoint = open_checkpoint(case.model)

    def scaled(prefix: str) -> dict[str, torch.Tensor]:
        return {name: tensor * 1.01 for name, tensor in plain_layer(checkpoint, prefix).items()}

    with pytest.raises(StepError, match=r"logits differ from the model's by 0\.\d+ standard deviations"):
        verify(case.folder / "model.onnx", _expected(case, layer=scaled), 1)


def test_a_graph_with_another_integer_fails_the_comparison(exported: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    case = exported("qwen2-int4")
    nodes = list(onnx_graph.quantized_nodes(case.folder / "model.onnx"))
    first = nodes[0].weight()
    q = first.q.clone()
    q[3, 5] ^= 1
    changed = onnx_graph.Node(nodes[0].name, lambda: onnx_graph.Quantized(q, *_rest(first)))
    monkeypatch.setattr(onnx_graph, "quantized_nodes", lambda _: iter([changed, *nodes[1:]]))

    def stored(name: str) -> Any:
        layer = int(name.split(".")[2])
        kind = name.rsplit(".", 1)[-1]
        unchanged = {node.name: node.weight for node in nodes}
        if kind in {"q_proj", "k_proj", "v_proj"}:
            start, stop = {"q": (0, 64), "k": (64, 96), "v": (96, 128)}[kind[0]]
            return unchanged[f"/model/layers.{layer}/attn/qkv_proj/MatMulNBits"]().rows(start, stop)
        place = "attn" if kind == "o_proj" else "mlp"
        return unchanged[f"/model/layers.{layer}/{place}/{kind}/MatMulNBits"]()

    names = list(onnx_verify.linear_names(open_checkpoint(case.model)))
    with pytest.raises(StepError, match=r"layers\.0/attn/qkv_proj/MatMulNBits does not hold the integers of .*q_proj"):
        onnx_graph.check_imported(case.folder / "model.onnx", stored, names)


def _rest(weight: Any) -> tuple[Any, ...]:
    return weight.scales, weight.zeros, weight.g_idx, weight.bits


def test_a_quantized_graph_is_not_taken_for_one_in_float(exported: Cases) -> None:
    case = exported("qwen2-int4")
    with pytest.raises(StepError, match="is quantized, which was not asked"):
        verify(case.folder / "model.onnx", _expected(case), 1)


def test_the_builders_failure_is_a_failed_step(tiny: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny)  # without a tokenizer the builder cannot write its config
    target = FORMAT.open(checkpoint, tmp_path, OnnxOptions(precision="fp32"), "")
    with pytest.raises(StepError, match=r"builder exited with 1: .*"):
        target.finish()


def test_calibration_that_beats_rounding_nowhere_fails_the_target(tiny: Path, tmp_path: Path) -> None:
    from walk_data import random_data

    from lf_export.walk.stream import walk

    target = FORMAT.open(open_checkpoint(tiny), tmp_path, OnnxOptions(), DATA.digest)
    walk(open_checkpoint(tiny), random_data([1]), [target])
    with pytest.raises(StepError, match="beat rounding to nearest in no linear"):
        target.finish()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gemma3_text"}, "onnx: model_type 'gemma3_text' is not offered"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "onnx: rope_type 'yarn' is not offered"),
        ({"model_type": "phi3", "original_max_position_embeddings": 64}, "LongRoPE"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architecture LlamaForSequenceClassification"),
    ],
)
def test_what_was_not_measured_is_refused_by_name(
    tiny: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    checkpoint = open_checkpoint(tiny)
    checkpoint.config.update(config)
    with pytest.raises(InputError, match=message):
        FORMAT.size(checkpoint, OnnxOptions())
    with pytest.raises(InputError, match=message):
        FORMAT.open(checkpoint, tmp_path, OnnxOptions(), "")
    assert not list(tmp_path.iterdir())


def test_fp32_for_cuda_is_refused_with_what_would_do(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fp32 for cuda is not offered: .* does not load") as caught:
        FORMAT.open(open_checkpoint(tiny), tmp_path, OnnxOptions(precision="fp32", provider="cuda"), "")
    assert caught.value.hint is not None
    assert "fp16-cuda" in caught.value.hint


@pytest.mark.parametrize(
    "options",
    [{"precision": "bf16"}, {"group_size": 48}, {"precision": "fp32", "lm_head": "int8"}, {"accuracy_level": 2}],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OnnxOptions(**options)


@pytest.mark.parametrize(
    "wheels", [("onnxruntime", "onnxruntime_gpu"), ("onnxruntime_genai", "onnxruntime_genai_cuda")], ids=str
)
def test_both_wheels_at_once_are_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: tuple[str, str]
) -> None:
    for wheel in wheels:
        about = tmp_path / "site" / f"{wheel}-1.32.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel}\nVersion: 1.32.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    ort.onnxruntime.cache_clear()
    out = tmp_path / "out"
    out.mkdir()
    first, second = (wheel.replace("_", "-") for wheel in wheels)
    try:
        with pytest.raises(MissingError, match=f"{first} and {second} are both installed") as caught:
            FORMAT.open(open_checkpoint(tiny), out, OnnxOptions(), "")
    finally:
        ort.onnxruntime.cache_clear()
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"pip uninstall --yes {first} {second} && pip install")


def test_no_wheel_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "installed_wheels", lambda *_: [])
    ort.onnxruntime.cache_clear()
    with pytest.raises(MissingError, match="onnxruntime is not installed"):
        ort.onnxruntime()
    ort.onnxruntime.cache_clear()


def test_the_table_has_the_format_under_its_own_name() -> None:
    assert FORMATS["onnx"] is FORMAT
    assert FORMAT.schemes["int4-cpu"] == {"precision": "int4", "provider": "cpu"}
