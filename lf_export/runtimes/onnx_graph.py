"""A decoder graph on raw ONNX Runtime: keys and values in memory of our own, which the graph writes in place.

`GroupQueryAttention` (contrib operator, domain com.microsoft) writes the new keys and values into the buffer of the old
ones when past and present are bound to the same memory. How much of a row's buffer counts is the number of ones in its
`attention_mask`: a row's tokens lie at its buffer's beginning, whatever the other rows' lengths are, so rows of
different lengths are decoded together without padding on the left.

A graph of standard operators alone (torch's exporter makes it, and its metadata says so) gives keys and values with the
new ones appended instead. `onnx_appended` feeds it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lf_export.errors import InputError, StepError
from lf_export.quant.ort import APPENDED, CACHE_KEY, open_graph
from lf_export.runtimes.base import Logits
from lf_export.runtimes.onnx_appended import Appended

CONFIG_NAME = "genai_config.json"

# Tokens that one call prefills: the graph gives logits for each, and 256 rows of a vocabulary of 128k take 128 MiB.
_CHUNK = 256
_DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True)
class GraphFacts:
    """What genai_config.json says of a decoder."""

    file: str
    layers: int
    heads: int
    head_width: int
    vocab_size: int
    context: int
    eos_ids: frozenset[int]
    cuda: bool

    @classmethod
    def read(cls, folder: Path) -> "GraphFacts":
        """The facts of the artifact in `folder`.

        Raises:
            InputError: the file is missing, or not that of a decoder.
        """
        path = folder / CONFIG_NAME
        try:
            model = json.loads(path.read_text(encoding="utf-8"))["model"]
            decoder = model["decoder"]
            eos = model["eos_token_id"]
            providers = decoder["session_options"].get("provider_options", [])
            return cls(
                file=str(decoder["filename"]),
                layers=int(decoder["num_hidden_layers"]),
                heads=int(decoder["num_key_value_heads"]),
                head_width=int(decoder["head_size"]),
                vocab_size=int(model["vocab_size"]),
                context=int(model["context_length"]),
                eos_ids=frozenset(eos if isinstance(eos, list) else [eos]),
                cuda=any("cuda" in options for options in providers),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not the config of an ONNX Runtime GenAI decoder: {error!r}") from error


class Graph:
    """A loaded decoder and the keys and values of its rows.

    Raises:
        InputError: the graph is not a decoder of the layout that onnxruntime-genai's builder writes.
        StepError: ONNX Runtime cannot load it.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self.facts = GraphFacts.read(folder)
        path = folder / self.facts.file
        if path.resolve().parent != folder.resolve():
            raise InputError(f"{folder / CONFIG_NAME}: the graph {self.facts.file!r} is outside of the folder")
        self._session = open_graph(path, threads)
        types = {each.name: each.type for each in [*self._session.get_inputs(), *self._session.get_outputs()]}
        expected = {"input_ids", "attention_mask", "logits", *_cache_names(self.facts.layers)}
        if types.keys() - {"position_ids"} != expected or types["past_key_values.0.key"] not in _DTYPES:
            odd = ", ".join(sorted(types.keys() ^ expected)[:4])
            raise InputError(f"{path}: not a decoder whose keys and values this runtime can hold ({odd})")
        self._positions = "position_ids" in types
        self._cache_dtype = _DTYPES[types["past_key_values.0.key"]]
        self._logits_dtype = _DTYPES[types["logits"]]
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._appended = Appended() if metadata.get(CACHE_KEY) == APPENDED else None
        self._bound: tuple[int, int] | None = None
        self.make_room(1, 1)

    @property
    def position_bytes(self) -> int:
        """Bytes of the keys and values of one token."""
        facts, size = self.facts, int(np.dtype(self._cache_dtype).itemsize)
        return 2 * facts.layers * facts.heads * facts.head_width * size

    def make_room(self, rows: int, length: int) -> None:
        """Forget everything, and have memory for `rows` rows of `length` tokens."""
        facts = self.facts
        shape = (rows, facts.heads, length, facts.head_width)
        self._caches = [np.zeros(shape, self._cache_dtype) for _ in range(2 * facts.layers)]
        self._bound = None
        self._binding = self._session.io_binding()
        if self._appended is not None:
            self._appended.forget()

    def copy(self, source: int, target: int, length: int) -> None:
        """Let row `target` begin with the first `length` tokens of row `source`."""
        for cache in self._caches:
            cache[target, :, :length] = cache[source, :, :length]
        if self._appended is not None:
            self._appended.forget()

    def extend(self, row: int, ids: Sequence[int], past: int, wanted: int) -> Logits:
        """Append `ids` to the `past` tokens of a row; returns the logits after the last `wanted` of them."""
        kept: list[Logits] = []
        for start in range(0, len(ids), _CHUNK):
            part = np.array([ids[start : start + _CHUNK]], np.int64)
            logits = self._run(row, part, np.array([past + start]))[0]
            kept.append(logits[max(0, len(ids) - wanted - start) :].astype(np.float32))
        return np.concatenate(kept)[-wanted:]

    def step(self, tokens: npt.NDArray[np.int64], past: npt.NDArray[np.int64]) -> Logits:
        """Append one token to each of the first rows; `tokens` and `past` are [rows]; logits [rows, vocabulary]."""
        return self._run(0, tokens[:, None], past)[:, 0]

    def close(self) -> None:
        """Free the graph; it is not used again."""
        self._binding = self._session = None
        self._caches = []

    def _run(self, first: int, ids: npt.NDArray[np.int64], past: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Logits [rows, tokens, vocabulary] for `ids` [rows, tokens] after `past` tokens of each row from `first`."""
        rows, count = ids.shape
        total = int(past.max()) + count
        if total > self._caches[0].shape[2]:
            raise ValueError(f"{total} tokens do not fit the room for {self._caches[0].shape[2]}")
        logits = np.empty((rows, count, self.facts.vocab_size), self._logits_dtype)
        places = np.arange(total)[None, :]
        if self._appended is None:
            mask = (places < (past + count)[:, None]).astype(np.int64)
            self._bind_caches(first, rows)
        else:
            mask = (places >= (past.max() - past)[:, None]).astype(np.int64)
            old = self._appended.past(self._caches, first, past)
            new = [np.empty((*each.shape[:2], total, each.shape[3]), each.dtype) for each in old]
            self._bind_parts(old, new)
        self._bind("input_ids", ids)
        self._bind("attention_mask", mask)
        if self._positions:
            positions = past[:, None] + np.arange(count)[None, :]
            self._bind("position_ids", positions)
        self._bind("logits", logits, output=True)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # its exceptions have no public base class
            raise StepError(f"ONNX Runtime cannot run the graph: {str(error).splitlines()[0]}") from error
        if self._appended is not None:
            self._appended.keep(self._caches, first, past, new)
        return logits

    def _bind_caches(self, first: int, rows: int) -> None:
        if self._bound == (first, rows):
            return
        parts = [cache[first : first + rows] for cache in self._caches]
        self._bind_parts(parts, parts)
        self._bound = (first, rows)

    def _bind_parts(self, old: Sequence[npt.NDArray[Any]], new: Sequence[npt.NDArray[Any]]) -> None:
        kinds = [f"{layer}.{kind}" for layer in range(self.facts.layers) for kind in ("key", "value")]
        for kind, past, present in zip(kinds, old, new, strict=True):
            self._bind(f"past_key_values.{kind}", past)
            self._bind(f"present.{kind}", present, output=True)

    def _bind(self, name: str, array: npt.NDArray[Any], *, output: bool = False) -> None:
        """Bind the array's own memory, which must outlive the run."""
        bind = self._binding.bind_output if output else self._binding.bind_input
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _cache_names(layers: int) -> set[str]:
    return {
        f"{side}.{layer}.{kind}"
        for side in ("past_key_values", "present")
        for layer in range(layers)
        for kind in ("key", "value")
    }
