"""The llama.cpp runtime: a GGUF in this process, through the C functions of the pinned xllamacpp."""

import ctypes
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lf_export.checkpoint.gguf_parts import first_part, is_later_part
from lf_export.errors import InputError, StepError
from lf_export.runtimes.answers import Answer, check_batch, check_room
from lf_export.runtimes.base import Generation, Logits, PromptGroup
from lf_export.runtimes.guides import Guide, Guides, Held
from lf_export.runtimes.llamacpp_context import Context, Row, int32_pointer
from lf_export.runtimes.llamacpp_follower import LlamaCppGrammars
from lf_export.runtimes.llamacpp_groups import PARALLEL, Piece, split_last
from lf_export.runtimes.llamacpp_native import last_errors, llama

NAME = "llamacpp"
_MAGIC = b"GGUF"
# Cells of a context in which several groups are answered; a group that needs more gets more.
_CELLS = 4096


def accepts(path: Path) -> bool:
    """Whether `path` is a GGUF model or a folder with one."""
    return bool(_models(path))


def open_session(path: Path, threads: int) -> "LlamaCppSession":
    """Load the GGUF at `path`, a file or a folder with one, with `threads` CPU threads.

    Raises:
        InputError: there is none, there are several, or llama.cpp cannot load it.
        MissingError: xllamacpp is not installed.
    """
    if is_later_part(path):
        raise InputError(f"{path}: a later part of a file", f"name the first: {first_part(path).name}")
    models = _models(path)
    if not models:
        raise InputError(f"{path}: no GGUF model there")
    if len(models) > 1:
        names = ", ".join(model.name for model in models)
        raise InputError(f"{path}: {len(models)} GGUF models there: {names}", "name the file")
    return LlamaCppSession(models[0], threads)


