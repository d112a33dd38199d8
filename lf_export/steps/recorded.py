"""What a run found out about the baseline that holds for every run with the same files and items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """

    answers: Mapping[str, Said]
    chat_nll: Sequence[float]
    peak_rss_bytes: int
    cpu_seconds: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON value. Law: `Recorded.of_json(recorded.to_json()) == recorded`."""
        return {
            "answers": {name: [list(ids), text] for name, (ids, text) in self.answers.items()},
            "chat_nll": list(self.chat_nll),
            "peak_rss_bytes": self.peak_rss_bytes,
            "cpu_seconds": self.cpu_seconds,
        }

    @classmethod
    def of_json(cls, value: Any) -> "Recorded":
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            answers={str(name): (tuple(map(int, ids)), str(text)) for name, (ids, text) in value["answers"].items()},
            chat_nll=[float(each) for each in value["chat_nll"]],
            peak_rss_bytes=int(value["peak_rss_bytes"]),
            cpu_seconds=float(value["cpu_seconds"]),
        )
