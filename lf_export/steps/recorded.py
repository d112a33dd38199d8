"""What a run found out about the baseline that holds for every run with the same files and items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Said = tuple[tuple[int, ...], str]
"""An answer: its token ids, with the end token, and its text."""


@dataclass(frozen=True)
class Recorded:
    """All but the times; the distributions lie beside it, a file an item.

    Attributes:
        answers: by item id.
        chat_nll: negative log-likelihood of each counted chat token, nats.
        peak_rss_bytes: the process's peak memory while all this was found out.
        cpu_seconds: what it took.
        chat_answers: to conversations, by item id.
        peak_gpu_bytes: as `peak_rss_bytes`, None where no GPU was used.
    """

    answers: Mapping[str, Said]
    chat_nll: Sequence[float]
    peak_rss_bytes: int
    cpu_seconds: float
    chat_answers: Mapping[str, Said] = field(default_factory=dict)
    peak_gpu_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON value. Law: `Recorded.of_json(recorded.to_json()) == recorded`."""
        return {
            "answers": _plain(self.answers),
            "chat_answers": _plain(self.chat_answers),
            "chat_nll": list(self.chat_nll),
            "peak_rss_bytes": self.peak_rss_bytes,
            "peak_gpu_bytes": self.peak_gpu_bytes,
            "cpu_seconds": self.cpu_seconds,
        }

    @classmethod
    def of_json(cls, value: Any) -> "Recorded":
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            answers=_said(value["answers"]),
            chat_answers=_said(value["chat_answers"]),
            chat_nll=[float(each) for each in value["chat_nll"]],
            peak_rss_bytes=int(value["peak_rss_bytes"]),
            cpu_seconds=float(value["cpu_seconds"]),
            peak_gpu_bytes=None if value["peak_gpu_bytes"] is None else int(value["peak_gpu_bytes"]),
        )


def _plain(answers: Mapping[str, Said]) -> dict[str, Any]:
    return {name: [list(ids), text] for name, (ids, text) in answers.items()}


def _said(answers: Mapping[str, Any]) -> dict[str, Said]:
    return {str(name): (tuple(map(int, ids)), str(text)) for name, (ids, text) in answers.items()}
