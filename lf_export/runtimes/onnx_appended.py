"""Keys and values for a graph that gives them with the new ones appended.

Such a graph takes the past of all rows as one array of one length. A row that is shorter stands at its end, behind what
the mask leaves out: so nothing ever stands between two tokens of a row, and a sliding window counts right. The rows'
own memory stays as it is for graphs that write in place; an answer that goes on is fed with what the graph gave last.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]


class Appended:
    """What the graph gave last, so that it need not be put together again."""

    def __init__(self) -> None:
        self._first = 0
        self._lengths: npt.NDArray[np.int64] | None = None
        self._given: list[_Array] = []

    def forget(self) -> None:
        """The rows' memory has changed: what the graph gave last is no longer in it."""
        self._lengths, self._given = None, []

    def past(self, caches: Sequence[_Array], first: int, past: npt.NDArray[np.int64]) -> list[_Array]:
        """The first `past` tokens of each row from `first` on, each row at the end of [rows, heads, longest, width].

        Args:
            caches: of each layer keys and values, [rows, heads, room, width], a row's tokens at its beginning.
            first: row.
            past: how many tokens of each row.
        """
        if self._lengths is not None and self._first == first and np.array_equal(self._lengths, past):
            return self._given
        longest = int(past.max())
        found: list[_Array] = []
        for cache in caches:
            part = np.zeros((len(past), cache.shape[1], longest, cache.shape[3]), cache.dtype)
            for row, length in enumerate(past.tolist()):
                part[row, :, longest - length :] = cache[first + row, :, :length]
            found.append(part)
        return found

    def keep(self, caches: Sequence[_Array], first: int, past: npt.NDArray[np.int64], given: Sequence[_Array]) -> None:
        """Write the new keys and values into the rows' memory, and remember what the graph gave."""
        longest = int(past.max())
        for cache, part in zip(caches, given, strict=True):
            new = part.shape[2] - longest
            for row, length in enumerate(past.tolist()):
                cache[first + row, :, length : length + new] = part[row, :, longest:]
        self._first, self._lengths, self._given = first, past + (given[0].shape[2] - longest), list(given)
