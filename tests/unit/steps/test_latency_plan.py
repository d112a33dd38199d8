"""A recipe's batches become options, and what they cost is said beforehand."""

from pathlib import Path
from typing import Any

import pytest

from lf_export.recipe import Recipe
from lf_export.steps.bench_options import BenchOptions
from lf_export.steps.latency_grid import Grid
from lf_export.steps.latency_plan import latency_cost

LATENCY = {"prompt_lengths": [128, 512], "batch_sizes": [1, 4], "new_tokens": 32, "warmup": 1, "repeats": 3}
CONFIG = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}


def recipe(**bench: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "x",
            "base": {"path": "b"},
            "adapters": ["a"],
            "output": "o",
            "quantize": {"q": {"format": "gguf"}},
            "bench": bench,
        }
    )


def test_batches_are_options_of_the_bench() -> None:
    found = recipe(latency=LATENCY)
    assert found.bench is not None
    assert BenchOptions.of_recipe(found, found.bench, Path(), 1).grid == Grid([128, 512], [1, 4], 32, 1, 3)
    plain = recipe()
    assert plain.bench is not None
    assert BenchOptions.of_recipe(plain, plain.bench, Path(), 1).grid is None


def test_what_they_cost_is_said_beforehand() -> None:
    bench = recipe(latency=LATENCY).bench
    (said,) = latency_cost(bench, CONFIG)
    # 2 models, 1 + 3 batches: 8 * (128 + 512) * (1 + 4) prompt tokens, 8 * 2 * 5 rows of 32 tokens.
    assert "for each artifact 32 batches with the baseline in turn, 25,600 prompt tokens and 2,560 written" in said
    # 4 rows of 544 tokens, 2 * 30 layers * 3 heads * 64 values of 4 bytes each.
    assert said.endswith("keys and values take up to 100 MB in each of the two")
    assert "keys and values" not in latency_cost(bench, None)[0]


def test_nothing_is_said_where_nothing_is_asked_for() -> None:
    assert latency_cost(recipe().bench, CONFIG) == latency_cost(None, CONFIG) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt_lengths": []},
        {"prompt_lengths": [0]},
        {"prompt_lengths": [(1 << 20) + 1]},
        {"batch_sizes": [0]},
        {"new_tokens": 1},
        {"warmup": 0},
        {"repeats": 0},
        {"batch": [1]},
    ],
)
def test_batches_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"latency.{next(iter(wrong))}"):
        recipe(latency=wrong)
