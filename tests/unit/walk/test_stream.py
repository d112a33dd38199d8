import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_model
from safetensors.torch import load_file, save_file
from walk_data import Keeper, random_data

from lf_export import progress
from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.walk.stream import walk

LENGTHS = [9, 30, 2, 17, 17, 5, 40, 8]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("walk") / "model", tokenizer=False)


@pytest.fixture
def altered(model: Path, tmp_path: Path) -> Any:
    def alter(**changes: Any) -> Path:
        folder = tmp_path / "altered"
        folder.mkdir()
        (folder / "config.json").write_bytes((model / "config.json").read_bytes())
        tensors = load_file(model / "model.safetensors")
        for name, change in changes.items():
            tensors[name] = change(tensors[name])
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        return folder

    return alter


def test_one_forward_serves_all_visitors(model: Path) -> None:
    data = random_data(LENGTHS)
    alone, first, second = Keeper(), Keeper(), Keeper()
    facts_alone = walk(open_checkpoint(model), data, [alone], batch_tokens=50, dtype=torch.float32)
    facts = walk(
        open_checkpoint(model), data, [first, second, Keeper(needs_moments=False)], batch_tokens=50, dtype=torch.float32
    )
    assert facts == facts_alone
    assert facts.layers == 2
    assert facts.compute == "float32"
    assert facts.executions == 2 * 4  # two layers, four batches
    assert facts.tokens == sum(LENGTHS)
    for keeper in (first, second):
        assert keeper.prefixes == ["model.layers.0", "model.layers.1"]
        for index in range(2):
            assert all(torch.equal(keeper.H[index][name], H) for name, H in alone.H[index].items())


def test_each_layer_runs_once_per_batch(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    runs: list[int] = []
    forward = LlamaDecoderLayer.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaDecoderLayer, "forward", counted)
    facts = walk(open_checkpoint(model), random_data(LENGTHS), [Keeper(), Keeper()], batch_tokens=50)
    assert len(runs) == facts.executions


def test_linears_of_a_group_share_their_moments_and_groups_do_not(model: Path) -> None:
    keeper = Keeper()
    walk(open_checkpoint(model), random_data(LENGTHS), [keeper])
    assert keeper.shared == [4, 4]
    assert set(keeper.H[0]) == {
        f"{block}_proj"
        for block in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
    }


def test_batching_and_padding_change_nothing(model: Path) -> None:
    data = random_data(LENGTHS)
    one_by_one, together = Keeper(), Keeper()
    walk(open_checkpoint(model), data, [one_by_one], batch_tokens=1, dtype=torch.float32)
    walk(open_checkpoint(model), data, [together], batch_tokens=4096, dtype=torch.float32)
    assert together.counts == one_by_one.counts
    assert together.counts[0]["mlp.down_proj"] == sum(LENGTHS) - 17  # without padding, without the held-out sample
    for index in range(2):
        for name, H in one_by_one.H[index].items():
            # the same sums in another order
            torch.testing.assert_close(together.H[index][name], H, rtol=1e-4, atol=1e-4 * float(H.abs().max()))
            torch.testing.assert_close(
                together.heldout[index][name], one_by_one.heldout[index][name], rtol=1e-4, atol=1e-4
            )


def test_layers_that_compute_in_bf16_give_nearly_the_same_moments(model: Path) -> None:
    data = random_data(LENGTHS)
    exact, rounded = Keeper(), Keeper()
    walk(open_checkpoint(model), data, [exact], dtype=torch.float32)
    facts = walk(open_checkpoint(model), data, [rounded], dtype=torch.bfloat16)
    assert facts.compute == "bfloat16"
    for index in range(2):
        for name, H in exact.H[index].items():
            assert rounded.H[index][name].dtype == torch.float32
            # eight bits of mantissa in every activation: seen 0.4 % at the last layer
            assert float((rounded.H[index][name] - H).norm() / H.norm()) < 0.02
            assert not torch.equal(rounded.H[index][name], H)


