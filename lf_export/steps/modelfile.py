"""The Modelfile in a GGUF artifact's folder: what the model was trained to see, as Ollama's template."""

import json
import re
from pathlib import Path

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.formats.gguf_tokenizer import GgufTokenizer, read_tokenizer
from lf_export.functions.dialects import dialect_for
from lf_export.functions.frame import Frame, frame_of
from lf_export.report.modelfile import MODELFILE_NAME, go_template, modelfile
from lf_export.runtimes.causal import load_tokenizer

_END = re.compile(r"<\|[^|<>\s]+\|>|</s>|<end_of_turn>|<eos>")


def write_modelfile(checkpoint: Checkpoint, folder: Path, dialect: str) -> None:
    """Write `Modelfile` beside the GGUF in `folder`; nothing where the file is in parts, which Ollama does not import.

    A template that cannot be written in Ollama's language leaves prompts raw, and the file says so.
    """
    files = sorted(path.name for path in folder.glob("*.gguf") if path.name != "imatrix.gguf")
    if len(files) != 1:  # parts
        return
    rows = checkpoint.info(checkpoint.embedding).shape[0] if checkpoint.embedding else 0
    tokenizer = read_tokenizer(checkpoint.root, rows)
    notes = [
        "Written by lf-export for Ollama:  ollama create NAME -f Modelfile",
        f"Prompts are in the dialect {dialect}, as the model was calibrated and judged.",
    ]
    frame, bos = None, _bos_of(tokenizer)
    try:
        frame, told = _frame(checkpoint.root, dialect, bos)
        notes += told
    except InputError as error:
        notes += [
            f"Its template is not known to Ollama's language: {' '.join(error.message.split())}",
            "Prompts go in raw: write them as the model's own template does, or serve it with llama-server --jinja.",
        ]
    text = modelfile(files[0], frame, _stops(tokenizer, frame), notes, bos=bos)
    (folder / MODELFILE_NAME).write_text(text, encoding="utf-8")


def _frame(model: Path, dialect: str, bos: str) -> tuple[Frame, list[str]]:
    known = dialect_for(dialect, load_tokenizer(model))
    frame = frame_of(known)
    go_template(frame, bos)
    if getattr(known, "shows_tools", False):
        notes = [
            "Functions are not offered: the model knows them by its own template, whose JSON Ollama writes otherwise.",
            "For calls serve the file with llama-server --jinja.",
        ]
    else:
        notes = ["Functions go into the system message, as the <<API>> block of the calibration data."]
    if bos and not all(text.startswith(bos) for text in (frame.alone, frame.system[0])):
        notes.append(f"Ollama puts {json.dumps(bos)} before every prompt, which the model was not trained to see.")
    return frame, notes


def _bos_of(tokenizer: GgufTokenizer) -> str:
    """The text that llama.cpp puts before every prompt."""
    return tokenizer.tokens[tokenizer.special["bos"]] if tokenizer.add_bos and "bos" in tokenizer.special else ""


def _stops(tokenizer: GgufTokenizer, frame: Frame | None) -> list[str]:
    ends = [tokenizer.tokens[tokenizer.special[name]] for name in ("eos", "eot") if name in tokenizer.special]
    found = _END.match(frame.again.lstrip()) if frame else None
    return list(dict.fromkeys([*([found[0]] if found else []), *ends]))
