"""The `transformers` runtime: a GPTQ or AWQ folder as Transformers loads it, with gptqmodel's kernels."""

import importlib.util
import time
from pathlib import Path

import torch

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import MissingError
from lf_export.runtimes.causal import CausalSession, load_tokenizer

name = "transformers"


def accepts(path: Path) -> bool:
    """Whether `path` is a folder with a Hugging Face config."""
    return (path / "config.json").is_file()


def open_session(path: Path, threads: int) -> CausalSession:
    """Load the folder at `path` through `AutoModelForCausalLM`, kernels chosen by gptqmodel.

    Raises:
        MissingError: gptqmodel is not installed.
    """
    check_kernels()
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    torch.set_num_threads(threads)
    began = time.perf_counter()
    open_checkpoint(path)  # headers only: refuses pickles, truncated files and links that lead outside
    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype="auto",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        device_map="cpu",
    )
    return CausalSession(
        model.eval(), load_tokenizer(path), name=name, representative=True, load_seconds=time.perf_counter() - began
    )


def check_kernels() -> None:
    """See that there are kernels for GPTQ and AWQ.

    Raises:
        MissingError: gptqmodel is not installed.
    """
    if importlib.util.find_spec("gptqmodel") is None:
        raise MissingError(
            "gptqmodel is not installed, the transformers runtime needs its kernels", "pip install 'lf-export[gptq]'"
        )
