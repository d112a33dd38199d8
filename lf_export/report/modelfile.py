"""Ollama's Modelfile for a GGUF: its TEMPLATE is a Go template (https://docs.ollama.com/modelfile)."""

import json
from collections.abc import Sequence

from lf_export.errors import InputError
from lf_export.functions.frame import Frame

MODELFILE_NAME = "Modelfile"

_RAW = "{{ .Prompt }}"
_QUOTES = '"""'


def modelfile(file: str, frame: Frame | None, stops: Sequence[str], notes: Sequence[str], *, bos: str = "") -> str:
    """The Modelfile's text.

    Args:
        file: the GGUF's name, in the same folder.
        frame: of the model's dialect; None leaves prompts as they come (raw).
        stops: texts that end an answer.
        notes: comments at its head.
        bos: a text that Ollama puts before every prompt by itself, which the template leaves out then.
    """
    lines = [f"# {line}" for note in notes for line in note.splitlines()]
    template = _RAW if frame is None else go_template(frame, bos)
    lines += [f"FROM ./{file}", f"TEMPLATE {_QUOTES}{template}{_QUOTES}"]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines += ["PARAMETER temperature 0"]
    return "\n".join(lines) + "\n"


def go_template(frame: Frame, bos: str = "") -> str:
    """A frame as a Go template over `.Messages`; a tool's message counts as the user's.

    `$at` is where the conversation stands: 0 at its start, 1 after the system message, 2 after an answer.

    Raises:
        InputError: a text of the frame cannot stand in a Modelfile.
    """
    before, opening = frame.system
    alone, again = _text(frame.alone.removeprefix(bos)), _text(frame.again)
    text = (
        "{{- $at := 0 }}{{ range .Messages }}"
        '{{ if eq .Role "system" }}'
        f"{_text(before.removeprefix(bos))}{{{{ .Content }}}}{_text(opening)}{{{{ $at = 1 }}}}"
        '{{ else if eq .Role "assistant" }}'
        f"{_text(frame.answer)}{{{{ .Content }}}}{{{{ $at = 2 }}}}"
        "{{ else }}"
        f"{{{{ if eq $at 0 }}}}{alone}{{{{ else if eq $at 2 }}}}{again}{{{{ end }}}}"
        f"{{{{ .Content }}}}{_text(frame.asks)}{{{{ $at = 3 }}}}"
        "{{ end }}{{ end }}"
    )
    if _QUOTES in text:
        raise InputError("three quotation marks in a row cannot stand in a Modelfile's template")
    return text


def _text(text: str) -> str:
    """A fixed text as a Go string, so that none of it is read as an action or trimmed."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
