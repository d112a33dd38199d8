"""A merge as a whole: the folder it writes, the facts it tells, and what it leaves where it fails."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.index import INDEX_NAME, open_checkpoint
from lf_export.checkpoint.merge import merge_checkpoint
from lf_export.checkpoint.staging import staging
from lf_export.checkpoint.writer import SafetensorsFile
from lf_export.errors import InputError, StepError

Make = Callable[..., Path]
Tensors = Callable[..., dict[str, torch.Tensor]]
CHANGED = ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight")


def merged(base: Path, *adapters: Path, dtype: str | None = None, name: str = "out") -> tuple[Path, Any]:
    out = base.parent / name
    out.mkdir()
    return out, merge_checkpoint(open_checkpoint(base), [open_adapter(path) for path in adapters], out, dtype)


def test_changed_tensors_follow_the_formula_and_the_rest_keeps_its_bytes(
    make_base: Make, make_adapter: Make, base_tensors: Tensors, lora_tensors: Tensors
) -> None:
    out, facts = merged(make_base(), make_adapter())
    result, before, lora = load_file(out / "model.safetensors"), base_tensors(), lora_tensors()
    assert result.keys() == before.keys()
    for name, tensor in before.items():
        expected = tensor
        if name in CHANGED:
            prefix = f"base_model.model.{name.removesuffix('.weight')}"
            expected = (tensor.float() + 2.0 * (lora[f"{prefix}.lora_B.weight"] @ lora[f"{prefix}.lora_A.weight"])).to(
                tensor.dtype
            )
        assert torch.equal(result[name], expected), name
    assert facts.changed == CHANGED
    assert (facts.copied, facts.converted) == (5, 0)


@pytest.mark.parametrize("shards", [1, 3])
def test_files_are_those_of_the_base_down_to_the_layout(make_base: Make, make_adapter: Make, shards: int) -> None:
    base = make_base(shards=shards)
    out, facts = merged(base, make_adapter())
    assert sorted(facts.files) == sorted(path.name for path in base.glob("*.safetensors"))
    for name in facts.files:
        assert list(load_file(out / name)) == list(load_file(base / name))
        with safe_open(out / name, "pt") as file:
            assert file.metadata() == {"format": "pt"}
    assert facts.bytes_written == sum((out / name).stat().st_size for name in facts.files)
    assert (out / INDEX_NAME).exists() == (shards > 1)
    if shards > 1:
        index = json.loads((out / INDEX_NAME).read_text(encoding="utf-8"))
        assert index["weight_map"] == json.loads((base / INDEX_NAME).read_text(encoding="utf-8"))["weight_map"]
        assert index["metadata"]["total_size"] == open_checkpoint(base).nbytes


def test_shards_in_a_subfolder_stay_there(make_base: Make, make_adapter: Make) -> None:
    base = make_base(shards=2)
    (base / "weights").mkdir()
    for file in base.glob("*.safetensors"):
        file.rename(base / "weights" / file.name)
    index = (base / INDEX_NAME).read_text(encoding="utf-8").replace("model-0", "weights/model-0")
    (base / INDEX_NAME).write_text(index, encoding="utf-8")
    out, _ = merged(base, make_adapter())
    assert open_checkpoint(out).tensors.keys() == open_checkpoint(base).tensors.keys()


def test_tensors_of_a_shard_that_the_index_does_not_name_are_left_out(make_base: Make, base_tensors: Tensors) -> None:
    extra = "model.layers.0.z_leftover.weight"  # in its file between two tensors that are copied
    tensors = {**base_tensors(), extra: torch.full((4,), 7.0).bfloat16()}
    base = make_base(tensors, shards=2)
    index = json.loads((base / INDEX_NAME).read_text(encoding="utf-8"))
    del index["weight_map"][extra]
    (base / INDEX_NAME).write_text(json.dumps(index), encoding="utf-8")
    out, _ = merged(base)
    found = {name: tensor for file in out.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert found.keys() == base_tensors().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in base_tensors().items())


def test_without_adapters_a_merge_is_a_copy_or_a_cast(make_base: Make, base_tensors: Tensors) -> None:
    base = make_base()
    out, facts = merged(base)
    assert (out / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert facts.changed == ()
    out, facts = merged(base, dtype="float32", name="cast")
    assert all(
        torch.equal(tensor, base_tensors()[name].float())
        for name, tensor in load_file(out / "model.safetensors").items()
    )
    assert facts.converted == 7
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"


def test_the_older_key_of_the_dtype_is_corrected_too(make_base: Make) -> None:
    base = make_base()
    (base / "config.json").write_text('{"torch_dtype": "bfloat16"}', encoding="utf-8")
    out, _ = merged(base, dtype="float16")
    assert json.loads((out / "config.json").read_text(encoding="utf-8")) == {"torch_dtype": "float16"}


def test_whole_numbers_are_never_cast(make_base: Make, base_tensors: Tensors) -> None:
    ids = torch.arange(5)
    out, _ = merged(make_base(base_tensors() | {"ids": ids}), dtype="float16")
    assert torch.equal(load_file(out / "model.safetensors")["ids"], ids)


def test_a_dtype_that_cannot_be_written_is_refused(make_base: Make) -> None:
    with pytest.raises(InputError, match="dtype 'int8' is not one of float32, float16, bfloat16"):
        merged(make_base(), dtype="int8")


def test_facts_are_json_and_the_same_for_the_same_inputs(make_base: Make, make_adapter: Make) -> None:
    base, adapter = make_base(), make_adapter(base_model_name_or_path="org/base")
    (adapter / "LICENSE").write_text("adapter's", encoding="utf-8")
    (base / "LICENSE").write_text("base's", encoding="utf-8")
    (base / "modeling.py").touch()
    out, facts = merged(base, adapter)
    _, again = merged(base, adapter, name="again")
    assert json.loads(json.dumps(facts.as_dict())) == facts.as_dict() == again.as_dict()
    (told,) = facts.as_dict()["adapters"]
    assert told["sha256"] == open_adapter(adapter).digest()
    assert (told["modules"], told["ranks"], told["scalings"], told["rslora"]) == (2, [2], [2.0], False)
    assert facts.as_dict()["code_left_behind"] == ["modeling.py"]
    assert {"config.json", "LICENSE", "LICENSE.adapter"} == set(facts.as_dict()["carried"])
    assert (out / "LICENSE.adapter").read_text(encoding="utf-8") == "adapter's"
    proof = facts.as_dict()["proof"]
    assert 0 < proof["max_deviation"] <= proof["bound"]
    assert proof["tensor"] in CHANGED


EMBEDDING = "base_model.model.model.embed_tokens.weight"


@pytest.mark.parametrize("shards", [1, 3])
def test_an_output_layer_that_comes_apart_is_written_and_said(
    make_base: Make, make_adapter: Make, lora_tensors: Tensors, base_tensors: Tensors, shards: int
) -> None:
    head = torch.randn(10, 4)
    adapter = make_adapter(lora_tensors() | {"base_model.model.lm_head.weight": head}, modules_to_save=["lm_head"])
    out, facts = merged(make_base(shards=shards), adapter)
    result = open_checkpoint(out)
    assert torch.equal(result.read("lm_head.weight"), head.bfloat16())
    assert torch.equal(result.read("model.embed_tokens.weight"), base_tensors()["model.embed_tokens.weight"])
    assert result.config["tie_word_embeddings"] is False
    assert (facts.added, facts.copied) == (("lm_head.weight",), 5)
    if shards > 1:
        index = json.loads((out / INDEX_NAME).read_text(encoding="utf-8"))
        assert index["metadata"]["total_size"] == result.nbytes


def test_an_embedding_that_comes_apart_leaves_the_old_one_to_the_output_layer(
    make_base: Make, make_adapter: Make, lora_tensors: Tensors, base_tensors: Tensors
) -> None:
    adapter = make_adapter(lora_tensors() | {EMBEDDING: torch.ones(10, 4)}, modules_to_save=["embed_tokens"])
    out, facts = merged(make_base(), adapter)
    result = load_file(out / "model.safetensors")
    assert torch.equal(result["lm_head.weight"], base_tensors()["model.embed_tokens.weight"])
    assert torch.equal(result["model.embed_tokens.weight"], torch.ones(10, 4).bfloat16())
    assert "lm_head.weight" not in facts.changed


def test_a_resized_vocabulary_corrects_the_config_and_takes_the_adapter_s_tokenizer(
    make_base: Make, make_adapter: Make, lora_tensors: Tensors
) -> None:
    base = make_base(vocab_size=10, text_config={"vocab_size": 10, "hidden_size": 4})
    (base / "tokenizer.json").write_text("base", encoding="utf-8")
    adapter = make_adapter(lora_tensors() | {EMBEDDING: torch.ones(12, 4)})
    out, facts = merged(base, adapter)
    assert (out / "tokenizer.json").read_text(encoding="utf-8") == "base"
    assert facts.tokenizer is None
    (adapter / "tokenizer.json").write_text("adapter", encoding="utf-8")
    out, facts = merged(base, adapter, name="again")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (config["vocab_size"], config["text_config"]) == (12, {"vocab_size": 12, "hidden_size": 4})
    assert (out / "tokenizer.json").read_text(encoding="utf-8") == "adapter"
    assert facts.tokenizer == "adapter"
    assert facts.as_dict()["config"] == {"vocab_size": 12}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["lora_magnitude_vector", "embed_tokens.weight", "trainable_tokens_delta"])
def test_nan_and_infinity_in_any_part_are_named(
    make_base: Make, make_adapter: Make, lora_tensors: Tensors, part: str, value: float
) -> None:
    embedding = "base_model.model.model.embed_tokens"
    extra, config = {EMBEDDING: torch.ones(10, 4)}, {}
    if part == "lora_magnitude_vector":
        prefix = "base_model.model.model.layers.{}.self_attn.q_proj.lora_magnitude_vector"
        extra, config = {prefix.format(layer): torch.ones(6) for layer in (0, 1)}, {"use_dora": True}
    elif part == "trainable_tokens_delta":
        extra = {f"{embedding}.token_adapter.{part}": torch.ones(1, 4)}
        config = {"trainable_token_indices": [9]}
    next(iter(extra.values())).view(-1)[-1] = value
    with pytest.raises(InputError, match=rf"{part}: 1 of \d+ values are NaN or infinite"):
        merged(make_base(), make_adapter(lora_tensors() | extra, **config))


def test_a_misfit_writes_nothing(make_base: Make, make_adapter: Make, base_tensors: Tensors) -> None:
    base = make_base(base_tensors(layers=3))
    with pytest.raises(InputError, match="does not fit"):
        merged(base, make_adapter())
    assert list((base.parent / "out").iterdir()) == []


@pytest.mark.parametrize("writes", range(1, 4))
def test_a_disk_that_fills_at_any_write_leaves_no_artifact(
    make_base: Make, make_adapter: Make, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    base, adapter = make_base(), make_adapter()
    left = writes
    pwrite = os.pwrite

    def fill(handle: int, data: memoryview, at: int) -> int:
        nonlocal left
        left -= 1
        if left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(handle, data, at)

    monkeypatch.setattr(os, "pwrite", fill)
    with pytest.raises(StepError, match="disk full"), staging(base.parent / "merged") as out:
        merge_checkpoint(open_checkpoint(base), [open_adapter(adapter)], out)
    assert sorted(path.name for path in base.parent.iterdir()) == ["adapter", "base"]


def test_merging_imports_neither_transformers_nor_peft(make_base: Make, make_adapter: Make) -> None:
    code = (
        "import sys; from pathlib import Path; from lf_export.checkpoint.merge import merge_checkpoint\n"
        "from lf_export.checkpoint.adapter import open_adapter\n"
        "from lf_export.checkpoint.index import open_checkpoint\n"
        "merge_checkpoint(open_checkpoint(sys.argv[1]), [open_adapter(sys.argv[2])], Path(sys.argv[3]))\n"
        "sys.exit(' '.join({'transformers', 'peft', 'safetensors', 'torch._dynamo'} & set(sys.modules)))"
    )
    base = make_base()
    (base.parent / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, base, make_adapter(), base.parent / "out"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.stderr.strip(), done.returncode) == ("", 1), done.stderr  # sys.exit("") is status 1


def test_several_threads_write_the_same_bytes_and_leave_torch_as_it_was(make_base: Make, make_adapter: Make) -> None:
    base, adapter = make_base(shards=2), make_adapter()
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            out, facts = merged(base, adapter, name=f"out{count}")
            assert torch.get_num_threads() == count
            results.append(([(out / name).read_bytes() for name in facts.files], facts))
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1]


def test_no_thread_writes_on_after_an_error(
    make_base: Make, make_adapter: Make, base_tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = base_tensors(layers=2)
    tensors[CHANGED[0]][0, 0] = torch.inf
    base, adapter = make_base(tensors), make_adapter()
    closed: list[bool] = []
    put, close = SafetensorsFile.put, SafetensorsFile.close

    def slow_put(file: SafetensorsFile, at: int, part: Any) -> int:
        time.sleep(0.05)
        assert not closed, "a thread wrote into a file that was closed"
        return put(file, at, part)

    def noted_close(file: SafetensorsFile) -> None:
        closed.append(True)
        close(file)

    monkeypatch.setattr(SafetensorsFile, "put", slow_put)
    monkeypatch.setattr(SafetensorsFile, "close", noted_close)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(InputError, match="NaN or infinite"):
            merged(base, adapter)
    finally:
        torch.set_num_threads(threads)
    assert closed == [True]
