"""Suites as token ids: what each item's prompt is, which items share a prefill, where the reference answer lies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from lf_export.calibration.suites import EvalItem
from lf_export.calibration.tokens import TokenClass, encode
from lf_export.errors import InputError
from lf_export.functions.answers import dumps
from lf_export.functions.dialects import Dialect, text_of
from lf_export.functions.spec import schema_hash

_LARGEST_GROUP = 8


@dataclass(frozen=True)
class Prompt:
    """One item of a suite as the model sees it.

    Attributes:
        item: the item.
        text: the prompt, up to where the answer begins.
        ids: its token ids.
        full_ids: the ids of the prompt and the reference answer.
        classes: the token class of each of `full_ids`.
    """

    item: EvalItem
    text: str
    ids: tuple[int, ...]
    full_ids: tuple[int, ...]
    classes: npt.NDArray[np.uint8]

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The tokens of the reference answer."""
        return self.full_ids[len(self.ids) :]

    @property
    def answer_classes(self) -> npt.NDArray[np.uint8]:
        """Their classes."""
        return self.classes[len(self.ids) :]


@dataclass(frozen=True)
class Group:
    """Prompts that share the tokens `prefix`, so that one prefill serves them all."""

    prefix: tuple[int, ...]
    prompts: tuple[Prompt, ...]

    @property
    def branches(self) -> list[tuple[int, ...]]:
        """What follows the prefix in each prompt."""
        return [prompt.ids[len(self.prefix) :] for prompt in self.prompts]


def prepare(items: Sequence[EvalItem], dialect: Dialect, tokenizer: Any) -> list[Prompt]:
    """Each item in the dialect, tokenized once with and once without its reference answer.

    Raises:
        InputError: a prompt's tokens are not the first tokens of the whole, so that answers could not be compared.
    """
    prompts = []
    for item in items:
        pieces = dialect.render(item.messages, item.functions, generate=True)
        text = text_of(pieces)
        asked = encode(pieces, tokenizer, bos=dialect.bos)
        whole = encode(dialect.render(answered(item), item.functions), tokenizer, bos=dialect.bos)
        ids, full = tuple(asked.ids.tolist()), tuple(whole.ids.tolist())
        if full[: len(ids)] != ids:
            raise InputError(
                f"{item.id}: the tokens of the prompt change when the answer follows, expected the dialect "
                f"{dialect.name} to end a prompt at a token's end"
            )
        prompts.append(Prompt(item, dialect.bos + text, ids, full, whole.classes))
    return prompts


def answered(item: EvalItem) -> list[Mapping[str, Any]]:
    """The item's messages with its reference answer at the end."""
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": dumps(call.arguments)}}
        for call in item.expected.calls
    ]
    answer = {"role": "assistant", "content": None if calls else item.expected.text}
    return [*item.messages, answer | ({"tool_calls": calls} if calls else {})]


def grouped(prompts: Sequence[Prompt]) -> list[Group]:
    """Prompts with the same functions block together, at most eight, with the tokens that they all begin with."""
    ordered = sorted(prompts, key=lambda prompt: (_block(prompt), prompt.item.id))
    groups = []
    for _, members in groupby(ordered, key=_block):
        for chunk in _chunks(list(members)):
            groups.append(Group(_shared(chunk), tuple(chunk)))  # noqa: PERF401 - two loops read better
    return groups


def cluster_of(item: EvalItem) -> tuple[str, ...]:
    """What items share that tend to flip together: the functions that they show."""
    return tuple(sorted(function.name for function in item.functions)) or (item.id,)


def call_tokens(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which tokens are inside a call."""
    inside: npt.NDArray[np.bool_] = classes >= TokenClass.NAME
    return inside


def class_masks(prompts: Sequence[Prompt]) -> dict[str, list[npt.NDArray[np.bool_]]]:
    """For each token class, and as `call` for all call tokens: which tokens of each reference answer are of it."""
    masks = {token.name.lower(): [prompt.answer_classes == token for prompt in prompts] for token in TokenClass}
    return masks | {"call": [call_tokens(prompt.answer_classes) for prompt in prompts]}


def _block(prompt: Prompt) -> str:
    return f"{prompt.item.block or ''}|{','.join(schema_hash(spec) for spec in prompt.item.functions)}"


def _chunks(members: list[Prompt]) -> Iterator[list[Prompt]]:
    for start in range(0, len(members), _LARGEST_GROUP):
        yield members[start : start + _LARGEST_GROUP]


def _shared(prompts: Sequence[Prompt]) -> tuple[int, ...]:
    """The longest common beginning that leaves each prompt at least one token of its own."""
    shortest = min(len(prompt.ids) for prompt in prompts) - 1
    first = prompts[0].ids
    length = 0
    while length < shortest and all(prompt.ids[length] == first[length] for prompt in prompts):
        length += 1
    return first[:length]
