"""The `genai` runtime: a folder in ONNX Runtime GenAI's layout, in ONNX Runtime GenAI itself.

It answers one sequence at a time, with the library's own search and its own memory of keys and values. What answers
share is read once: the sequence is rewound to where they part. It is what a deployment has, and the only runtime here
that asks for the provider that the folder names.
"""

import json
import time
from collections.abc import Iterator, Sequence
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lf_export.errors import InputError, MissingError, StepError
from lf_export.quant.ort import onnxruntime
from lf_export.runtimes.answers import Answer, check_batch, check_room
from lf_export.runtimes.base import Generation, Logits, PromptGroup
from lf_export.runtimes.guides import Guide, Guides, check_unguided
from lf_export.runtimes.onnx_graph import GraphFacts
from lf_export.runtimes.onnx_session import FolderSession, accepts
from lf_export.runtimes.onnx_tokenizer import FolderTokenizer

__all__ = ["GenaiSession", "accepts", "name", "open_session"]

name = "genai"

# Tokens that one call prefills: the graph gives logits for each, and 256 rows of a vocabulary of 128k take 128 MiB.
_CHUNK = 256

# Greedy, and nothing that changes logits, whatever the folder's own `search` says.
_SEARCH = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "batch_size": 1,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
}


def open_session(path: Path, threads: int) -> "GenaiSession":
    """Load the artifact at `path` with `threads` threads, on the provider that its config names.

    Raises:
        InputError: it is not a decoder that can be used.
        MissingError: ONNX Runtime GenAI is not installed, both of ONNX Runtime's wheels are, or the folder asks for a
            provider that is not there.
        StepError: ONNX Runtime GenAI cannot load the graph.
    """
    began = time.perf_counter()
    facts = GraphFacts.read(path)
    library = check_library()
    if facts.cuda and not library.is_cuda_available():
        raise MissingError(
            f"{path}: the graph is for the provider cuda (CUDAExecutionProvider), which the installed "
            "onnxruntime-genai does not have",
            "pip install 'lf-export[onnx-gpu]' where there is a GPU; --runtime onnx answers for it on the CPU",
        )
    tokenizer = FolderTokenizer(path)
    try:
        config = library.Config(str(path))
        threading = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": threading}}}))
        model = library.Model(config)
    except RuntimeError as error:
        raise StepError(f"{path}: ONNX Runtime GenAI cannot load it: {_first_line(error)}") from error
    device = str(model.device_type).lower()
    if facts.cuda and "cuda" not in device:
        raise MissingError(f"{path}: the graph is for the provider cuda, ONNX Runtime GenAI runs it on {device}")
    return GenaiSession(path, model, facts, tokenizer, began)


