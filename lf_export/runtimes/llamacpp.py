"""The llama.cpp runtime: a GGUF in this process, through the C functions of the pinned xllamacpp."""

import ctypes
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lf_export.errors import InputError, StepError
from lf_export.runtimes.base import Generation, Logits, PromptGroup
from lf_export.runtimes.llamacpp_context import Context, Row, int32_pointer
from lf_export.runtimes.llamacpp_native import last_errors, llama

NAME = "llamacpp"
_MAGIC = b"GGUF"
# Sequences that are decoded at a time; sequence 0 holds the shared prefix.
_PARALLEL = 8


def accepts(path: Path) -> bool:
    """Whether `path` is a GGUF model or a folder with one."""
    return bool(_models(path))


def open_session(path: Path, threads: int) -> "LlamaCppSession":
    """Load the GGUF at `path`, a file or a folder with one, with `threads` CPU threads.

    Raises:
        InputError: there is none, there are several, or llama.cpp cannot load it.
        MissingError: xllamacpp is not installed.
    """
    models = _models(path)
    if not models:
        raise InputError(f"{path}: no GGUF model there")
    if len(models) > 1:
        names = ", ".join(model.name for model in models)
        raise InputError(f"{path}: {len(models)} GGUF models there: {names}", "name the file")
    return LlamaCppSession(models[0], threads)


def _models(path: Path) -> list[Path]:
    files = sorted(path.glob("*.gguf")) if path.is_dir() else [path] if path.is_file() else []
    return [file for file in files if file.name != "imatrix.gguf" and _starts_with_magic(file)]


