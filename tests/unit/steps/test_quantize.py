"""One pass over the data serves every format; names on the command line become targets."""

from pathlib import Path

import pytest
import torch
from models import tiny_model
from walk_data import random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats import FORMATS
from lf_export.steps.quantize import TargetPlan, format_options, targets_from_names
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
