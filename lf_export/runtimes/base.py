"""What every runtime gives: the logits and the greedy answers of one loaded artifact."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lf_export.runtimes.guides import Guide, Guides

Logits = npt.NDArray[np.float32]
PromptGroup = tuple[Sequence[int], Sequence[Sequence[int]]]
"""A prefix and the branches that share it, as token ids."""


@dataclass(frozen=True)
class Generation:
    """A greedy answer and when each of its tokens came.

    Attributes:
        ids: the generated token ids; the last one is an end token unless the answer was cut.
        text: the ids as text, special tokens kept, without the end token.
        times: seconds from the start of the request to each token; the first one is the time to first token.
    """

    ids: tuple[int, ...]
    text: str
    times: tuple[float, ...]


class Session(Protocol):
    """A loaded artifact.

    Attributes:
        name: the runtime's name, as in `RUNTIMES`.
        representative: whether its speed says something about a deployment.
        load_seconds: how long the artifact took to load.
        eos_ids: the tokens that end an answer.
        vocab_size: the width of a row of logits.
        guided: the engine of grammars that answers can be held to; "" where there is none.
    """

    @property
    def name(self) -> str:
        """The runtime's name, as in `RUNTIMES`."""

    @property
    def representative(self) -> bool:
        """Whether its speed says something about a deployment."""

    @property
    def load_seconds(self) -> float:
        """How long the artifact took to load."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""

    @property
    def vocab_size(self) -> int:
        """The width of a row of logits."""

    @property
    def guided(self) -> str:
        """The engine of grammars that answers can be held to; "" where there is none."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` by the artifact's own tokenizer: special tokens are recognised, none is added."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens kept."""

    def score(self, prefix: Sequence[int], branches: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Logits]:
        """Logits that predict each branch's tokens from `starts` on; branches share the prefill of `prefix`.

        Returns:
            For each branch float32 logits [len(branch) - start, vocab_size]: row j predicts `branch[start + j]`
            given `prefix + branch[:start + j]`. `prefix + branch[:start]` is never empty.
        """

    def generate(
        self, prefix: Sequence[int], branches: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[Generation]:
        """Greedy answers to `prefix + branch` for each branch; they share the prefill and may run as a batch."""

    def generate_groups(
        self, groups: Sequence[PromptGroup], max_new_tokens: int, guides: Guides | None = None
    ) -> Iterator[tuple[int, list[Generation]]]:
        """Greedy answers to several groups: each group's number and its answers, as soon as the last of them ends.

        A session may run many groups together; times then count from when it began with a group. With `guides` each
        answer is held to its own.

        Raises:
            InputError: there are guides and the session is not `guided`, or a grammar that its engine cannot read.
            MissingError: the engine is not installed.
        """

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """One greedy answer at batch size 1 with nothing shared, for latency."""

    def time_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, ...]:
        """Answer prompts of one length together, nothing shared, end tokens written like others, for latency.

        Returns:
            Seconds from the start until every prompt had its first, second, … of `new_tokens` tokens.

        Raises:
            InputError: the runtime cannot: too many prompts at a time, or too long for the context.
        """

    def peak_gpu_bytes(self) -> int | None:
        """The most memory of a GPU that was in use, None where none is used or the library does not say."""

    def stream(self, prompt: Sequence[int], max_new_tokens: int, guide: Guide | None = None) -> Iterator[Generation]:
        """`generate_one` token by token: what is there after each, the last is `generate_one`'s.

        Nothing is computed that is not asked for; whoever has seen enough leaves the rest, and may then ask anything.
        An answer is cut at the model's context. With `guide` it is held to it.

        Raises:
            InputError: the prompt is empty or as long as the model's context; a guide as for `generate_groups`.
            MissingError: the engine is not installed.
        """

    def close(self) -> None:
        """Free the artifact; the session is not used again."""


class Runtime(Protocol):
    """What a runtime module offers."""

    def accepts(self, path: Path) -> bool:
        """Whether `path` is an artifact that this runtime loads."""

    def open_session(self, path: Path, threads: int) -> Session:
        """Load the artifact at `path` with `threads` CPU threads."""
