"""Key-value caches for answering many prompts at once: rows of several prefills, grown without copies, thinned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

_ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # Transformers is not typed
    """A cache layer that grows into memory set aside, where `DynamicLayer` copies all it has for every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        """Take over `keys` and `values` [rows, heads, room, head_dim], of which `length` positions are written."""
        super().__init__()
        self.lazy_initialization(keys, values)
        self._room: tuple[torch.Tensor, ...] = (keys, values)
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states [rows, heads, t, head_dim]; returns all of them."""
        have, new = self.keys.shape[-2], key_states.shape[-2]
        if have + new > self._room[0].shape[-2]:
            self._room = (_grown(self.keys, new + _ROOM), _grown(self.values, new + _ROOM))
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, have : have + new] = states
        self.keys, self.values = (room[:, :, : have + new] for room in self._room)
        return self.keys, self.values

    def release(self) -> None:
        """Free the memory set aside; the layer is not used again."""
        self._room = ()


@dataclass(frozen=True)
class Part:
    """Which rows of a cache stay, and where in it each begins and how long it is."""

    cache: Any
    rows: Sequence[int]
    starts: Sequence[int]
    lengths: Sequence[int]


def merged(parts: Sequence[Part]) -> Any:
    """One cache for the rows of all parts, padded on the left with zeros to the longest.

    The caches are emptied layer by layer, so that old and new do not lie in memory together.
    """
    length = max(max(part.lengths) for part in parts)
    result = DynamicCache()
    result.layers = []
    for index in range(len(parts[0].cache.layers)):
        layers = [part.cache.layers[index] for part in parts]
        keys = _gathered([layer.keys for layer in layers], parts, length)
        values = _gathered([layer.values for layer in layers], parts, length)
        result.layers.append(RoomyLayer(keys, values, length))
        for layer in layers:
            layer.keys = layer.values = None
            if isinstance(layer, RoomyLayer):
                layer.release()
    return result


def _gathered(states: Sequence[torch.Tensor], parts: Sequence[Part], length: int) -> torch.Tensor:
    """[rows, heads, length + room, head_dim] from the chosen rows of each [rows, heads, t, head_dim]."""
    _, heads, _, width = states[0].shape
    room = states[0].new_empty(sum(len(part.rows) for part in parts), heads, length + _ROOM, width)
    places = iter(room)
    for each, part in zip(states, parts, strict=True):
        for row, start, count in zip(part.rows, part.starts, part.lengths, strict=True):
            place = next(places)
            place[:, : length - count] = 0  # masked, but it must be finite
            place[:, length - count : length] = each[row, :, start : start + count]
    return room


def _grown(old: torch.Tensor, more: int) -> torch.Tensor:
    rows, heads, have, width = old.shape
    room = old.new_empty(rows, heads, have + more, width)
    room[:, :, :have] = old
    return room
