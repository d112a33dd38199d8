"""What a recipe's `bench.latency` asks for, and what it costs."""

from collections.abc import Mapping
from typing import Any

from lf_export.recipe import BenchRecipe
from lf_export.steps.latency_grid import Grid
from lf_export.steps.plan import bytes_text


def grid_of(bench: BenchRecipe) -> Grid | None:
    """The prompt lengths and batch sizes; None where none are given."""
    return None if bench.latency is None else Grid(**bench.latency.model_dump())


def latency_cost(bench: BenchRecipe | None, config: Mapping[str, Any] | None) -> list[str]:
    """What they cost, a line; nothing where there are none. `config` is the base's, None where it is not there yet."""
    grid = None if bench is None else grid_of(bench)
    if grid is None:
        return []
    most = max(size * (length + grid.new_tokens) for length, size in grid.cells)
    position = _position_bytes(config or {})
    room = f"; keys and values take up to {bytes_text(most * position)} in each of the two" if position else ""
    return [f"latency: {grid.words()}{room}"]


def _position_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of a token's keys and values in fp32, the largest that a runtime holds; 0 where it is not known."""
    heads = int(config.get("num_attention_heads") or 0)
    width = config.get("head_dim") or (int(config.get("hidden_size") or 0) // heads if heads else 0)
    return 8 * int(config.get("num_hidden_layers") or 0) * int(config.get("num_key_value_heads") or heads) * int(width)
