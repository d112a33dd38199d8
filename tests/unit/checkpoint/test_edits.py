"""What becomes of each tensor: sources, changes, and tied weights that come apart or stay one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.edits import Edit, plan_edits
from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError

Make = Callable[..., Path]
Tensors = Callable[..., dict[str, torch.Tensor]]
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
PREFIX = "base_model.model."
ROWS = "token_adapter.trainable_tokens_delta"


@pytest.fixture
def edits(make_base: Make, make_adapter: Make, lora_tensors: Tensors) -> Callable[..., dict[str, Edit]]:
    """Plan one adapter with some extra tensors, or several: each a pair of tensors and config."""

    def plan(*adapters: tuple[dict[str, torch.Tensor], dict[str, Any]], base: Path | None = None) -> dict[str, Edit]:
        opened = [
            open_adapter(
                make_adapter(
                    lora_tensors() | {f"{PREFIX}{name}": tensor for name, tensor in extra.items()},
                    f"adapter{number}",
                    **config,
                )
            )
            for number, (extra, config) in enumerate(adapters)
        ]
        return plan_edits(open_checkpoint(base or make_base()), opened, [1.0] * len(opened))

    return plan


def test_a_copy_that_equals_the_base_s_is_no_change(edits: Any, base_tensors: Tensors) -> None:
    copy = {EMBEDDING: base_tensors()[EMBEDDING].float(), HEAD: base_tensors()[EMBEDDING]}
    planned = edits((copy, {}))
    assert HEAD not in planned
    assert not planned[EMBEDDING].changed


def test_a_copy_that_differs_stands_for_both_tied_weights(edits: Any) -> None:
    planned = edits(({EMBEDDING: torch.ones(12, 4)}, {}))
    assert HEAD not in planned
    assert planned[EMBEDDING].replaced
    assert planned[EMBEDDING].source.shape == (12, 4)
    assert planned[EMBEDDING].dtype == "BF16"


def test_two_copies_that_differ_come_apart(edits: Any) -> None:
    planned = edits(({EMBEDDING: torch.ones(12, 4), HEAD: torch.zeros(12, 4)}, {}))
    assert planned[EMBEDDING].source.name.endswith(EMBEDDING)
    assert planned[HEAD].source.name.endswith(HEAD)


def test_a_module_trained_whole_is_one_of_the_two(edits: Any) -> None:
    planned = edits(({HEAD: torch.ones(10, 4)}, {"modules_to_save": ["lm_head"]}))
    assert planned[HEAD].replaced
    assert not planned[EMBEDDING].changed


def test_rows_of_the_embedding_are_rows_of_both(edits: Any) -> None:
    config = {"trainable_token_indices": [1, 9]}
    planned = edits(({f"model.embed_tokens.{ROWS}": torch.ones(2, 4)}, config))
    assert HEAD not in planned
    assert [change.kind for change in planned[EMBEDDING].changes] == ["tokens"]


def test_rows_saved_twice_are_changed_once(edits: Any) -> None:
    rows = {f"{name}.{ROWS}": torch.ones(2, 4) for name in ("lm_head", "model.embed_tokens")}
    planned = edits((rows, {"trainable_token_indices": [1, 9]}))
    assert HEAD not in planned
    assert len(planned[EMBEDDING].changes) == 1


def test_rows_of_both_that_differ_come_apart(edits: Any) -> None:
    rows = {f"lm_head.{ROWS}": torch.ones(2, 4), f"model.embed_tokens.{ROWS}": torch.zeros(2, 4)}
    planned = edits((rows, {"trainable_token_indices": [1, 9]}))
    assert len(planned[HEAD].changes) == len(planned[EMBEDDING].changes) == 1
    assert planned[HEAD].changes != planned[EMBEDDING].changes


def test_a_row_that_is_not_there_is_named(edits: Any) -> None:
    with pytest.raises(InputError, match=r"token 10 was trained, .* has no such row"):
        edits(({f"model.embed_tokens.{ROWS}": torch.ones(2, 4)}, {"trainable_token_indices": [1, 10]}))


def test_what_grows_alone_is_refused(edits: Any, make_base: Make, base_tensors: Tensors) -> None:
    untied = make_base(base_tensors() | {HEAD: torch.ones(10, 4).bfloat16()}, tie_word_embeddings=False)
    with pytest.raises(InputError, match="must grow together"):
        edits(({EMBEDDING: torch.ones(12, 4)}, {}), base=untied)


def test_a_later_adapter_must_fit_what_an_earlier_one_left(edits: Any) -> None:
    head = {"lm_head.lora_A.weight": torch.ones(2, 4), "lm_head.lora_B.weight": torch.ones(10, 2)}
    with pytest.raises(InputError, match=r"lm_head.weight is \[12, 4\] by then, the adapter is for \[10, 4\]"):
        edits(({EMBEDDING: torch.ones(12, 4)}, {}), (head, {"target_modules": ["q_proj", "lm_head"]}))


def test_a_config_that_does_not_say_is_tied_when_there_is_no_output_layer(edits: Any, make_base: Make) -> None:
    base = make_base(tie_word_embeddings=None)
    text = (base / "config.json").read_text(encoding="utf-8").replace(', "tie_word_embeddings": null', "")
    (base / "config.json").write_text(text, encoding="utf-8")
    planned = edits(({HEAD: torch.ones(10, 4)}, {"modules_to_save": ["lm_head"]}), base=base)
    assert planned[HEAD].replaced
