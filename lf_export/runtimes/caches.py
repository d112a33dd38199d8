"""Key-value caches for answering many prompts at once: rows of several prefills, grown without copies, thinned."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

_ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # Transformers is not typed
    """A cache layer that grows into memory set aside, where `DynamicLayer` copies all it has for every token."""

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states [rows, heads, t, head_dim]; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self._rooms: tuple[torch.Tensor, torch.Tensor] | None = None
        have, new = self.keys.shape[-2], key_states.shape[-2]
        rooms = self._rooms
        if rooms is None or have + new > rooms[0].shape[-2] or rooms[0].shape[0] != key_states.shape[0]:
            rooms = self._rooms = (self._grown(self.keys, key_states), self._grown(self.values, value_states))
        for room, states in zip(rooms, (key_states, value_states), strict=True):
            room[:, :, have : have + new] = states
        self.keys, self.values = (room[:, :, : have + new] for room in rooms)
        return self.keys, self.values

    @staticmethod
    def _grown(old: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        rows, heads, _, width = states.shape
        have = old.shape[-2]
        room = states.new_empty(rows, heads, have + states.shape[-2] + _ROOM, width)
        room[:, :, :have] = old
        return room


def joined(caches: Sequence[Any], lengths: Sequence[int]) -> Any:
    """One cache for the rows of all `caches`, whose sequence lengths are `lengths`, padded on the left with zeros."""
    longest = max(lengths)
    result = DynamicCache()
    result.layers = [RoomyLayer() for _ in caches[0].layers]
    for index, layer in enumerate(result.layers):
        states = [
            torch.cat(
                [
                    torch.nn.functional.pad(getattr(cache.layers[index], part), (0, 0, longest - length, 0))
                    for cache, length in zip(caches, lengths, strict=True)
                ]
            )
            for part in ("keys", "values")
        ]
        layer.update(*states)
    return result


def keep_rows(cache: Any, rows: torch.Tensor) -> None:
    """Drop every row of the cache but `rows`."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[rows], layer.values[rows]
