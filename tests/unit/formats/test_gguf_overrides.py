"""Tensors that deviate: which type and method each takes, what is refused, and what the manifest says."""

from pathlib import Path
from typing import Any

import gguf_folders
import models
import numpy as np
import pytest
from pydantic import ValidationError

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.formats.gguf_arch import plan_tensors
from lf_export.formats.gguf_plan import plan_file
from lf_export.formats.gguf_types import SCHEMES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overrides") / "m"
    return models.tiny_model(folder, intermediate_size=256, tie_word_embeddings=False)


def found(model: Path, overrides: Any, scheme: str = "Q4_0", method: Any = "gptq") -> dict[str, tuple[str, str | None]]:
    checkpoint = open_checkpoint(model)
    options = GgufOptions(overrides=overrides)
    planned = plan_file(plan_tensors(checkpoint), SCHEMES[scheme], checkpoint, method, options.overrides)
    return {each.tensor.name.removesuffix(".weight"): (each.kind.name, each.method) for each in planned}


def test_the_last_pattern_that_matches_wins_key_by_key(model: Path) -> None:
    overrides = {"*.ffn_*": {"type": "Q5_1", "method": "imatrix"}, "blk.1.*": {"type": "Q8_0"}}
    planned = found(model, overrides)
    assert planned["blk.0.ffn_up"] == ("Q5_1", "imatrix")
    assert planned["blk.1.ffn_up"] == ("Q8_0", "imatrix")
    assert planned["blk.1.attn_q"] == ("Q8_0", "gptq")
    assert planned["blk.0.attn_q"] == ("Q4_0", "gptq")
    assert planned["blk.1.attn_norm"] == ("F32", None)
    assert found(model, dict(reversed(overrides.items())))["blk.1.ffn_up"] == ("Q5_1", "imatrix")


@pytest.mark.parametrize(
    "pattern", ["*.ffn_down", "*.ffn_down.weight", "*.down_proj", "model.layers.?.mlp.down_proj.weight", "blk.*.ffn_d*"]
)
def test_patterns_are_for_the_names_of_llama_cpp_and_of_the_checkpoint(model: Path, pattern: str) -> None:
    planned = found(model, {pattern: {"type": "Q8_0"}})
    assert {name for name, (kind, _) in planned.items() if kind == "Q8_0" and name != "output"} == {
        "blk.0.ffn_down",
        "blk.1.ffn_down",
    }


def test_embedding_and_output_take_a_type_but_no_calibration(model: Path) -> None:
    planned = found(model, {"output": {"type": "F16"}, "token_embd": {"type": "Q8_0", "method": "imatrix"}})
    assert (planned["output"], planned["token_embd"]) == (("F16", None), ("Q8_0", "rtn"))
    with pytest.raises(InputError, match="'output' matches no matrix of a layer"):
        found(model, {"output": {"method": "imatrix"}})


def test_calibration_is_asked_for_where_an_override_needs_it(model: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(model)
    for number, (types, method, overrides, needed) in enumerate(
        (
            (("Q8_0",), "gptq", {"*.ffn_up": {"type": "Q4_0"}}, True),
            (("F16",), "gptq", {"*.ffn_up": {"type": "Q8_0"}}, False),
            (("Q4_0",), "rtn", {"*.ffn_up": {"method": "gptq"}}, True),
            (("Q4_0",), "gptq", {"*": {"method": "rtn"}}, False),
        )
    ):
        out = tmp_path / str(number)
        out.mkdir()
        target = FORMAT.open(checkpoint, out, GgufOptions(types=types, method=method, overrides=overrides), "abc")
        assert target.needs_moments is needed


def test_each_tensor_has_the_bytes_of_a_file_where_all_are_as_it_is(model: Path, tmp_path: Path) -> None:
    overrides = {"*.ffn_down": {"method": "imatrix"}, "*.ffn_up": {"type": "Q5_0"}, "*.attn_v": {"method": "rtn"}}
    facts = gguf_folders.write(model, tmp_path / "mixed", "Q4_0", overrides=overrides)["files"]["m-Q4_0.gguf"]
    mixed = gguf_folders.tensors_of(tmp_path / "mixed/m-Q4_0.gguf")
    for method in ("gptq", "imatrix", "rtn"):
        gguf_folders.write(model, tmp_path / method, "Q4_0", "Q5_0", method=method)
    for part, folder, scheme in (
        ("ffn_gate", "gptq", "Q4_0"),
        ("ffn_down", "imatrix", "Q4_0"),
        ("attn_v", "rtn", "Q4_0"),
        ("ffn_up", "gptq", "Q5_0"),
    ):
        name = f"blk.1.{part}.weight"
        kind, data = gguf_folders.tensors_of(tmp_path / folder / f"m-{scheme}.gguf")[name]
        assert mixed[name][0] == kind
        assert np.array_equal(mixed[name][1], data), part
    assert facts["overrides"]["blk.1.ffn_up.weight"] == {"type": "Q5_0", "method": "gptq"}
    assert facts["overrides"]["blk.0.attn_v.weight"] == {"type": "Q4_0", "method": "rtn"}
    assert len(facts["overrides"]) == 6
    assert {name.split(".")[2] for name in facts["linears"]} == {
        *("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up")
    }


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"*.ffn_dwn": {"type": "Q8_0"}}, r"'\*\.ffn_dwn' matches no matrix", "'*.ffn_down'"),
        ({"blk.7.*": {"type": "Q8_0"}}, "matches no matrix", "'blk.1.*'"),
        ({"*_norm": {"type": "Q8_0"}}, "matches no matrix", ""),
        ({"*.ffn_up": {"type": "Q4_K"}}, r"blk\.0\.ffn_up\.weight: a width of 64 is no multiple of 256", "take Q5_0"),
        ({"*.ffn_down": {"type": "IQ2_S", "method": "rtn"}}, "IQ2_S with an importance matrix only", "None"),
    ],
)
def test_what_is_not_possible_is_refused(model: Path, overrides: Any, message: str, hint: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        FORMAT.size(open_checkpoint(model), GgufOptions(types=("Q4_0",), overrides=overrides))
    assert hint in str(caught.value.hint)


def test_codes_of_vectors_get_no_error_feedback_and_say_so(model: Path) -> None:
    assert found(model, {"*.ffn_down": {"type": "IQ3_S", "method": "gptq"}})["blk.0.ffn_down"] == ("IQ3_S", "imatrix")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"type": "Q4_K_M"}, "unknown ggml type Q4_K_M"),
        ({}, "expected a type or a method"),
        ({"type": "F16", "method": "gptq"}, "F16 is not rounded by a method"),
        ({"bits": 4}, "Extra inputs"),
    ],
)
def test_an_override_that_says_nothing_that_can_be_done_is_refused(override: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GgufOptions(overrides={"*": override})
