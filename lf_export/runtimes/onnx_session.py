"""What both runtimes of folders in ONNX Runtime GenAI's layout share: tokenizer, end tokens, context."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from lf_export.errors import InputError
from lf_export.runtimes.base import Generation, Logits
from lf_export.runtimes.guides import Guide
from lf_export.runtimes.onnx_graph import CONFIG_NAME, GraphFacts
from lf_export.runtimes.onnx_tokenizer import FolderTokenizer


def accepts(path: Path) -> bool:
    """Whether `path` is a folder with a GenAI config."""
    return (path / CONFIG_NAME).is_file()


class FolderSession(ABC):
    """A session on such a folder but for its computations.

    Args:
        path: the folder.
        facts: of its graph.
        tokenizer: of the folder.
    """

    guided = ""

    def __init__(self, path: Path, facts: GraphFacts, tokenizer: FolderTokenizer) -> None:
        self.eos_ids = facts.eos_ids | tokenizer.eos_ids
        self.vocab_size = facts.vocab_size
        self._path, self._facts, self._tokenizer = path, facts, tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens are recognised, none is added."""
        return self._tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens kept."""
        return self._tokenizer.decode(ids)

    @abstractmethod
    def generate(
        self, prefix: Sequence[int], branches: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[Generation]:
        """See `Session.generate`."""

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """See `Session.generate_one`."""
        return self.generate((), [prompt], max_new_tokens)[0]

    @abstractmethod
    def time_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, ...]:
        """See `Session.time_batch`."""

    def peak_gpu_bytes(self) -> int | None:
        """See `Session.peak_gpu_bytes`: ONNX Runtime does not say."""
        return None

    @abstractmethod
    def stream(self, prompt: Sequence[int], max_new_tokens: int, guide: Guide | None = None) -> Iterator[Generation]:
        """See `Session.stream`."""

    @abstractmethod
    def score(self, prefix: Sequence[int], branches: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Logits]:
        """See `Session.score`."""

    @abstractmethod
    def close(self) -> None:
        """Free the graph."""

    def _check(self, length: int) -> None:
        if length > self._facts.context:
            message = f"{length} tokens are asked for, {self._path} has a context of {self._facts.context}"
            raise InputError(message, "leave out the longest items")
