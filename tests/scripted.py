"""An artifact that answers what a test says, for the page and the trial: as slowly, and as badly, as it is told."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lf_export.errors import ExportError, InputError
from lf_export.runtimes.base import Generation
from lf_export.runtimes.guides import Guide


@dataclass
class Scripted:
    """Answers each request with the next of `answers`, a character a token; an error among them is raised."""

    name: str
    answers: list[str | ExportError]
    runtime: str = "script"
    guided: str = "the script"  # held answers are those of `held`
    held: str = ""
    representative: bool = True
    load_seconds: float = 0.5
    closed: bool = False
    asked: list[str] = field(default_factory=list)
    gate: threading.Event | None = None  # waited for after the third token

    def stream(self, prompt: str, max_new_tokens: int, guide: Guide | None = None) -> Iterator[Generation]:
        """The next answer."""
        self.asked.append(prompt)
        text = self.answers[(len(self.asked) - 1) % len(self.answers)] if guide is None else self.held
        if guide is not None and not self.guided:
            raise InputError("the runtime script cannot hold an answer to a grammar", "use torch")
        if isinstance(text, ExportError):
            raise text
        for count in range(1, min(len(text), max_new_tokens - 1) + 1):
            if count == 4 and self.gate is not None:
                self.gate.wait(20)
            yield _written(text[:count])
        yield _written(text[:max_new_tokens], ended=len(text) < max_new_tokens)

    def ended(self, generation: Generation) -> bool:
        """Whether the last token was the end."""
        return generation.ids[-1] == 0

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def _written(text: str, *, ended: bool = False) -> Generation:
    ids: Sequence[int] = [1] * len(text) + ([0] if ended else [])
    return Generation(tuple(ids), text, tuple(0.25 + 0.125 * at for at in range(len(ids))))
