"""Where a walk stands after a layer, and who notes it down."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Standing:
    """How far a walk has come.

    Attributes:
        layers: layers that every visitor has seen.
        side: which file of the hidden states holds the next layer's input.
        executions: as in `WalkFacts`.
    """

    layers: int
    side: int
    executions: int


class Journal(Protocol):
    """Notes how far a walk has come, so that another run goes on from there.

    Attributes:
        folder: an existing folder for the hidden states; what an earlier run left there lies there still.
        standing: where an earlier run stopped, None at a start.
    """

    folder: Path
    standing: Standing | None

    def commit(self, standing: Standing) -> None:
        """Note that a layer is done: everything that was written so far is on disk when this returns."""
