"""llguidance's engine: token masks for runtimes whose logits come through torch."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from lf_export.errors import InputError, MissingError
from lf_export.functions.grammars import TAGS, CallGrammar
from lf_export.runtimes.guides import Row


def check_llguidance() -> None:
    """See that llguidance is there.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import llguidance  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise MissingError("llguidance is not installed", "pip install 'lf-export[grammar]'") from error


class LlguidanceGrammars:
    """Grammars over one tokenizer, each compiled once.

    Args:
        tokenizer: a fast Transformers tokenizer.
        vocab_size: the width of a row of logits.
        ends: the tokens that end an answer.

    Raises:
        MissingError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, ends: Iterable[int]) -> None:
        check_llguidance()
        from llguidance import hf  # noqa: PLC0415 - an extra

        self._tokens = hf.from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=sorted(ends))
        vocabulary = tokenizer.get_vocab()
        # A special token is no text to llguidance and is named in a syntax of its own.
        self._special = [tag for tag in TAGS if tag in vocabulary and self._tokens.is_special_token(vocabulary[tag])]
        self._compiled: dict[str, Any] = {}

    def follow(self, grammar: CallGrammar) -> "LlguidanceFollower":
        """An engine at the beginning of `grammar`.

        Raises:
            InputError: llguidance cannot compile it.
        """
        lark = grammar.lark
        if lark not in self._compiled:
            from llguidance import LLMatcher  # noqa: PLC0415 - an extra

            text = lark
            for tag in self._special:
                text = text.replace(f'"{tag}"', tag)
            matcher = LLMatcher(self._tokens, text, log_level=0)
            if matcher.is_error():
                raise InputError(f"llguidance cannot compile the grammar of the functions: {matcher.get_error()}")
            self._compiled[lark] = matcher
        return LlguidanceFollower(self._compiled[lark].deep_copy())


class LlguidanceFollower:
    """A place in a grammar; see `Follower`."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def take(self, token: int) -> bool:
        """See `Follower.take`."""
        return bool(self._matcher.try_consume_tokens([token]) == 1)

    def best(self, logits: Row) -> int | None:
        """See `Follower.best`; the mask of the whole vocabulary is only computed where the likeliest token is none.

        Where the grammar leaves one text alone, llguidance's mask leaves of its spellings in tokens the usual one.
        """
        token = int(logits.argmax())
        if self._matcher.validate_tokens([token]) == 1:
            return token
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(mask, bitorder="little", count=len(logits)).astype(bool)
        return int(np.where(allowed, logits, -np.inf).argmax()) if allowed.any() else None
