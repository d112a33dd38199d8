"""Random-weight Llamas of any shape and random calibration tokens: for what memory and time cost, never for quality."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHARD_LAYERS = 8


@dataclass(frozen=True)
class Shape:
    """What a Llama's size follows from."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False

    def config(self) -> dict[str, Any]:
        """The `config.json` of such a model in bfloat16."""
        from transformers import AutoConfig

        config = AutoConfig.for_model(
            "llama",
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=4096,
            tie_word_embeddings=self.tied,
            dtype="bfloat16",
            architectures=["LlamaForCausalLM"],
        )
        return json.loads(config.to_json_string(use_diff=False))  # type: ignore[no-any-return]

    def layout(self) -> list[list[tuple[str, str, tuple[int, ...]]]]:
        """The tensors of each file: the embedding, the layers by eight, the head."""
        width = self.hidden // self.heads * self.kv_heads
        linears = {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (width, self.hidden),
            "self_attn.v_proj": (width, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.inner, self.hidden),
            "mlp.up_proj": (self.inner, self.hidden),
            "mlp.down_proj": (self.hidden, self.inner),
            "input_layernorm": (self.hidden,),
            "post_attention_layernorm": (self.hidden,),
        }
        files = [[("model.embed_tokens.weight", "BF16", (self.vocabulary, self.hidden))]]
        for first in range(0, self.layers, SHARD_LAYERS):
            inside = range(first, min(first + SHARD_LAYERS, self.layers))
            files.append(
                [(f"model.layers.{i}.{name}.weight", "BF16", shape) for i in inside for name, shape in linears.items()]
            )
        files.append([("model.norm.weight", "BF16", (self.hidden,))])
        if not self.tied:
            files[-1].append(("lm_head.weight", "BF16", (self.vocabulary, self.hidden)))
        return files


LLAMA_2 = {
    "7B": Shape(32, 4096, 11008, 32, 32, 32000),
    "13B": Shape(40, 5120, 13824, 40, 40, 32000),
    "70B": Shape(80, 8192, 28672, 64, 8, 32000),
}


def make(folder: Path, shape: Shape, seed: int = 0, *, hollow: bool = False) -> None:
    """Write the model, one tensor in memory at a time, with a tokenizer of 256 byte tokens.

    A hollow one has files of the right size and header that take no disk: enough for a plan.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from lf_export.checkpoint.writer import SafetensorsFile, write_safetensors

    generator = torch.Generator().manual_seed(seed)

    def parts(layout: list[tuple[str, str, tuple[int, ...]]]) -> Iterator[torch.Tensor]:
        for name, _, size in layout:
            if name.endswith("norm.weight"):
                yield torch.ones(size, dtype=torch.bfloat16)
            else:
                yield torch.empty(size, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)

    folder.mkdir(parents=True)
    files = shape.layout()
    where = {}
    for number, layout in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        if hollow:
            with closing(SafetensorsFile(folder / name, layout, {"format": "pt"})) as file:
                os.truncate(folder / name, file.size)
        else:
            write_safetensors(folder / name, layout, parts(layout), {"format": "pt"})
        where |= {entry[0]: name for entry in layout}
    index = {"metadata": {"total_size": sum(path.stat().st_size for path in folder.iterdir())}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(shape.config()), encoding="utf-8")
    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def make_adapter(folder: Path, shape: Shape) -> None:
    """Write a LoRA of rank 1 on the first layer's q_proj that changes nothing: a recipe needs one."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    stem = "base_model.model.model.layers.0.self_attn.q_proj."
    parts = {"lora_A": torch.zeros(1, shape.hidden), "lora_B": torch.zeros(shape.hidden, 1)}
    save_file({f"{stem}{part}.weight": tensor for part, tensor in parts.items()}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


@dataclass(frozen=True)
class Sample:
    """Token ids and their classes."""

    ids: Any
    classes: Any


class RandomTokens:
    """Samples of random tokens below 256, as a calibration set has them."""

    digest = "0" * 64

    def __init__(self, samples: int, length: int) -> None:
        classes = np.zeros(length, np.uint8)
        ids = np.random.default_rng(0).integers(0, 256, size=(samples, length)).astype(np.int32)
        self.samples = [Sample(row, classes) for row in ids]
        self.weights: dict[int, float] = {}
        self.audit = self

    def to_json(self) -> dict[str, Any]:
        """What a manifest holds of it."""
        return {"samples": len(self.samples)}
