"""A session over a Transformers causal language model, shared by the `torch` and `transformers` runtimes."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lf_export.errors import InputError
from lf_export.runtimes.base import Generation, Logits, PromptGroup
from lf_export.runtimes.caches import joined, keep_rows


class CausalSession:
    """Scores and answers with a Transformers model that is in memory.

    Branches of one prefix are prefilled together: [prefix][padding][branch], where padding is masked and positions
    go on as if it were not there.
    """

    # More rows cost little while reading the weights is what takes time.
    batch_rows = 32

    def __init__(self, model: Any, tokenizer: Any, *, name: str, representative: bool, load_seconds: float) -> None:
        self.name = name
        self.representative = representative
        self.load_seconds = load_seconds
        self.eos_ids = end_tokens(model, tokenizer)
        self.vocab_size = int(model.config.get_text_config().vocab_size)
        self._model = model
        self._tokenizer = tokenizer
        self._pad = min(self.eos_ids)
        self._prefilled: dict[tuple[int, ...], Any] = {}

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

    def generate(
        self, prefix: Sequence[int], branches: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[Generation]:
        """See `Session.generate`; all branches run as one batch."""
        return self.generate_groups([(prefix, branches)], max_new_tokens)[0]

    @torch.inference_mode()
    def generate_groups(self, groups: Sequence[PromptGroup], max_new_tokens: int) -> list[list[Generation]]:
        """See `Session.generate_groups`; each group is prefilled by itself, then all rows decode as one batch."""
        began = time.perf_counter()
        self._prefilled.clear()
        starts = [self._start(prefix, branches) for prefix, branches in groups if branches]
        if not starts:
            return [[] for _ in groups]
        lengths = [start.mask.shape[1] for start in starts]
        longest = max(lengths)
        rows = _Rows(
            tokens=torch.cat([start.tokens for start in starts]),
            positions=torch.cat([start.positions for start in starts]),
            mask=torch.cat([_left_padded(start.mask, longest) for start in starts]),
            cache=joined([start.cache for start in starts], lengths),
        )
        answers = iter(self._decode(rows, max_new_tokens, began))
        return [[next(answers) for _ in branches] for _, branches in groups]

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """See `Session.generate_one`."""
        return self.generate(prompt[:1], [prompt[1:]], max_new_tokens)[0]

    def close(self) -> None:
        """Free the model."""
        self._model = None
        self._prefilled.clear()

    def _prefill(self, prefix: Sequence[int]) -> Any:
        """The cache after `prefix`; kept until the next `generate_groups`, so that scoring finds it again."""
        if not prefix:
            return None
        key = tuple(prefix)
        if key not in self._prefilled:
            output = self._model(input_ids=torch.tensor([list(prefix)]), use_cache=True, logits_to_keep=1)
            self._prefilled[key] = output.past_key_values
        return self._prefilled[key]

    def _start(self, prefix: Sequence[int], branches: Sequence[Sequence[int]]) -> "_Rows":
        """Prefill one group, and take the first token of each answer."""
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
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=shared,
            use_cache=True,
            logits_to_keep=1,
        )
        best = output.logits[:, -1].argmax(dim=-1)
        return _Rows(best, positions[:, -1:] + 1, mask, output.past_key_values)

    def _decode(self, rows: "_Rows", max_new_tokens: int, began: float) -> list[Generation]:
        count = len(rows.tokens)
        answers: list[list[int]] = [[] for _ in range(count)]
        times: list[list[float]] = [[] for _ in range(count)]
        going = list(range(count))
        for step in range(max_new_tokens):
            now = time.perf_counter() - began
            for row, token in zip(going, rows.tokens.tolist(), strict=True):
                answers[row].append(token)
                times[row].append(now)
            left = [at for at, token in enumerate(rows.tokens.tolist()) if token not in self.eos_ids]
            if not left or step + 1 == max_new_tokens:
                break
            if len(left) < len(going):
                rows.keep(torch.tensor(left))
                going = [going[at] for at in left]
            rows.mask = torch.cat([rows.mask, rows.mask.new_ones(len(going), 1)], dim=1)
            output = self._model(
                input_ids=rows.tokens[:, None],
                attention_mask=rows.mask,
                position_ids=rows.positions,
                past_key_values=rows.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            rows.tokens = output.logits[:, -1].argmax(dim=-1)
            rows.positions = rows.positions + 1
        return [self._generation(*pair) for pair in zip(answers, times, strict=True)]

    def _generation(self, ids: list[int], times: list[float]) -> Generation:
        kept = ids[:-1] if ids and ids[-1] in self.eos_ids else ids
        return Generation(tuple(ids), self.decode(kept), tuple(times))


@dataclass
class _Rows:
    """Answers under way: the last token of each [rows], its position [rows, 1], what it sees [rows, t], its cache."""

    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    cache: Any

    def keep(self, rows: torch.Tensor) -> None:
        """Drop every row but `rows`."""
        self.tokens, self.positions, self.mask = self.tokens[rows], self.positions[rows], self.mask[rows]
        keep_rows(self.cache, rows)


def _left_padded(mask: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(mask, (length - mask.shape[1], 0))


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
