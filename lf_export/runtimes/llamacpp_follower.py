"""llama.cpp's own engine of grammars: its grammar sampler, asked which tokens it takes.

The sampler's own lazy form waits until a call has been opened and then gives up, with a C++ exception, where the token
that opened it does not fit. So it is not used: `guides.Held` notices before the token is chosen.
"""

import ctypes
import weakref
from ctypes import POINTER, Structure, c_bool, c_float, c_int32, c_int64, c_size_t
from typing import Any

import numpy as np
import numpy.typing as npt

from lf_export.errors import InputError
from lf_export.functions.grammars import CallGrammar
from lf_export.runtimes.guides import Row
from lf_export.runtimes.llamacpp_native import last_errors, llama

# Tokens that are tried before the whole vocabulary is: a grammar's choice is seldom far down.
_FIRST = 64
_CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


class _Candidate(Structure):
    """`struct llama_token_data`."""

    _fields_ = (("id", c_int32), ("logit", c_float), ("p", c_float))


class Candidates(Structure):
    """`struct llama_token_data_array`."""

    _fields_ = (("data", POINTER(_Candidate)), ("size", c_size_t), ("selected", c_int64), ("sorted", c_bool))


class LlamaCppGrammars:
    """Grammars over one vocabulary, each read once."""

    def __init__(self, vocab: int) -> None:
        self._lib, self._vocab = llama(), vocab
        self._read: dict[str, int] = {}

    def follow(self, grammar: CallGrammar) -> "LlamaCppFollower":
        """An engine at the beginning of `grammar`.

        Raises:
            InputError: llama.cpp cannot read it.
        """
        text = grammar.gbnf
        if text not in self._read:
            sampler = self._lib.llama_sampler_init_grammar(self._vocab, text.encode(), b"root")
            if not sampler:
                raise InputError(f"llama.cpp cannot read the grammar of the functions: {last_errors()}")
            weakref.finalize(self, self._lib.llama_sampler_free, sampler)
            self._read[text] = sampler
        return LlamaCppFollower(self._lib, self._lib.llama_sampler_clone(self._read[text]))


class LlamaCppFollower:
    """A place in a grammar; see `Follower`."""

    def __init__(self, lib: Any, sampler: int) -> None:
        self._lib, self._sampler = lib, sampler
        weakref.finalize(self, lib.llama_sampler_free, sampler)

    def take(self, token: int) -> bool:
        """See `Follower.take`."""
        # llama.cpp ends the process over a token that does not fit, so it is asked first.
        if not self._fitting(np.array([token], np.int32)).all():
            return False
        self._lib.llama_sampler_accept(self._sampler, token)
        return True

    def best(self, logits: Row) -> int | None:
        """See `Follower.best`."""
        token = int(logits.argmax())
        if self._fitting(np.array([token], np.int32)).all():
            return token
        first = np.argpartition(-logits, min(_FIRST, len(logits) - 1))[:_FIRST].astype(np.int32)
        for tokens in (first, np.arange(len(logits), dtype=np.int32)):
            fitting = tokens[self._fitting(tokens)]
            if len(fitting):
                return int(fitting[logits[fitting].argmax()])
        return None

    def _fitting(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Which of `tokens` may come next: the sampler sets the logits of the others to minus infinity."""
        data = np.zeros(len(tokens), _CANDIDATE)
        data["id"] = tokens
        pointer = data.ctypes.data_as(POINTER(_Candidate))
        candidates = Candidates(data=pointer, size=len(tokens), selected=-1, sorted=False)
        self._lib.llama_sampler_apply(self._sampler, ctypes.byref(candidates))
        fitting: npt.NDArray[np.bool_] = np.isfinite(data["logit"])
        return fitting
