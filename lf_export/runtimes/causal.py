"""A session over a Transformers causal language model, shared by the `torch` and `transformers` runtimes."""

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lf_export.errors import InputError
from lf_export.runtimes.base import Generation, Logits


class CausalSession:
    """Scores and answers with a Transformers model that is in memory.

    Branches of one prefix are prefilled together: [prefix][padding][branch], where padding is masked and positions
    go on as if it were not there.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, representative: bool, load_seconds: float) -> None:
        self.name = name
        self.representative = representative
        self.load_seconds = load_seconds
        self.eos_ids = end_tokens(model, tokenizer)
        self.vocab_size = int(model.config.get_text_config().vocab_size)
        self._model = model
        self._tokenizer = tokenizer
        self._pad = min(self.eos_ids)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens are recognised, none is added."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens kept."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @torch.inference_mode()
    def score(self, prefix: Sequence[int], branches: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Logits]:
        """See `Session.score`."""
        prefix, heads = _split(prefix, branches)
        shared = self._prefill(prefix)
        rows: list[Logits] = []
        for branch, start, head in zip(branches, starts, heads, strict=True):
            wanted = len(branch) - start
            if wanted <= 0:
                rows.append(np.empty((0, self.vocab_size), np.float32))
                continue
            # The last token predicts nothing that is asked for.
            ids = torch.tensor([[*head, *branch][:-1]])
            output = self._model(
                input_ids=ids, past_key_values=copy.deepcopy(shared), use_cache=True, logits_to_keep=wanted
            )
            rows.append(output.logits[0, -wanted:].float().numpy())
        return rows

    @torch.inference_mode()
    def generate(
        self, prefix: Sequence[int], branches: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[Generation]:
        """See `Session.generate`; all branches run as one batch."""
        if not branches:
            return []
        began = time.perf_counter()
        prefix, heads = _split(prefix, branches)
        rows = [[*head, *branch] for head, branch in zip(heads, branches, strict=True)]
        width = max(map(len, rows))
        padding = torch.tensor([width - len(row) for row in rows])
        ids = torch.tensor([[self._pad] * (width - len(row)) + row for row in rows])
        shared = self._prefill(prefix)
        if shared is not None:
            shared = copy.deepcopy(shared)
            shared.batch_repeat_interleave(len(rows))
        seen = torch.arange(width)[None, :] >= padding[:, None]
        mask = torch.cat([torch.ones(len(rows), len(prefix), dtype=torch.bool), seen], dim=1).long()
        positions = (torch.arange(width)[None, :] - padding[:, None]).clamp(min=0) + len(prefix)
        return self._decode(ids, mask, positions, shared, max_new_tokens, began)

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """See `Session.generate_one`."""
        return self.generate(prompt[:1], [prompt[1:]], max_new_tokens)[0]

    def close(self) -> None:
        """Free the model."""
        self._model = None

    def _prefill(self, prefix: Sequence[int]) -> Any:
        if not prefix:
            return None
        output = self._model(input_ids=torch.tensor([list(prefix)]), use_cache=True, logits_to_keep=1)
        return output.past_key_values

    def _decode(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: Any,
        max_new_tokens: int,
        began: float,
    ) -> list[Generation]:
        rows = ids.shape[0]
        answers: list[list[int]] = [[] for _ in range(rows)]
        times: list[list[float]] = [[] for _ in range(rows)]
        going = [True] * rows
        for _ in range(max_new_tokens):
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            best = output.logits[:, -1].argmax(dim=-1)
            now = time.perf_counter() - began
            for row, token in enumerate(best.tolist()):
                if going[row]:
                    answers[row].append(token)
                    times[row].append(now)
                    going[row] = token not in self.eos_ids
            if not any(going):
                break
            ids = best[:, None]
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(rows, 1)], dim=1)
        return [self._generation(*pair) for pair in zip(answers, times, strict=True)]

    def _generation(self, ids: list[int], times: list[float]) -> Generation:
        kept = ids[:-1] if ids and ids[-1] in self.eos_ids else ids
        return Generation(tuple(ids), self.decode(kept), tuple(times))


def _split(prefix: Sequence[int], branches: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """The prefix without its last token, and that token for each branch, so that a branch is never empty."""
    kept, last = list(prefix[:-1]), list(prefix[-1:])
    return kept, [list(last) for _ in branches]


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer, from the generation config and the tokenizer."""
    found: set[int] = set()
    for value in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        if isinstance(value, int):
            found.add(value)
        elif value is not None:
            found.update(value)
    if not found:
        raise InputError("neither generation_config.json nor the tokenizer names an end token")
    return frozenset(found)


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in the folder `path`, from local files only.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no tokenizer can be loaded: {str(error).splitlines()[0]}") from error