def _starts_with_magic(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


class LlamaCppSession:
    """A GGUF that is loaded in llama.cpp, with llama.cpp's defaults (mmap, repacking, F16 cache, flash attention)."""

    name = NAME
    representative = True
    batch_rows = 8  # one group at a time, whose prefix then still is in the context when it is scored

    def __init__(self, path: Path, threads: int) -> None:
        start = time.perf_counter()
        lib = llama()
        self._lib, self._path, self._threads = lib, path, threads
        last_errors()
        self._model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        if not self._model:
            raise InputError(f"{path}: llama.cpp cannot load it: {last_errors()}")
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._longest = int(lib.llama_model_n_ctx_train(self._model))
        self.vocab_size = int(lib.llama_vocab_n_tokens(self._vocab))
        self.eos_ids = frozenset(
            index for index in range(self.vocab_size) if lib.llama_vocab_is_eog(self._vocab, index)
        )
        self._context = self._new_context(512)
        self._prefix: list[int] | None = None  # what sequence 0 of the context holds
        self.load_seconds = time.perf_counter() - start

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`: special tokens are recognised, none is added."""
        data = text.encode()
        size = len(data) + 16  # a token has a byte at least; SentencePiece adds a space
        ids = np.empty(size, np.int32)
        count = self._lib.llama_tokenize(self._vocab, data, len(data), int32_pointer(ids), size, False, True)
        if count < 0:
            raise StepError(f"llama.cpp cannot tokenize a text of {len(data)} bytes: {last_errors()}")
        return [int(index) for index in ids[:count]]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens kept; bytes that are no UTF-8 become U+FFFD."""
        tokens = np.array(ids, np.int32)
        size = 16 * len(tokens) + 16
        for _ in range(2):
            data = ctypes.create_string_buffer(size)
            count = self._lib.llama_detokenize(self._vocab, int32_pointer(tokens), len(tokens), data, size, False, True)
            if count >= 0:
                return data.raw[:count].decode("utf-8", "replace")
            size = -count
        raise StepError(f"llama.cpp cannot turn {len(tokens)} tokens into text")

    def score(self, prefix: Sequence[int], branches: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Logits]:
        """Logits that predict each branch's tokens from its start on, [len(branch) - start, vocabulary].

        Raises:
            InputError: nothing precedes a start, or prefix and branch are longer than the model's context.
        """
        results: list[Logits] = []
        shared, tail = _split(prefix)
        for group in _groups(len(branches)):
            texts = [tail + list(branches[index]) for index in group]
            froms = [len(tail) + starts[index] for index in group]
            if min(froms) < 1:
                raise InputError("a branch cannot be scored from its first token when the prefix is empty")
            self._prepare(shared, texts, 0)
            rows, sizes = [], []
            for sequence, (text, start) in enumerate(zip(texts, froms, strict=True), 1):
                # The last token predicts nothing that is asked for.
                rows += [
                    Row(token, len(shared) + place, sequence, wanted=place >= start - 1)
                    for place, token in enumerate(text[:-1])
                ]
                sizes.append(max(0, len(text) - start))
            logits = self._context.decode(rows)
            results += np.split(logits, np.cumsum(sizes)[:-1])
            self._release(len(group))
        return results

    def generate(
        self, prefix: Sequence[int], branches: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[Generation]:
        """Greedy answers to `prefix + branch` for each branch, up to eight at a time, over one prefill of `prefix`.

        An answer that reaches the model's context is cut there.

        Raises:
            InputError: a prompt is empty or as long as the model's context.
        """
        results: list[Generation] = []
        shared, tail = _split(prefix)
        for group in _groups(len(branches)):
            start = time.perf_counter()
            texts = [tail + list(branches[index]) for index in group]
            self._prepare(shared, texts, max_new_tokens)
            results += self._generate(len(shared), texts, max_new_tokens, start)
            self._release(len(group))
        return results

    def generate_groups(self, groups: Sequence[PromptGroup], max_new_tokens: int) -> list[list[Generation]]:
        """Greedy answers to several groups, one group after the other."""
        return [self.generate(prefix, branches, max_new_tokens) for prefix, branches in groups]

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """One greedy answer with nothing shared or kept from before.

        Raises:
            InputError: the prompt is empty or as long as the model's context.
        """
        self._forget_prefix()
        start = time.perf_counter()
        self._prepare([], [list(prompt)], max_new_tokens)
        (result,) = self._generate(0, [list(prompt)], max_new_tokens, start)
        self._release(1)
        return result

    def close(self) -> None:
        """Free the model; the session is not used again."""
        if self._model:
            self._context.close()
            self._lib.llama_model_free(self._model)
            self._model = None

    def _generate(self, offset: int, texts: Sequence[Sequence[int]], limit: int, start: float) -> list[Generation]:
        """Decode the texts as sequences 1, 2, … after `offset` shared tokens and go on greedily."""
        rows: list[Row] = []
        for sequence, text in enumerate(texts, 1):
            rows += [Row(token, offset + place, sequence) for place, token in enumerate(text[:-1])]
            rows.append(Row(text[-1], offset + len(text) - 1, sequence, wanted=True))
        answers: list[list[int]] = [[] for _ in texts]
        times: list[list[float]] = [[] for _ in texts]
        room = [min(limit, self._longest - offset - len(text)) for text in texts]
        while rows:
            asked = [row for row in rows if row.wanted]
            choices = self._context.decode(rows).argmax(axis=1)
            now = time.perf_counter() - start
            rows = []
            for row, choice in zip(asked, choices, strict=True):
                answer = answers[row.sequence - 1]
                answer.append(int(choice))
                times[row.sequence - 1].append(now)
                if int(choice) not in self.eos_ids and len(answer) < room[row.sequence - 1]:
                    rows.append(Row(int(choice), row.position + 1, row.sequence, wanted=True))
        return [
            Generation(
                tuple(answer), self.decode([index for index in answer if index not in self.eos_ids]), tuple(ticks)
            )
            for answer, ticks in zip(answers, times, strict=True)
        ]

    def _prepare(self, shared: Sequence[int], texts: Sequence[Sequence[int]], new: int) -> None:
        """Prefill `shared`, let sequences 1, 2, … begin with it, with room for `new` tokens after each of `texts`."""
        for text in texts:
            if not text:
                raise InputError("an empty prompt cannot be continued")
            if len(shared) + len(text) + min(new, 1) > self._longest:
                message = (
                    f"{len(shared) + len(text)} tokens are asked for, {self._path} has a context of {self._longest}"
                )
                raise InputError(message, "leave out the longest items")
        cells = len(shared) + sum(len(text) + new for text in texts)
        if cells > self._context.cells:
            self._context.close()
            self._context = self._new_context(cells)
            self._prefix = None
        if self._prefix != list(shared):
            self._forget_prefix()
            self._context.decode([Row(token, place, 0) for place, token in enumerate(shared)])
            self._prefix = list(shared)
        for sequence in range(1, len(texts) + 1):
            self._context.share(0, sequence)

    def _release(self, sequences: int) -> None:
        for sequence in range(1, sequences + 1):
            self._context.forget(sequence)

    def _forget_prefix(self) -> None:
        self._context.clear()
        self._prefix = None

    def _new_context(self, cells: int) -> Context:
        return Context(self._model, cells, _PARALLEL + 1, self._threads, self.vocab_size)


def _split(prefix: Sequence[int]) -> tuple[list[int], list[int]]:
    """The prefix without its last token, and that token: each branch decodes it to have its logits."""
    return list(prefix[:-1]), list(prefix[-1:])


def _groups(count: int) -> Iterator[range]:
    for start in range(0, count, _PARALLEL):
        yield range(start, min(start + _PARALLEL, count))