class GenaiSession(FolderSession):
    """Scores and answers with a decoder, one sequence at a time."""

    def __init__(self, path: Path, model: Any, facts: GraphFacts, tokenizer: FolderTokenizer, began: float) -> None:
        super().__init__(path, facts, tokenizer)
        self.name = name
        self.representative = True
        self._model = model
        self._sequence: _Sequence | None = None
        self.load_seconds = time.perf_counter() - began

    def score(self, prefix: Sequence[int], branches: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Logits]:
        """See `Session.score`.

        Raises:
            InputError: nothing precedes a start, or prefix and branch are longer than the model's context.
        """
        shared, tail = list(prefix[:-1]), list(prefix[-1:])
        longest = max((len(prefix) + len(branch) for branch in branches), default=1)
        sequence = self._begun(shared, longest - 1, longest)
        found: list[Logits] = []
        for branch, start in zip(branches, starts, strict=True):
            wanted = len(branch) - start
            if wanted <= 0:
                found.append(np.empty((0, self.vocab_size), np.float32))
                continue
            if len(tail) + start < 1:
                raise InputError("a branch cannot be scored from its first token when the prefix is empty")
            sequence.rewind(len(shared))
            # The last token predicts nothing that is asked for.
            found.append(sequence.extend([*tail, *branch][:-1], wanted))
        return found

    def generate(
        self, prefix: Sequence[int], branches: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[Generation]:
        """See `Session.generate`. An answer is cut at the model's context.

        Raises:
            InputError: a prompt is empty or as long as the model's context.
        """
        if not all(len(prefix) + len(branch) for branch in branches):
            raise InputError("an empty prompt cannot be continued")
        shared, tail = list(prefix[:-1]), list(prefix[-1:])
        longest = max((len(prefix) + len(branch) for branch in branches), default=1)
        room = min(longest + max_new_tokens, self._facts.context)
        began = time.perf_counter()
        sequence = self._begun(shared, longest + min(max_new_tokens, 1), room)
        # Each answer's times count what it shares, as if it had been read for it alone.
        prefilled = time.perf_counter() - began
        found = []
        for branch in branches:
            answer = Answer(time.perf_counter() - prefilled)
            sequence.rewind(len(shared))
            sequence.extend([*tail, *branch], 0)
            most = min(max_new_tokens, room - len(prefix) - len(branch))
            while not answer.over and len(answer.ids) < most:
                answer.take(sequence.next(), time.perf_counter(), self.eos_ids, most)
            found.append(answer.generation(self.eos_ids, self.decode))
        return found

    def generate_groups(
        self, groups: Sequence[PromptGroup], max_new_tokens: int, guides: Guides | None = None
    ) -> Iterator[tuple[int, list[Generation]]]:
        """See `Session.generate_groups`; one group after the other.

        Raises:
            InputError: a prompt is empty or as long as the model's context.
        """
        check_unguided(self.name, guides)
        for number, (prefix, branches) in enumerate(groups):
            yield number, self.generate(prefix, branches, max_new_tokens)

    def time_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, ...]:
        """See `Session.time_batch`; one prompt at a time is all there is.

        A token is appended and the next one read from its logits: the library's own search stops at an end token.
        """
        check_batch(prompts, new_tokens, self._facts.context)
        if len(prompts) > 1:
            raise InputError(f"a batch of {len(prompts)}, the runtime genai answers one sequence at a time")
        sequence = self._begun((), len(prompts[0]), len(prompts[0]) + new_tokens)
        times: list[float] = []
        began = time.perf_counter()
        asked = list(prompts[0])
        while True:
            token = int(sequence.extend(asked, 1)[0].argmax())
            times.append(time.perf_counter() - began)
            if len(times) == new_tokens:
                return tuple(times)
            asked = [token]

    def stream(self, prompt: Sequence[int], max_new_tokens: int, guide: Guide | None = None) -> Iterator[Generation]:
        """See `Session.stream`."""
        check_unguided(self.name, guide)
        most = min(max_new_tokens, check_room(len(prompt), self._facts.context))
        answer = Answer(time.perf_counter())
        sequence = self._begun((), len(prompt), len(prompt) + most)
        sequence.extend(prompt, 0)
        while not answer.over:
            answer.take(sequence.next(), time.perf_counter(), self.eos_ids, most)
            yield answer.generation(self.eos_ids, self.decode)

    def close(self) -> None:
        """Free the model."""
        self._sequence = self._model = None

    def _begun(self, shared: Sequence[int], length: int, room: int) -> "_Sequence":
        """A sequence of `shared` alone, with memory for `room` tokens; `length` is what will certainly be written."""
        self._check(length)
        if self._sequence is None or self._sequence.room < room:
            self._sequence = None  # its memory goes before another's comes
            self._sequence = _Sequence(self._model, room)
        self._sequence.rewind(0)
        if shared:
            self._sequence.extend(shared, 0)
        return self._sequence


class _Sequence:
    """One sequence in the library's memory, which grows and is rewound."""

    def __init__(self, model: Any, room: int) -> None:
        library = check_library()
        self.room = room
        parameters = library.GeneratorParams(model)
        parameters.set_search_options(**_SEARCH, max_length=room)
        self._generator = library.Generator(model, parameters)

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if self._generator.token_count() > length:
            self._generator.rewind_to(length)

    def extend(self, ids: Sequence[int], wanted: int) -> Logits:
        """Append `ids`; returns the logits after the last `wanted` of them."""
        kept: list[Logits] = []
        for start in range(0, len(ids), _CHUNK):
            part = np.asarray(ids[start : start + _CHUNK], np.int32)
            try:
                self._generator.append_tokens(part)
                first = max(0, len(ids) - wanted - start)
                if first < len(part):
                    kept.append(np.asarray(self._generator.get_output("logits"))[0, first:].astype(np.float32))
            except RuntimeError as error:
                raise StepError(f"ONNX Runtime GenAI cannot run the graph: {_first_line(error)}") from error
        return np.concatenate(kept) if kept else np.empty((0, 0), np.float32)

    def next(self) -> int:
        """Write the most likely token."""
        try:
            self._generator.generate_next_token()
        except RuntimeError as error:
            raise StepError(f"ONNX Runtime GenAI cannot run the graph: {_first_line(error)}") from error
        return int(self._generator.get_next_tokens()[0])


def check_library() -> ModuleType:
    """ONNX Runtime GenAI's module, its telemetry silenced.

    Raises:
        MissingError: it is not installed or cannot be imported, or ONNX Runtime is not there once.
    """
    onnxruntime()
    if util.find_spec("onnxruntime_genai") is None:
        raise MissingError("the package onnxruntime-genai is not installed", "pip install 'lf-export[onnx]'")
    try:
        import onnxruntime_genai as module  # noqa: PLC0415 - an extra

        module.disable_telemetry_events()
    except (ImportError, AttributeError) as error:
        raise MissingError(f"the package onnxruntime-genai cannot be used: {error}") from error
    found: ModuleType = module
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
