"""A llama.cpp context: sequences of tokens in one key-value cache, decoded in batches."""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lf_export.errors import StepError
from lf_export.runtimes.base import Logits
from lf_export.runtimes.llamacpp_native import Batch, last_errors, llama

# Tokens that one call decodes, llama.cpp's own default for a physical batch.
_BATCH = 512
# What the rows of logits that one call computes may take: a batch's second half with a vocabulary of 49k, 128 rows
# with one of 128k. Fewer rows a call are slower: weights are read for each call anew.
_OUTPUT_BYTES = 64 << 20
# The cache's granularity, llama.cpp's padding.
_PAD = 256


@dataclass(frozen=True)
class Row:
    """One token to decode: its id, its place in its sequence, and whether its logits are wanted."""

    token: int
    position: int
    sequence: int
    wanted: bool = False


class Context:
    """A key-value cache of `cells` tokens that sequences share, with `threads` CPU threads.

    Raises:
        StepError: llama.cpp cannot make it (too little memory).
    """

    def __init__(self, model: int, cells: int, sequences: int, threads: int, vocab_size: int) -> None:
        self._lib = llama()
        params = self._lib.llama_context_default_params()
        self.cells = -(-cells // _PAD) * _PAD
        params.n_ctx = self.cells
        params.n_batch = params.n_ubatch = _BATCH
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True  # sequences that share a prefix share its cells
        self._vocab_size = vocab_size
        self._handle = self._lib.llama_init_from_model(model, params)
        if not self._handle:
            raise StepError(f"llama.cpp cannot make a context of {self.cells} tokens: {last_errors()}")
        self._memory = self._lib.llama_get_memory(self._handle)

    def decode(self, rows: Sequence[Row]) -> Logits:
        """Decode `rows` in order; returns the logits after each wanted one, [wanted, vocabulary].

        Raises:
            StepError: llama.cpp fails.
        """
        outputs = max(1, _OUTPUT_BYTES // (4 * self._vocab_size))
        found = [self._decode(part) for part in _parts(rows, outputs)]
        return np.concatenate(found) if found else np.empty((0, self._vocab_size), np.float32)

    def share(self, source: int, target: int) -> None:
        """Let the sequence `target` begin with all of `source`; nothing is copied."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def forget(self, sequence: int) -> None:
        """Free what only `sequence` uses."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def clear(self) -> None:
        """Free every sequence."""
        self._lib.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        """Free the context."""
        if self._handle:
            self._lib.llama_free(self._handle)
            self._handle = None

    def _decode(self, rows: Sequence[Row]) -> Logits:
        tokens = np.array([row.token for row in rows], np.int32)
        positions = np.array([row.position for row in rows], np.int32)
        sequences = np.array([row.sequence for row in rows], np.int32)
        counts = np.ones(len(rows), np.int32)
        # One pointer for each row to its sequence id.
        pointers = sequences.ctypes.data + sequences.itemsize * np.arange(len(rows), dtype=np.uint64)
        wanted = np.array([row.wanted for row in rows], np.int8)
        batch = Batch(
            n_tokens=len(rows),
            token=int32_pointer(tokens),
            pos=int32_pointer(positions),
            n_seq_id=int32_pointer(counts),
            seq_id=pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        status = self._lib.llama_decode(self._handle, batch)
        if status:
            raise StepError(f"llama.cpp cannot decode {len(rows)} tokens (status {status}): {last_errors()}")
        outputs = int(wanted.sum())
        if not outputs:
            return np.empty((0, self._vocab_size), np.float32)
        logits = self._lib.llama_get_logits(self._handle)
        return np.ctypeslib.as_array(logits, (outputs, self._vocab_size)).copy()


def int32_pointer(values: npt.NDArray[np.int32]) -> "ctypes._Pointer[ctypes.c_int32]":
    """The address of an array for C; the array must outlive the call."""
    return values.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))


def _parts(rows: Sequence[Row], most_outputs: int) -> Iterator[Sequence[Row]]:
    """Rows in calls of at most `_BATCH` tokens and `most_outputs` wanted ones."""
    start = outputs = 0
    for index, row in enumerate(rows):
        if index - start == _BATCH or (row.wanted and outputs == most_outputs):
            yield rows[start:index]
            start, outputs = index, 0
        outputs += row.wanted
    if start < len(rows):
        yield rows[start:]
