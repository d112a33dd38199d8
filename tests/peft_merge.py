"""PEFT's own merge, as the reference that ours is compared with, bit for bit."""

from pathlib import Path
from typing import Any

import torch

from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.index import open_checkpoint
from lf_export.checkpoint.merge import MergeFacts, merge_checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def peft_model(base: Path, dtype: torch.dtype, vocab_size: int | None = None) -> Any:
    """The base as Transformers loads it, resized if asked."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    if vocab_size:
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    return model


def untied(base: Path, out: Path, dtype: torch.dtype) -> Path:
    """PEFT's advice for tied weights: the same model with two equal weights instead of one."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, tie_word_embeddings=False)
    model.get_output_embeddings().weight.data = model.get_input_embeddings().weight.data.clone()
    model.save_pretrained(out)
    return out


def peft_merge(
    base: Path,
    adapters: list[Path],
    out: Path,
    dtype: torch.dtype,
    cast: torch.dtype | None = None,
    vocab_size: int | None = None,
) -> dict[str, torch.Tensor]:
    """PEFT's own way: load, merge_and_unload one adapter after the other, save; gives the saved tensors."""
    from peft import PeftModel

    model = peft_model(base, dtype, vocab_size)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    if cast:
        model = model.to(cast)
    model.save_pretrained(out)
    return saved_tensors(out)


def our_merge(base: Path, adapters: list[Path], out: Path, dtype: str | None = None, **options: Any) -> MergeFacts:
    """Our own way, into the new folder `out`."""
    out.mkdir()
    return merge_checkpoint(open_checkpoint(base), [open_adapter(path) for path in adapters], out, dtype, **options)


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, read by the safetensors library."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """The same names, dtypes and bits."""
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert ours[name].shape == tensor.shape, name
        differ = ours[name].contiguous().view(torch.uint8) != tensor.contiguous().view(torch.uint8)
        assert not differ.any(), f"{name}: {int(differ.sum())} bytes differ"


def logits(model: Any) -> torch.Tensor:
    """Logits of the first ten tokens, in float32."""
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(10)[None]).logits.float()
    return found


def unmerged_logits(base: Path, adapter: Path, dtype: torch.dtype, vocab_size: int | None = None) -> torch.Tensor:
    """What the adapter was trained to be: PEFT's logits before any merge."""
    from peft import PeftModel

    return logits(PeftModel.from_pretrained(peft_model(base, dtype, vocab_size), adapter))
