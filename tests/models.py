"""Tiny random models and a tiny tokenizer: they prove exactness, not quality."""

import json
from pathlib import Path
from typing import Any

import torch

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_TEXT = [
    'You may answer by calling one of the following functions. {"functions":[{"name":"get_weather"}]}',
    '{"function_call":{"name":"get_weather","arguments":{"city":"Paris","days":3}}}',
    "What is the weather in Paris for the next three days? It is sunny and warm.",
    "Set a timer for 25 minutes, then write an email to Anna about the meeting on 2025-03-14.",
]


def tiny_tokenizer(vocab_size: int = 320) -> Any:
    """A byte-level BPE tokenizer with ChatML tokens, trained on four sentences (the same each time)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        chat_template=CHATML,
    )


# Of each token two experts out of four; Qwen's are narrower than the feed-forward of its layers without any.
_EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 96, "norm_topk_prob": True},
}


def tiny_config(family: str = "llama", **overrides: Any) -> Any:
    """The configuration of a tiny model: 2 layers, hidden 64, 4 heads, 2 key-value heads."""
    from transformers import AutoConfig

    fields: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    return AutoConfig.for_model(family, **(fields | _EXPERTS.get(family, {}) | overrides))


def tiny_model(
    folder: Path,
    family: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    shard_size: str | None = None,
    tokenizer: bool = True,
    **overrides: Any,
) -> Path:
    """Save a tiny random model (with larger than usual weights, so that it answers differently)."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **overrides), dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:  # the experts of a layer are one tensor of three dimensions
                parameter.normal_(0.0, 0.08)
    kwargs = {"max_shard_size": shard_size} if shard_size else {}
    model.save_pretrained(folder, **kwargs)
    if tokenizer:
        tiny_tokenizer().save_pretrained(folder)
    (folder / "LICENSE").write_text("a licence\n", encoding="utf-8")
    return folder


def starved_model(folder: Path, family: str, **overrides: Any) -> Path:
    """A mixture with one expert a token, whose first layer sends none to expert 0.

    Its logit is zero, and of two others, each other's negatives, one is above that.
    """
    from safetensors.torch import load_file, save_file

    tiny_model(folder, family, dtype=torch.bfloat16, num_experts_per_tok=1, **overrides)
    tensors = load_file(folder / "model.safetensors")
    block = "block_sparse_moe" if family == "mixtral" else "mlp"
    router = tensors[f"model.layers.0.{block}.gate.weight"]
    router[0], router[2] = 0, -router[1]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tiny_adapter(
    folder: Path, base: Path, *, seed: int = 1, merged: bool = False, vocab_size: int | None = None, **config: Any
) -> Path:
    """Save a PEFT LoRA over `base` in which everything that can be trained is random; with `merged`, also PEFT's merge.

    With `vocab_size` the base is resized before.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    fields: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
    }
    dtype = getattr(torch, json.loads((base / "config.json").read_text(encoding="utf-8")).get("dtype", "float32"))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    if vocab_size:
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    torch.manual_seed(seed)
    wrapped = get_peft_model(model, LoraConfig(**(fields | config)))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
            elif "lora_" in name:
                parameter.normal_(0.0, 0.05)
            elif parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    wrapped.save_pretrained(folder)
    if merged:
        wrapped.merge_and_unload().save_pretrained(folder / "merged")
    return folder


def ascii_model(folder: Path, **overrides: Any) -> Path:
    """As `tiny_model`, but one that answers in ASCII: the output of every other token but the end token is zero.

    A server holds back half a letter; a random model writes little else.
    """
    from safetensors.torch import load_file, save_file

    tiny_model(folder, tie_word_embeddings=False, **overrides)
    names = tiny_tokenizer().convert_ids_to_tokens(range(320))
    silent = [index for index, name in enumerate(names) if index != 2 and not (name or "é").isascii()]
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][[0, 1, *silent]] = 0.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
