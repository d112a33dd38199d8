"""One pass over the data serves every format; names on the command line become targets."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from models import tiny_model
from resumed import Calibration
from walk_data import random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats import FORMATS
from lf_export.quant.ggml import TYPES
from lf_export.recipe.targets import GgmlType, GgufTarget
from lf_export.steps.quantize import TargetPlan, files_of, format_options, quantize_targets, targets_from_names
from lf_export.walk.stream import walk


def test_all_formats_share_one_run_of_each_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lf_export.walk.decoder import Decoder

    checkpoint = open_checkpoint(tiny_model(tmp_path / "model"))
    data = random_data([40, 30, 50, 60, 20, 45, 38, 70])
    runs: list[int] = []
    run = Decoder.run

    def counted(self: Decoder, module: torch.nn.Module, index: int, hidden: torch.Tensor) -> torch.Tensor:
        runs.append(index)
        return run(self, module, index, hidden)

    monkeypatch.setattr(Decoder, "run", counted)
    plans = [
        TargetPlan("a", "gptq", tmp_path / "a", {"group_size": 32}),
        TargetPlan("b", "awq", tmp_path / "b", {"group_size": 32}),
        TargetPlan("c", "gguf", tmp_path / "c", {"type": "Q4_K_M"}),
        TargetPlan("d", "onnx", tmp_path / "d", {"precision": "int4", "group_size": 32}),
    ]
    targets = []
    for plan in plans:
        plan.out.mkdir()
        targets.append(FORMATS[plan.format].open(checkpoint, plan.out, format_options(plan, 1), data.digest))
    facts = walk(checkpoint, data, targets, batch_tokens=128)
    batches = facts.executions // 2
    assert batches > 1
    assert runs == [0] * batches + [1] * batches
    assert {plan.format for plan in plans} == set(FORMATS)
    for target in targets:
        target.finish()
    assert all(list(plan.out.iterdir()) for plan in plans)


def test_names_become_targets_with_the_options_that_are_theirs(tmp_path: Path) -> None:
    given = {"group_size": 32, "sym": True, "desc_act": False}
    plans = targets_from_names(["gptq:8", "awq", "gguf:Q8_0"], tmp_path, **given)
    assert [(plan.name, dict(plan.options)) for plan in plans] == [
        ("gptq-8bit", {"bits": 8, **given}),
        ("awq-4bit", {"group_size": 32}),
        ("gguf-q8_0", {"type": "Q8_0", "method": "gptq"}),
    ]
    assert [plan.out for plan in plans] == [tmp_path / plan.name for plan in plans]


def test_awq_has_four_bits_only(tmp_path: Path) -> None:
    assert targets_from_names(["awq:4"], tmp_path)[0].out == tmp_path
    with pytest.raises(InputError, match="awq:8: awq is written with 4 bits only"):
        targets_from_names(["awq:8"], tmp_path)
    with pytest.raises(InputError, match="named twice"):
        targets_from_names(["awq", "awq:4"], tmp_path)


def test_gguf_options_of_a_recipe_and_of_the_command_line_become_the_formats(tmp_path: Path) -> None:
    recipe = GgufTarget.model_validate(
        {
            "format": "gguf",
            "overrides": {"*.ffn_down": {"type": "Q8_0"}, "output": {"type": "F16"}, "*.attn_v": {"method": "rtn"}},
            "split_max_size": "2G",
            "imatrix": "imatrix.gguf",
        }
    ).model_dump(exclude_none=True)
    plan = TargetPlan("q4", recipe.pop("format"), tmp_path, recipe)
    options = format_options(plan, 2)
    assert [(pattern, each.type, each.method) for pattern, each in options.overrides] == [
        ("*.ffn_down", "Q8_0", None),
        ("output", "F16", None),
        ("*.attn_v", None, "rtn"),
    ]
    assert (options.split_max_size, options.imatrix, options.threads) == (2 * 10**9, Path("imatrix.gguf"), 2)
    gguf = {"method": "imatrix", "overrides": [["output", {"type": "F16"}]]}
    (named,) = targets_from_names(["gguf:Q5_0"], tmp_path, gguf=gguf)
    assert named.options == {"type": "Q5_0", **gguf}


def test_types_of_tensors_in_a_recipe_are_those_of_the_format() -> None:
    assert set(get_args(GgmlType)) == set(TYPES)


def test_the_files_that_options_name_are_known_by_their_content(tmp_path: Path) -> None:
    file = tmp_path / "imatrix.gguf"
    file.write_bytes(b"one")
    plan = TargetPlan("q4", "gguf", tmp_path, {"type": "Q4_0", "imatrix": str(file)})
    before = files_of(plan)
    file.write_bytes(b"another")
    assert files_of(plan) != before
    assert files_of(TargetPlan("q4", "gguf", tmp_path, {"type": "Q4_0"})) == []


def test_a_manifest_names_the_importance_matrix_without_its_folder(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    first = TargetPlan("a", "gguf", tmp_path / "a", {"type": "Q4_0", "method": "imatrix"}, "m")
    calibration: Any = Calibration()
    quantize_targets(open_checkpoint(model), [first], calibration)
    second = TargetPlan("b", "gguf", tmp_path / "b", {**first.options, "imatrix": str(first.out / "imatrix.gguf")}, "m")
    made = quantize_targets(open_checkpoint(model), [second], calibration)[str(second.out)]
    assert made["options"]["imatrix"] == "imatrix.gguf"
    assert str(tmp_path) not in json.dumps(made)
    assert (second.out / "m-Q4_0.gguf").read_bytes() == (first.out / "m-Q4_0.gguf").read_bytes()