def _models(path: Path) -> list[Path]:
    files = sorted(path.glob("*.gguf")) if path.is_dir() else [path] if path.is_file() else []
    return [
        file for file in files if file.name != "imatrix.gguf" and not is_later_part(file) and _starts_with_magic(file)
    ]


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
    guided = "llama.cpp"

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
        self._grammars = LlamaCppGrammars(self._vocab)
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
        shared, tail = split_last(prefix)
        for group in _groups(len(branches)):
            texts = [tail + list(branches[index]) for index in group]
            froms = [len(tail) + starts[index] for index in group]
            if min(froms) < 1:
                raise InputError("a branch cannot be scored from its first token when the prefix is empty")
            self._prepare(shared, texts)
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
        """Greedy answers to `prefix + branch` for each branch over one prefill of `prefix`.

        An answer that reaches the model's context is cut there.

        Raises:
            InputError: a prompt is empty or as long as the model's context.
        """
        groups = [(prefix, [branches[index] for index in part]) for part in _groups(len(branches))]
        found = dict(self.generate_groups(groups, max_new_tokens))
        return [generation for number in range(len(groups)) for generation in found[number]]

    def generate_groups(
        self, groups: Sequence[PromptGroup], max_new_tokens: int, guides: Guides | None = None
    ) -> Iterator[tuple[int, list[Generation]]]:
        """See `Session.generate_groups`; the next group begins as soon as there are sequences and cells for it.

        Raises:
            InputError: a prompt is empty or as long as the model's context, or a group has more than 16 branches.
        """
        pieces = [Piece.of(number, *group, max_new_tokens) for number, group in enumerate(groups)]
        for piece in pieces:
            self._check(len(piece.shared), piece.texts, max_new_tokens)
        needed = [piece.cells for piece in pieces]
        self._make_room(max([0, *needed, min(sum(needed), _CELLS)]))
        self._forget_prefix()
        free, cells = list(range(PARALLEL)), self._context.cells
        waiting, running = deque(pieces), list[Piece]()
        rows: list[Row] = []
        while waiting or running:
            while waiting and len(waiting[0].texts) <= len(free) and waiting[0].cells <= cells:
                piece = waiting.popleft()
                cells -= piece.cells
                rows += self._begin(piece, [free.pop() for _ in piece.texts], max_new_tokens)
                for answer, guide in zip(piece.answers, guides[piece.number] if guides else (), strict=bool(guides)):
                    answer.held = self._held(guide)
                running.append(piece)
            rows = self._advance(rows, running)
            for piece in [piece for piece in running if piece.over]:
                running.remove(piece)
                free += piece.sequences
                cells += piece.cells
                yield piece.number, [self._generation(answer) for answer in piece.answers]

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """One greedy answer with nothing shared or kept from before.

        Raises:
            InputError: the prompt is empty or as long as the model's context.
        """
        (found,) = self.generate([], [prompt], max_new_tokens)
        return found

    def time_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, ...]:
        """See `Session.time_batch`: one sequence of the context for each prompt."""
        check_batch(prompts, new_tokens, self._longest)
        if len(prompts) > PARALLEL:
            raise InputError(f"a batch of {len(prompts)}, llama.cpp's context has {PARALLEL} sequences here")
        length = len(prompts[0])
        self._make_room(len(prompts) * (length + new_tokens))
        self._forget_prefix()
        times: list[float] = []
        began = time.perf_counter()
        rows = [
            Row(token, place, sequence, wanted=place == length - 1)
            for sequence, prompt in enumerate(prompts)
            for place, token in enumerate(prompt)
        ]
        while True:
            choices = self._context.decode(rows).argmax(axis=1).tolist()
            times.append(time.perf_counter() - began)
            if len(times) == new_tokens:
                break
            place = length + len(times) - 1
            rows = [Row(choice, place, sequence, wanted=True) for sequence, choice in enumerate(choices)]
        self._forget_prefix()
        return tuple(times)

    def peak_gpu_bytes(self) -> int | None:
        """See `Session.peak_gpu_bytes`: llama.cpp does not say."""
        return None

    def stream(self, prompt: Sequence[int], max_new_tokens: int, guide: Guide | None = None) -> Iterator[Generation]:
        """See `Session.stream`."""
        most = min(max_new_tokens, check_room(len(prompt), self._longest))
        piece = Piece.of(0, [], [prompt], most)
        self._make_room(piece.cells)
        self._forget_prefix()
        rows = self._begin(piece, [0], most)
        piece.answers[0].held = self._held(guide)
        while rows:
            rows = self._advance(rows, [piece])
            yield self._generation(piece.answers[0])

    def close(self) -> None:
        """Free the model; the session is not used again."""
        if self._model:
            self._context.close()
            self._lib.llama_model_free(self._model)
            self._model = None

    def _begin(self, piece: Piece, sequences: list[int], limit: int) -> list[Row]:
        """Prefill what the branches share, and the rows to decode for the first token of each answer."""
        piece.sequences = sequences
        piece.answers = [Answer(time.perf_counter()) for _ in piece.texts]
        offset = len(piece.shared)
        piece.room = [min(limit, self._longest - offset - len(text)) for text in piece.texts]
        if not sequences:
            return []
        self._context.decode([Row(token, place, sequences[0]) for place, token in enumerate(piece.shared)])
        for sequence in sequences[1:]:
            self._context.share(sequences[0], sequence)
        rows = []
        for sequence, text in zip(sequences, piece.texts, strict=True):
            rows += [Row(token, offset + place, sequence) for place, token in enumerate(text[:-1])]
            rows.append(Row(text[-1], offset + len(text) - 1, sequence, wanted=True))
        return rows

    def _advance(self, rows: Sequence[Row], running: Sequence[Piece]) -> list[Row]:
        """Decode `rows`, write the tokens that they lead to, and the rows for the tokens after these."""
        places = {
            sequence: (answer, room)
            for piece in running
            for sequence, answer, room in zip(piece.sequences, piece.answers, piece.room, strict=True)
        }
        logits = self._context.decode(rows)
        choices = logits.argmax(axis=1).tolist()
        wanted = [row for row in rows if row.wanted]
        choices = [places[row.sequence][0].choose(*each) for row, *each in zip(wanted, choices, logits, strict=True)]
        now = time.perf_counter()
        following = []
        for row, choice in zip(wanted, choices, strict=True):
            answer, room = places[row.sequence]
            answer.take(choice, now, self.eos_ids, room)
            if answer.over:
                self._context.forget(row.sequence)
            else:
                following.append(Row(choice, row.position + 1, row.sequence, wanted=True))
        return following

    def _held(self, guide: Guide | None) -> Held | None:
        return None if guide is None else Held(guide, self._grammars.follow, self.decode, self.eos_ids)

    def _generation(self, answer: Answer) -> Generation:
        text = self.decode([token for token in answer.ids if token not in self.eos_ids])
        return Generation(tuple(answer.ids), text, tuple(answer.times))

    def _prepare(self, shared: Sequence[int], texts: Sequence[Sequence[int]]) -> None:
        """Prefill `shared` and let sequences 1, 2, … begin with it, with room for `texts`."""
        self._check(len(shared), texts, 0)
        self._make_room(len(shared) + sum(map(len, texts)))
        if self._prefix != list(shared):
            self._forget_prefix()
            self._context.decode([Row(token, place, 0) for place, token in enumerate(shared)])
            self._prefix = list(shared)
        for sequence in range(1, len(texts) + 1):
            self._context.share(0, sequence)

    def _check(self, shared: int, texts: Sequence[Sequence[int]], new: int) -> None:
        for text in texts:
            if not text:
                raise InputError("an empty prompt cannot be continued")
            if shared + len(text) + min(new, 1) > self._longest:
                message = f"{shared + len(text)} tokens are asked for, {self._path} has a context of {self._longest}"
                raise InputError(message, "leave out the longest items")

    def _make_room(self, cells: int) -> None:
        if cells > self._context.cells:
            self._context.close()
            self._context = self._new_context(cells)
            self._prefix = None

    def _release(self, sequences: int) -> None:
        for sequence in range(1, sequences + 1):
            self._context.forget(sequence)

    def _forget_prefix(self) -> None:
        self._context.clear()
        self._prefix = None

    def _new_context(self, cells: int) -> Context:
        return Context(self._model, cells, PARALLEL + 1, self._threads, self.vocab_size)


def _groups(count: int) -> Iterator[range]:
    for start in range(0, count, PARALLEL):
        yield range(start, min(start + PARALLEL, count))
