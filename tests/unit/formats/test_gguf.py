import json
from pathlib import Path
from typing import Any

import gguf
import gguf_folders
import models
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.errors import InputError, MissingError, StepError
from lf_export.formats import gguf_arch, gguf_gemma, gguf_phi
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.formats.gguf_writer import interleave


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_model(tmp_path_factory.mktemp("gguf") / "tiny", tie_word_embeddings=False)


def write(model: Path, out: Path, *types: str, walk: bool = False, **options: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    checkpoint = open_checkpoint(model)
    target = FORMAT.open(checkpoint, out, GgufOptions(types=types, **options), "abc")
    if walk:
        for view in gguf_folders.layer_views(checkpoint):
            target.layer(view)
    return target.finish()


def altered(model: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the model with tensors replaced, or removed by None, and `config` updated."""
    folder.mkdir()
    config = json.loads((model / "config.json").read_text(encoding="utf-8")) | changes.pop("config", {})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())
    tensors = load_file(model / "model.safetensors")
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_the_metadata_says_what_llama_cpp_reads(model: Path, tmp_path: Path) -> None:
    write(model, tmp_path, "Q8_0", name="My Model", licence="apache-2.0")
    fields = gguf_folders.fields_of(tmp_path / "My Model-Q8_0.gguf")
    assert fields["general.architecture"] == "llama"
    assert fields["general.name"] == "My Model"
    assert fields["general.license"] == "apache-2.0"
    assert fields["general.file_type"] == 7
    assert fields["general.quantization_version"] == 2
    assert fields["llama.block_count"] == 2
    assert fields["llama.attention.head_count_kv"] == 2
    assert fields["llama.rope.dimension_count"] == 16
    assert fields["llama.vocab_size"] == 320
    assert fields["tokenizer.ggml.pre"] == "smollm"
    assert fields["tokenizer.ggml.eos_token_id"] == 2
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.chat_template"] == models.CHATML


def test_tensors_come_layer_by_layer_between_embeddings_and_output(model: Path, tmp_path: Path) -> None:
    write(model, tmp_path, "F16")
    names = list(gguf_folders.tensors_of(tmp_path / "tiny-F16.gguf"))
    layers = [name.split(".")[1] for name in names if name.startswith("blk.")]
    assert names[0] == "token_embd.weight"
    assert layers == ["0"] * 9 + ["1"] * 9
    assert set(names[-2:]) == {"output_norm.weight", "output.weight"}


def test_q_and_k_are_interleaved_for_llama_alone(model: Path, tmp_path: Path) -> None:
    write(model, tmp_path / "llama", "F32")
    source = load_file(model / "model.safetensors")
    files = gguf_folders.tensors_of(tmp_path / "llama" / "tiny-F32.gguf")
    for part, letter in (("q", "q"), ("k", "k"), ("v", "v")):
        theirs = source[f"model.layers.1.self_attn.{letter}_proj.weight"]
        expected = theirs if part == "v" else interleave(theirs, 16)
        assert np.array_equal(files[f"blk.1.attn_{part}.weight"][1], expected.numpy())
    qwen = models.tiny_model(tmp_path / "qwen", "qwen2")
    write(qwen, tmp_path / "out", "F32")
    files = gguf_folders.tensors_of(tmp_path / "out" / "qwen-F32.gguf")
    theirs = load_file(qwen / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    assert np.array_equal(files["blk.0.attn_q.weight"][1], theirs.numpy())


def test_interleaving_puts_the_halves_of_a_head_side_by_side() -> None:
    rows = torch.arange(8).reshape(8, 1)
    assert interleave(rows, 4).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_two_threads_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    folder = gguf_folders.arithmetic_folder(tmp_path / "m", "fallback")
    types = ("F16", "Q8_0", "Q4_K_M")
    write(folder, tmp_path / "one", *types, walk=True, threads=1)
    write(folder, tmp_path / "two", *types, walk=True, threads=2)
    for name in ("m-F16.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "imatrix.gguf"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_blocks_of_rows_give_the_bytes_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = gguf_folders.arithmetic_folder(tmp_path / "m", "fallback")
    write(folder, tmp_path / "whole", "F32", "Q5_K_M", method="rtn")
    monkeypatch.setattr("lf_export.formats.gguf_writer._BLOCK", 96 * 40)  # 40 rows; 2 heads of 16 where heads count
    write(folder, tmp_path / "blocks", "F32", "Q5_K_M", method="rtn")
    for name in ("m-F32.gguf", "m-Q5_K_M.gguf"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "blocks" / name).read_bytes()


def test_several_types_share_one_importance_matrix(tmp_path: Path) -> None:
    folder = gguf_folders.arithmetic_folder(tmp_path / "m", "fallback")
    facts = write(folder, tmp_path / "out", "Q8_0", "Q4_K_M", "Q6_K", walk=True)
    assert facts["imatrix"] == {"file": "imatrix.gguf", "entries": 7 * gguf_folders.LAYERS}
    assert {name: file["imatrix"] for name, file in facts["files"].items()} == {
        "m-Q8_0.gguf": False,
        "m-Q4_K_M.gguf": True,
        "m-Q6_K.gguf": True,
    }
    write(folder, tmp_path / "alone", "Q4_K_M", walk=True)
    assert (tmp_path / "out/m-Q4_K_M.gguf").read_bytes() == (tmp_path / "alone/m-Q4_K_M.gguf").read_bytes()


def test_the_importance_matrix_is_the_diagonal_of_the_moments(tmp_path: Path) -> None:
    folder = gguf_folders.arithmetic_folder(tmp_path / "m", "fallback")
    write(folder, tmp_path / "out", "Q4_K_M", walk=True)
    path = tmp_path / "out/imatrix.gguf"
    fields, tensors = gguf_folders.fields_of(path), gguf_folders.tensors_of(path)
    assert fields["general.type"] == "imatrix"
    assert fields["imatrix.datasets"] == ["lf-export calibration abc"]
    assert "general.architecture" not in fields
    view = gguf_folders.layer_views(open_checkpoint(folder))[3]
    expected = view.moments["mlp.down_proj"].upper.diagonal().numpy()
    assert np.array_equal(tensors["blk.3.ffn_down.weight.in_sum2"][1], expected.reshape(1, -1))
    assert tensors["blk.3.ffn_down.weight.counts"][1].tolist() == [[7.0]]


def test_the_importance_matrix_brings_the_weighted_error_down(tmp_path: Path) -> None:
    folder = gguf_folders.arithmetic_folder(tmp_path / "m", "divisible")
    write(folder, tmp_path / "with", "F32", "Q4_K_M", walk=True)
    write(folder, tmp_path / "without", "Q4_K_M", method="rtn")
    view = gguf_folders.layer_views(open_checkpoint(folder))[4]
    importance = view.moments["mlp.up_proj"].importance().numpy()
    exact = gguf_folders.tensors_of(tmp_path / "with/m-F32.gguf")["blk.4.ffn_up.weight"][1]
    errors = []
    for kind in ("with", "without"):
        data = gguf_folders.tensors_of(tmp_path / kind / "m-Q4_K_M.gguf")["blk.4.ffn_up.weight"][1]
        back = gguf.quants.dequantize(data, gguf.GGMLQuantizationType.Q4_K)
        errors.append(float((np.square(back - exact) * importance).sum()))
    assert errors[0] < 0.95 * errors[1]


def test_calibration_is_asked_for_only_where_it_changes_something(model: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(model)
    for types, method, needed in (
        (("F16", "Q8_0"), "gptq", False),
        (("Q8_0", "Q4_K_M"), "gptq", True),
        (("Q8_0", "Q4_K_M"), "imatrix", True),
        (("Q4_K_M",), "rtn", False),
    ):
        out = tmp_path / f"{types}{method}"
        out.mkdir()
        target = FORMAT.open(checkpoint, out, GgufOptions(types=types, method=method), "abc")
        assert target.needs_moments is needed


def test_an_importance_matrix_without_a_calibration_pass_is_an_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"did not reach blk\.0"):
        write(model, tmp_path, "Q4_K_M")


@pytest.mark.parametrize("types", [("F16",), ("Q8_0", "Q4_K_M")])
def test_the_size_is_known_from_shapes_alone(model: Path, tmp_path: Path, types: tuple[str, ...]) -> None:
    options = GgufOptions(types=types, method="rtn")
    FORMAT.open(open_checkpoint(model), tmp_path, options, "abc").finish()
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    # The vocabulary is guessed from tokenizer.json, the tensors are exact.
    assert FORMAT.size(open_checkpoint(model), options) == pytest.approx(written, rel=0.1)


@pytest.mark.parametrize("scheme", ["F16", "Q8_0"])
def test_weights_that_are_not_finite_are_refused(model: Path, tmp_path: Path, scheme: str) -> None:
    bad = load_file(model / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    bad[3, 5] = float("nan")
    folder = altered(model, tmp_path / "bad", **{"model.layers.1.mlp.up_proj.weight": bad})
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        write(folder, tmp_path / "out", scheme)


def test_weights_beyond_half_precision_are_refused_for_f16_alone(model: Path, tmp_path: Path) -> None:
    bad = load_file(model / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    bad[3, 5] = 70000.0
    folder = altered(model, tmp_path / "bad", **{"model.layers.1.mlp.up_proj.weight": bad})
    with pytest.raises(InputError, match="beyond 65504, which F16 cannot hold"):
        write(folder, tmp_path / "out", "F16")
    write(folder, tmp_path / "bf16", "BF16")


def test_missing_and_unknown_tensors_are_named_together(model: Path, tmp_path: Path) -> None:
    changes = {"model.layers.0.mlp.up_proj.weight": None, "lm_head.weight": None, "model.strange": torch.ones(3)}
    folder = altered(model, tmp_path / "bad", **changes)
    with pytest.raises(InputError) as caught:
        write(folder, tmp_path / "out", "F16")
    for part in ("blk.0.ffn_up.weight is missing", "output.weight is missing", "model.strange has no place"):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "cannot be written for the architecture MambaForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', llama.cpp computes silu"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "'longrope' cannot be written"),
        ({"partial_rotary_factor": 0.5}, "llama.cpp rotates whole heads"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    model: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write(altered(model, tmp_path / "bad", config=config), tmp_path / "out", "F16")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"query_pre_attn_scalar": 32}, "query_pre_attn_scalar is 32, llama.cpp takes 16"),
        ({"hidden_activation": "silu"}, "hidden_activation is 'silu', llama.cpp computes gelu_pytorch_tanh"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0, llama.cpp has none"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types follow no period"),
    ],
)
def test_what_llama_cpp_computes_otherwise_for_gemma_is_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    gemma = models.tiny_model(tmp_path / "gemma", "gemma3_text", query_pre_attn_scalar=16)
    write(gemma, tmp_path / "right", "F16")
    with pytest.raises(InputError, match=message):
        write(altered(gemma, tmp_path / "bad", config=config), tmp_path / "out", "F16")


def test_a_config_of_gemma_in_the_older_form_says_the_same() -> None:
    older = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    newer = {
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        },
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2,
    }
    for sliding in (True, False):
        found = [gguf_gemma.rope_parameters(config, sliding=sliding) for config in (older, newer)]
        assert found[0] == found[1]
    assert gguf_gemma.period(older) == gguf_gemma.period(newer) == 6


def phi_config(**changes: Any) -> dict[str, Any]:
    rope = {"rope_type": "longrope", "long_factor": [2.0] * 6, "short_factor": [1.0] * 6, "partial_rotary_factor": 0.75}
    config = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 4096, "rope_parameters": rope}
    return config | {"model_type": "phi3", "original_max_position_embeddings": 128} | changes


def test_both_forms_of_the_longrope_config_say_the_same() -> None:
    newer = phi_config()
    rope = {key: value for key, value in newer["rope_parameters"].items() if key.endswith("_factor")}
    older = phi_config(rope_parameters=None, rope_scaling=rope | {"type": "su"}, partial_rotary_factor=0.75)
    for config in (newer, older):
        assert gguf_phi.problems(config, 16) == []
        assert gguf_phi.rotated(config, 16) == 12
        assert {name: values.tolist() for name, values in gguf_phi.factors(config).items()} == {
            "rope_factors_long.weight": [2.0] * 6,
            "rope_factors_short.weight": [1.0] * 6,
        }
        assert gguf_arch.window_notes(config)[0].startswith("llama.cpp takes the long rotary factors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"hidden_size": 96}, "4 heads of 16 are not hidden_size 96"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "the rotary embedding 'yarn' cannot be written"),
        (
            {"rope_parameters": {"rope_type": "longrope", "long_factor": [1.0] * 8}},
            "short_factor has 0 factors, expected 8",
        ),
    ],
)
def test_a_phi3_that_llama_cpp_computes_otherwise_is_refused(changes: dict[str, Any], message: str) -> None:
    (problem,) = gguf_phi.problems(phi_config(**changes), 16)
    assert message in problem


def test_fused_linears_of_phi3_have_their_places(tmp_path: Path) -> None:
    folder = models.tiny_model(tmp_path / "phi", "phi3", tie_word_embeddings=False)
    write(folder, tmp_path / "out", "F32")
    tensors = gguf_folders.tensors_of(tmp_path / "out/phi-F32.gguf")
    source = load_file(folder / "model.safetensors")
    for ours, theirs in (("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")):
        expected = source[f"model.layers.1.{theirs}.weight"].numpy()
        assert np.array_equal(tensors[f"blk.1.{ours}.weight"][1], expected)
    assert not [name for name in tensors if "attn_q." in name or "ffn_gate" in name]


def test_a_type_that_needs_an_importance_matrix_is_refused_without_calibration() -> None:
    with pytest.raises(ValidationError, match="makes IQ2_XS, Q2_K_S with an importance matrix only, method is rtn"):
        GgufOptions(types=("IQ2_XS", "Q4_0", "Q2_K_S"), method="rtn")


def test_unknown_types_and_types_named_twice_are_refused() -> None:
    with pytest.raises(ValidationError, match="unknown GGUF types Q4_K_XL; known are F32"):
        GgufOptions(types=("Q4_K_XL",))
    with pytest.raises(ValidationError, match="named twice"):
        GgufOptions(types=("F16", "F16"))


def test_without_the_gguf_package_the_install_command_is_shown(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(gguf_arch.importlib, "import_module", missing)
    with pytest.raises(MissingError) as caught:
        write(model, tmp_path, "F16")
    assert caught.value.hint == "pip install 'lf-export[gguf]'"


def test_a_checkpoint_of_several_shards_gives_the_same_file(model: Path, tmp_path: Path) -> None:
    sharded = models.tiny_model(tmp_path / "tiny", tie_word_embeddings=False, shard_size="60KB")
    assert len(open_checkpoint(sharded).shards) > 1
    write(sharded, tmp_path / "sharded", "Q8_0")
    write(model, tmp_path / "single", "Q8_0")
    assert (tmp_path / "sharded/tiny-Q8_0.gguf").read_bytes() == (tmp_path / "single/tiny-Q8_0.gguf").read_bytes()


def test_memory_holds_blocks_not_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lf_export.formats import gguf_writer

    largest = 0
    read = gguf_writer.read

    def measured(info: Any, dtype: Any, rows: slice) -> torch.Tensor:
        nonlocal largest
        tensor = read(info, dtype, rows)
        largest = max(largest, tensor.numel())
        return tensor

    monkeypatch.setattr(gguf_writer, "read", measured)
    monkeypatch.setattr(gguf_writer, "_BLOCK", 96 * 32)
    folder = gguf_folders.arithmetic_folder(tmp_path / "m", "fallback")
    write(folder, tmp_path / "out", "Q8_0")
    assert largest <= 96 * 32


def test_a_sliding_window_that_llama_cpp_does_not_have_is_noted(model: Path, tmp_path: Path) -> None:
    assert write(model, tmp_path / "none", "Q8_0")["notes"] == []
    folder = altered(model, tmp_path / "window", config={"sliding_window": 128})
    (note,) = write(folder, tmp_path / "out", "Q8_0")["notes"]
    assert note.startswith("beyond 128 tokens")


def test_the_size_of_a_model_without_a_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    folder = altered(model, tmp_path / "bad")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        FORMAT.size(open_checkpoint(folder), GgufOptions())


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_target_that_is_abandoned_leaves_no_file_open(model: Path, tmp_path: Path) -> None:
    before = open_files()
    checkpoint: Checkpoint = open_checkpoint(model)
    target = FORMAT.open(checkpoint, tmp_path, GgufOptions(types=("F16", "Q8_0")), "abc")
    target.layer(gguf_folders.layer_views(checkpoint)[0])
    assert open_files() == before