def test_tokens_of_a_class_without_weight_do_not_enter(model: Path) -> None:
    keeper = Keeper()
    walk(open_checkpoint(model), random_data(LENGTHS, weights={0: 0.0}), [keeper])
    assert keeper.counts[0]["self_attn.q_proj"] == sum(n - n // 2 for n in LENGTHS) - 9


def test_weights_are_shown_as_the_checkpoint_has_them(model: Path) -> None:
    keeper = Keeper()
    walk(open_checkpoint(model), random_data([5]), [keeper])
    tensors = load_file(model / "model.safetensors")
    for index, prefix in enumerate(keeper.prefixes):
        expected = {name.removeprefix(f"{prefix}.") for name in tensors if name.startswith(f"{prefix}.")}
        assert set(keeper.weights[index]) == expected
        assert all(torch.equal(tensors[f"{prefix}.{name}"], t) for name, t in keeper.weights[index].items())


def test_without_a_need_for_moments_nothing_runs(model: Path) -> None:
    keeper = Keeper(needs_moments=False)
    facts = walk(open_checkpoint(model), None, [keeper])
    assert (facts.layers, facts.executions, facts.tokens) == (2, 0, 0)
    assert keeper.H == [{}, {}]
    assert len(keeper.weights[1]) == 9


def test_a_walk_without_a_forward_does_not_import_transformers() -> None:
    code = "import sys, lf_export.walk.stream, lf_export.formats; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_moments_without_samples_are_an_error(model: Path) -> None:
    with pytest.raises(InputError, match="no samples, and a format needs them"):
        walk(open_checkpoint(model), None, [Keeper()])


def test_a_nan_among_the_weights_is_named(altered: Any) -> None:
    def spoil(tensor: torch.Tensor) -> torch.Tensor:
        tensor[3, 4] = torch.nan
        return tensor

    folder = altered(**{"model.layers.1.mlp.up_proj.weight": spoil})
    keeper = Keeper()
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight: 1 of .* NaN or infinite"):
        walk(open_checkpoint(folder), random_data([5]), [keeper])
    assert keeper.prefixes == ["model.layers.0"]


def test_activations_that_overflow_name_the_layer(altered: Any) -> None:
    folder = altered(
        **{
            "model.layers.1.mlp.up_proj.weight": lambda tensor: tensor * 1e38,
            "model.layers.1.mlp.down_proj.weight": lambda tensor: tensor * 1e38,
        }
    )
    with pytest.raises(InputError, match=r"model\.layers\.1: its output has NaN or infinite activations"):
        walk(open_checkpoint(folder), random_data([5]), [Keeper()])


def test_an_infinite_embedding_is_named(altered: Any) -> None:
    folder = altered(**{"model.embed_tokens.weight": lambda tensor: tensor * torch.inf})
    with pytest.raises(InputError, match=r"model\.embed_tokens\.weight"):
        walk(open_checkpoint(folder), random_data([5]), [Keeper()])


def test_tensors_that_are_missing_or_of_another_shape_are_all_named(altered: Any) -> None:
    folder = altered(
        **{
            "model.layers.0.mlp.up_proj.weight": lambda tensor: tensor[:-8],
            "model.layers.0.self_attn.k_proj.weight": lambda _: None,
        }
    )
    with pytest.raises(InputError) as caught:
        walk(open_checkpoint(folder), random_data([5]), [Keeper()])
    assert "model.layers.0.self_attn.k_proj.weight: not in the checkpoint" in caught.value.message
    assert "mlp.up_proj.weight: shape [120, 64], config.json makes it [128, 64]" in caught.value.message


def test_a_model_that_is_quantized_already_is_refused(model: Path) -> None:
    checkpoint = open_checkpoint(model)
    checkpoint.config["quantization_config"] = {"quant_method": "gptq"}
    with pytest.raises(InputError, match="quantized already"):
        walk(checkpoint, random_data([5]), [Keeper()])


def test_progress_is_told_by_layer(model: Path) -> None:
    told: list[Any] = []

    class Recorder:
        def start(self, title: str, total: float, unit: str) -> Any:
            told.append((title, total, unit))
            return self

        def advance(self, amount: float = 1, note: str = "") -> None:
            told.append((amount, note))

        def finish(self, stage: Any) -> None:
            told.append(stage is self)

        def say(self, line: str) -> None:
            told.append(line)

    with progress.reporting(Recorder()):
        walk(open_checkpoint(model), random_data([5]), [Keeper()])
    assert told == [("quantize", 2, "layer"), (1, "model.layers.0"), (1, "model.layers.1"), True]


def test_memory_does_not_grow_with_depth(tmp_path: Path) -> None:
    """The largest number of layers' weights alive at once is the same for 2 and for 6 layers."""

    def alive(layers: int) -> int:
        folder = tiny_model(tmp_path / str(layers), tokenizer=False, num_hidden_layers=layers)
        peak = 0

        class Watcher(Keeper):
            def layer(self, view: Any) -> None:
                nonlocal peak
                peak = max(peak, sum(1 for _ in _float_matrices()))
                assert view.index < layers

        walk(open_checkpoint(folder), random_data(LENGTHS), [Watcher()])
        return peak

    assert alive(6) <= alive(2)


def _float_matrices() -> Iterator[torch.Tensor]:
    import gc

    gc.collect()  # modules are in cycles: what only waits for the collector is not held
    for thing in gc.get_objects():
        if type(thing) in {torch.Tensor, torch.nn.Parameter} and thing.ndim == 2 and not thing.is_meta:
            yield thing
