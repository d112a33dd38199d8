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
from lf_export.runtimes.answers import Answer
from lf_export.runtimes.base import Generation, Logits, PromptGroup
from lf_export.runtimes.onnx_graph import CONFIG_NAME, Graph
from lf_export.runtimes.onnx_tokenizer import FolderTokenizer

name = "onnx"

# As in the torch runtime: more rows cost little while reading the weights is what takes time.
_MOST_ROWS = 32
_CACHE_BYTES = 2 << 30


def accepts(path: Path) -> bool:
    """Whether `path` is a folder with a GenAI config."""
    return (path / CONFIG_NAME).is_file()


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


class OnnxSession:
    """Scores and answers with a decoder graph.

    Answers under way are the first rows of the graph's cache: one that ends gives its row to the last one.
    """

    def __init__(self, path: Path, graph: Graph, tokenizer: FolderTokenizer, began: float) -> None:
        facts = graph.facts
        self.name = name
        self.representative = not facts.cuda
        self.eos_ids = facts.eos_ids | tokenizer.eos_ids
        self.vocab_size = facts.vocab_size
        self._path, self._graph, self._tokenizer = path, graph, tokenizer
        self.load_seconds = time.perf_counter() - began

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens are recognised, none is added."""
        return self._tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens kept."""
        return self._tokenizer.decode(ids)

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
        self, groups: Sequence[PromptGroup], max_new_tokens: int
    ) -> Iterator[tuple[int, list[Generation]]]:
        """See `Session.generate_groups`; the next group is prefilled as soon as there are rows for it.

        Raises:
            InputError: a prompt is empty or as long as the model's context.
        """
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
                yield number, [self._generation(answer) for answer in answers.pop(number)]
            if rows:
                self._advance(rows)

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """See `Session.generate_one`."""
        return self.generate((), [prompt], max_new_tokens)[0]

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

    def _check(self, length: int) -> None:
        if length > self._graph.facts.context:
            message = f"{length} tokens are asked for, {self._path} has a context of {self._graph.facts.context}"
            raise InputError(message, "leave out the longest items")

    def _generation(self, answer: Answer) -> Generation:
        ids = answer.ids
        kept = ids[:-1] if ids and ids[-1] in self.eos_ids else ids
        return Generation(tuple(ids), self.decode(kept), tuple(answer.times))
