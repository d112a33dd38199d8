"""The `onnx` runtime: a folder in ONNX Runtime GenAI's layout, on raw ONNX Runtime.

Greedy decoding and scoring need no search library: the graph is called directly, so that every logit is seen.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lf_export.errors import InputError
from lf_export.runtimes.answers import Answer, check_batch, check_cache, check_room
from lf_export.runtimes.base import Generation, Logits, PromptGroup
from lf_export.runtimes.guides import Guide, Guides, check_unguided
from lf_export.runtimes.onnx_graph import Graph
from lf_export.runtimes.onnx_session import FolderSession, accepts
from lf_export.runtimes.onnx_tokenizer import FolderTokenizer

__all__ = ["OnnxSession", "accepts", "name", "open_session"]

name = "onnx"

# As in the torch runtime: more rows cost little while reading the weights is what takes time.
_MOST_ROWS = 32
_CACHE_BYTES = 2 << 30


def open_session(path: Path, threads: int) -> "OnnxSession":
    """Load the artifact at `path` with `threads` threads on the CPU.

    Raises:
        InputError: it is not a decoder that can be used.
        MissingError: ONNX Runtime is not installed, or both of its wheels are.
        StepError: ONNX Runtime cannot load the graph.
    """
    began = time.perf_counter()
    tokenizer = FolderTokenizer(path)
    return OnnxSession(path, Graph(path, threads), tokenizer, began)


@dataclass
class _Row:
    """An answer under way: its tokens in the cache, and how many it may write."""

    answer: Answer
    length: int
    room: int


class OnnxSession(FolderSession):
    """Scores and answers with a decoder graph.

    Answers under way are the first rows of the graph's cache: one that ends gives its row to the last one.
    """

    def __init__(self, path: Path, graph: Graph, tokenizer: FolderTokenizer, began: float) -> None:
        super().__init__(path, graph.facts, tokenizer)
        self.name = name
        self.representative = not graph.facts.cuda
        self._graph = graph
        self.load_seconds = time.perf_counter() - began

    def score(self, prefix: Sequence[int], branches: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Logits]:
        """See `Session.score`; each branch is written over the one before it.

        Raises:
            InputError: nothing precedes a start, or prefix and branch are longer than the model's context.
        """
        shared, tail = list(prefix[:-1]), list(prefix[-1:])
        longest = max((len(shared) + len(tail) + len(branch) for branch in branches), default=1)
        self._check(longest - 1)
        self._graph.make_room(1, longest)
        if shared:
            self._graph.extend(0, shared, 0, 1)
        found: list[Logits] = []
        for branch, start in zip(branches, starts, strict=True):
            text, wanted = [*tail, *branch], len(branch) - start
            if wanted <= 0:
                found.append(np.empty((0, self.vocab_size), np.float32))
                continue
            if len(tail) + start < 1:
                raise InputError("a branch cannot be scored from its first token when the prefix is empty")
            # The last token predicts nothing that is asked for.
            found.append(self._graph.extend(0, text[:-1], len(shared), wanted))
        return found

    def generate(
        self, prefix: Sequence[int], branches: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[Generation]:
        """See `Session.generate`; all branches run as one batch. An answer is cut at the model's context.

        Raises:
            InputError: a prompt is empty or as long as the model's context.
        """
        ((_, found),) = self.generate_groups([(prefix, branches)], max_new_tokens)
        return found

    def generate_groups(
        self, groups: Sequence[PromptGroup], max_new_tokens: int, guides: Guides | None = None
    ) -> Iterator[tuple[int, list[Generation]]]:
        """See `Session.generate_groups`; the next group is prefilled as soon as there are rows for it.

        Raises:
            InputError: a prompt is empty or as long as the model's context.
        """
        check_unguided(self.name, guides)
        most = self._make_room(groups, max_new_tokens)
        waiting = deque(enumerate(groups))
        answers: dict[int, list[Answer]] = {}
        rows: list[_Row] = []
        while waiting or rows:
            while waiting and len(rows) + len(waiting[0][1][1]) <= most:
                number, group = waiting.popleft()
                begun = self._begin(group, len(rows), max_new_tokens)
                answers[number] = [row.answer for row in begun]
                rows += begun
            self._drop_finished(rows)
            for number in [number for number, found in answers.items() if all(answer.over for answer in found)]:
                yield number, [answer.generation(self.eos_ids, self.decode) for answer in answers.pop(number)]
            if rows:
                self._advance(rows)

    def time_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, ...]:
        """See `Session.time_batch`: prompts are read one after the other, as in `generate`, then decoded together."""
        graph = self._graph
        check_batch(prompts, new_tokens, graph.facts.context)
        check_cache(prompts, new_tokens, graph.position_bytes, _CACHE_BYTES)
        length = len(prompts[0])
        graph.make_room(len(prompts), length + new_tokens)
        times: list[float] = []
        began = time.perf_counter()
        first = [int(graph.extend(row, prompt, 0, 1)[0].argmax()) for row, prompt in enumerate(prompts)]
        tokens = np.array(first, np.int64)
        while True:
            times.append(time.perf_counter() - began)
            if len(times) == new_tokens:
                return tuple(times)
            past = np.full(len(prompts), length + len(times) - 1, np.int64)
            tokens = graph.step(tokens, past).argmax(axis=1)

    def stream(self, prompt: Sequence[int], max_new_tokens: int, guide: Guide | None = None) -> Iterator[Generation]:
        """See `Session.stream`."""
        check_unguided(self.name, guide)
        most = min(max_new_tokens, check_room(len(prompt), self._graph.facts.context))
        group: PromptGroup = ((), [prompt])
        self._make_room([group], most)
        rows = self._begin(group, 0, most)
        answer = rows[0].answer
        yield answer.generation(self.eos_ids, self.decode)
        while not answer.over:
            self._advance(rows)
            yield answer.generation(self.eos_ids, self.decode)

    def close(self) -> None:
        """Free the graph."""
        self._graph.close()

    def _make_room(self, groups: Sequence[PromptGroup], new: int) -> int:
        """Memory for as many rows as fit at a time; a group is never divided."""
        lengths = [len(prefix) + len(branch) for prefix, branches in groups for branch in branches]
        if 0 in lengths:
            raise InputError("an empty prompt cannot be continued")
        longest = max(lengths, default=1)
        self._check(longest + min(new, 1))
        room = min(longest + new, self._graph.facts.context)
        sizes = [len(branches) for _, branches in groups]
        fitting = min(_MOST_ROWS, _CACHE_BYTES // (self._graph.position_bytes * room), sum(sizes))
        most = max([1, fitting, *sizes])
        self._graph.make_room(most, room)
        return most

    def _begin(self, group: PromptGroup, first: int, limit: int) -> list[_Row]:
        """Prefill a group into the rows from `first` on, and write the first token of each answer."""
        prefix, branches = group
        shared, tail = list(prefix[:-1]), list(prefix[-1:])
        began = time.perf_counter()
        if shared and branches:
            self._graph.extend(first, shared, 0, 1)
        rows = []
        # Row `first` holds what all share: it is copied before its own branch is written.
        for place in range(1, len(branches)):
            self._graph.copy(first, first + place, len(shared))
        for place, branch in enumerate(branches):
            text = [*tail, *branch]
            length = len(shared) + len(text)
            row = _Row(Answer(began), length, min(limit, self._graph.facts.context - length))
            logits = self._graph.extend(first + place, text, len(shared), 1)
            self._take(row, int(logits[0].argmax()))
            rows.append(row)
        return rows

    def _advance(self, rows: Sequence[_Row]) -> None:
        """Write the next token of each row."""
        tokens = np.array([row.answer.ids[-1] for row in rows], np.int64)
        past = np.array([row.length for row in rows], np.int64)
        choices = self._graph.step(tokens, past).argmax(axis=1)
        for row, choice in zip(rows, choices.tolist(), strict=True):
            row.length += 1
            self._take(row, choice)

    def _take(self, row: _Row, token: int) -> None:
        row.answer.take(token, time.perf_counter(), self.eos_ids, row.room)

    def _drop_finished(self, rows: list[_Row]) -> None:
        """Keep rows that are under way at the front of the cache."""
        place = 0
        while place < len(rows):
            if not rows[place].answer.over:
                place += 1
                continue
            last = rows.pop()
            if place < len(rows):
                self._graph.copy(len(rows), place, last.length)
                rows[place] = last
