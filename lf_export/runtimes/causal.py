"""A session over a Transformers causal language model, shared by the `torch` and `transformers` runtimes."""

import copy
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from lf_export.errors import InputError
from lf_export.runtimes.answers import Answer, check_batch, check_cache, check_room
from lf_export.runtimes.base import Generation, Logits, PromptGroup
from lf_export.runtimes.guides import Guide, Guides, Held
from lf_export.runtimes.llguidance_follower import LlguidanceGrammars
from lf_export.runtimes.rows import Rows

# More rows cost little while reading the weights is what takes time; their keys and values must find room.
_MOST_ROWS = 48
_CACHE_BYTES = 2 << 30
# What a call of the model costs beside its tokens, in tokens: layers that are small wait for memory.
_CALL_TOKENS = 16


class CausalSession:
    """Scores and answers with a Transformers model that is in memory.

    Branches of one prefix and of like length are prefilled together, padded on the right, where no token sees the
    padding. Nothing ever stands between two tokens of a sequence, so that a sliding window counts right.
    """

    guided = "llguidance"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, representative: bool, load_seconds: float) -> None:
        self.name = name
        self.representative = representative
        self.load_seconds = load_seconds
        self.eos_ids = end_tokens(model, tokenizer)
        self.vocab_size = int(model.config.get_text_config().vocab_size)
        self._model = model
        self._tokenizer = tokenizer
        self._pad = min(self.eos_ids)
        self._grammars: LlguidanceGrammars | None = None

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
        ((_, found),) = self.generate_groups([(prefix, branches)], max_new_tokens)
        return found

    def generate_groups(
        self, groups: Sequence[PromptGroup], max_new_tokens: int, guides: Guides | None = None
    ) -> Iterator[tuple[int, list[Generation]]]:
        """See `Session.generate_groups`; the next group is prefilled as soon as enough answers have ended."""
        waiting = deque(enumerate(groups))
        answers: dict[int, list[Answer]] = {}
        running: list[Answer] = []  # the answer of each row, those that are over too
        rows: Rows | None = None
        most = self._most_rows(groups, max_new_tokens)
        while waiting or not all(answer.over for answer in running):
            joining: list[tuple[Rows, list[Answer]]] = []
            busy = sum(not answer.over for answer in running)
            while waiting and (not busy or busy + len(waiting[0][1][1]) <= most):
                number, (prefix, branches) = waiting.popleft()
                wanted = guides[number] if guides else [None] * len(branches)
                answers[number] = [Answer(time.perf_counter(), held=self._held(guide)) for guide in wanted]
                busy += len(branches)
                if branches:
                    joining += self._start(prefix, branches, answers[number])
            rows, running = _regrouped(rows, running, joining)
            if rows is not None:
                self._take(rows, running, max_new_tokens)
            for number in [number for number, found in answers.items() if all(answer.over for answer in found)]:
                yield number, [answer.generation(self.eos_ids, self.decode) for answer in answers.pop(number)]
            if rows is not None and not all(answer.over for answer in running):
                self._step(rows, running)

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """See `Session.generate_one`."""
        return self.generate(prompt[:1], [prompt[1:]], max_new_tokens)[0]

    def time_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, ...]:
        """See `Session.time_batch`."""
        check_batch(prompts, new_tokens, getattr(self._model.config.get_text_config(), "max_position_embeddings", None))
        check_cache(prompts, new_tokens, self._position_bytes(), _CACHE_BYTES)
        times: list[float] = []
        began = time.perf_counter()
        answers = [Answer(began) for _ in prompts]
        ((started, _),) = self._start((), prompts, answers)
        rows = Rows.merged([(started, range(len(answers)))])  # as every answer's: the cache grows without copies
        while True:
            rows.tokens.tolist()  # a device is waited for
            times.append(time.perf_counter() - began)
            if len(times) == new_tokens:
                return tuple(times)
            self._step(rows, answers)

    def peak_gpu_bytes(self) -> int | None:
        """See `Session.peak_gpu_bytes`; what torch's allocator held, never run on a GPU by this project's tests."""
        device = self._model.device
        return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None

    def stream(self, prompt: Sequence[int], max_new_tokens: int, guide: Guide | None = None) -> Iterator[Generation]:
        """See `Session.stream`."""
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        most = min(max_new_tokens, check_room(len(prompt), context)) if context else max_new_tokens
        answer = Answer(time.perf_counter(), held=self._held(guide))
        ((rows, _),) = self._start(prompt[:1], [prompt[1:]], [answer])
        self._take(rows, [answer], most)
        yield answer.generation(self.eos_ids, self.decode)
        while not answer.over:
            self._step(rows, [answer])
            self._take(rows, [answer], most)
            yield answer.generation(self.eos_ids, self.decode)

    def close(self) -> None:
        """Free the model."""
        self._model = None

    def _most_rows(self, groups: Sequence[PromptGroup], max_new_tokens: int) -> int:
        """How many answers run at a time: what their keys and values leave room for; a group is never divided."""
        longest = max((len(prefix) + len(branch) for prefix, branches in groups for branch in branches), default=0)
        return min(_MOST_ROWS, _CACHE_BYTES // (self._position_bytes() * (longest + max_new_tokens)))

    def _position_bytes(self) -> int:
        """Bytes of the keys and values of one token."""
        config = self._model.config.get_text_config()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        values: int = 2 * config.num_hidden_layers * config.num_key_value_heads * width
        return values * int(self._model.dtype.itemsize)

    def _prefill(self, prefix: Sequence[int]) -> DynamicCache:
        """The cache after `prefix`; layers with a sliding window keep all of it, what they forget is masked."""
        cache = DynamicCache()
        if prefix:
            self._model(input_ids=torch.tensor([list(prefix)]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    @torch.inference_mode()
    def _start(
        self, prefix: Sequence[int], branches: Sequence[Sequence[int]], answers: Sequence[Answer]
    ) -> list[tuple[Rows, list[Answer]]]:
        """Prefill one group, and find the first token of each answer; branches of like length run together."""
        prefix, heads = _split(prefix, branches)
        rows = [[*head, *branch] for head, branch in zip(heads, branches, strict=True)]
        shared = self._prefill(prefix)
        started: list[tuple[Rows, list[Answer]]] = []
        for places in _of_like_length(list(map(len, rows))):
            cache = copy.deepcopy(shared)
            cache.batch_repeat_interleave(len(places))
            last = torch.tensor([len(rows[place]) - 1 for place in places])
            kept, where = torch.unique(last, return_inverse=True)
            width = int(last.max()) + 1
            ids = torch.tensor([rows[place] + [self._pad] * (width - len(rows[place])) for place in places])
            output = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=kept)
            starting = [answers[place] for place in places]
            tokens = _chosen(output.logits[torch.arange(len(places)), where], starting)
            started.append((Rows(tokens, torch.zeros_like(last), last + 1 + len(prefix), cache), starting))
        return started

    def _take(self, rows: Rows, running: Sequence[Answer], most: int) -> None:
        """Write the last token of each row to its answer."""
        now = time.perf_counter()
        for answer, token in zip(running, rows.tokens.tolist(), strict=True):
            if not answer.over:
                answer.take(token, now, self.eos_ids, most)

    @torch.inference_mode()
    def _step(self, rows: Rows, running: Sequence[Answer]) -> None:
        """Find the next token of each row."""
        output = self._model(
            input_ids=rows.tokens[:, None],
            attention_mask=rows.mask(),
            position_ids=rows.lengths[:, None],
            past_key_values=rows.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        rows.take(_chosen(output.logits[:, -1], running))

    def _held(self, guide: Guide | None) -> Held | None:
        if guide is None:
            return None
        if self._grammars is None:
            self._grammars = LlguidanceGrammars(self._tokenizer, self.vocab_size, self.eos_ids)
        return Held(guide, self._grammars.follow, self.decode, self.eos_ids)


def _chosen(logits: torch.Tensor, answers: Sequence[Answer]) -> torch.Tensor:
    """The next token of each answer, [rows], from logits [rows, vocab_size]."""
    tokens = logits.argmax(dim=-1)
    for row, answer in enumerate(answers):
        if answer.held is not None and not answer.over:
            tokens[row] = answer.choose(int(tokens[row]), logits[row].float().numpy())
    return tokens


def _of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """The places of `lengths` in batches, so that padding to the longest of each costs less than running it alone."""
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        shortest = lengths[batches[-1][0]] if batches else 0
        if batches and (lengths[place] - shortest) * len(batches[-1]) < _CALL_TOKENS + lengths[place] // 4:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _regrouped(
    rows: Rows | None, running: list[Answer], joining: Sequence[tuple[Rows, list[Answer]]]
) -> tuple[Rows | None, list[Answer]]:
    """Let new rows in. Rows that are over leave then, or when they are a quarter: leaving copies all that stays."""
    going = [row for row, answer in enumerate(running) if not answer.over]
    if not joining and 4 * len(going) > 3 * len(running):
        return rows, running
    parts: list[tuple[Rows, Sequence[int]]] = [(start, range(len(answers))) for start, answers in joining]
    if rows is not None and going:
        parts.insert(0, (rows, going))
    left = [running[row] for row in going] + [answer for _, answers in joining for answer in answers]
    return (Rows.merged(parts) if parts else None), left


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
