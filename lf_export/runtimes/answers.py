"""An answer under way, among others that are written at the same time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lf_export.errors import InputError
from lf_export.runtimes.base import Generation
from lf_export.runtimes.guides import Held, Row


@dataclass
class Answer:
    """What is known of one answer.

    Attributes:
        began: when work on its group began, by `time.perf_counter`.
        ids: its tokens so far.
        times: seconds from `began` to each.
        over: whether it has ended.
        held: what chooses its tokens, where it is held to a guide.
    """

    began: float
    ids: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    over: bool = False
    held: Held | None = None

    def choose(self, token: int, logits: Row) -> int:
        """The token to write where `token` is the likeliest."""
        return token if self.held is None else self.held.choose(logits)

    def take(self, token: int, now: float, ends: frozenset[int], most: int) -> None:
        """Write `token`, and notice the end: an end token or `most` tokens."""
        self.ids.append(token)
        self.times.append(now - self.began)
        self.over = token in ends or len(self.ids) >= most

    def generation(self, ends: frozenset[int], decode: Callable[[Sequence[int]], str]) -> Generation:
        """The answer as it is given: the text without an end token at its end."""
        kept = self.ids[:-1] if self.ids and self.ids[-1] in ends else self.ids
        return Generation(tuple(self.ids), decode(kept), tuple(self.times))


def check_room(length: int, context: int) -> int:
    """How many tokens may follow a prompt of `length` tokens in a context of that many.

    Raises:
        InputError: the prompt is empty, or leaves none.
    """
    if not length:
        raise InputError("an empty prompt cannot be continued")
    if length >= context:
        raise InputError(f"the prompt takes {length} tokens, the model has a context of {context}", "shorten it")
    return context - length


def check_batch(prompts: Sequence[Sequence[int]], new_tokens: int, context: int | None) -> None:
    """See that prompts of one length leave room for `new_tokens` in a context of that many; None for no limit.

    Raises:
        InputError: they do not.
    """
    lengths = {len(prompt) for prompt in prompts}
    if len(lengths) != 1 or 0 in lengths or new_tokens < 1:
        raise InputError(f"a batch of prompts of {sorted(lengths)} tokens, expected one length above 0")
    (length,) = lengths
    if context is not None and length + new_tokens > context:
        raise InputError(f"{length} tokens and {new_tokens} more do not fit the model's context of {context}")


def check_cache(prompts: Sequence[Sequence[int]], new_tokens: int, position_bytes: int, most: int) -> None:
    """See that a batch's keys and values, `position_bytes` for each token, fit into `most` bytes.

    Raises:
        InputError: they do not.
    """
    needed = len(prompts) * (len(prompts[0]) + new_tokens) * position_bytes
    if needed > most:
        raise InputError(
            f"keys and values of {len(prompts)} rows take {needed / 1e9:.1f} GB, this runtime has {most / 1e9:.1f} GB"
        )
