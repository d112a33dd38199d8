"""The dialects by name: how a conversation with functions becomes text, and text an answer."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from lf_export.errors import InputError
from lf_export.functions.chat_template import ChatTemplate
from lf_export.functions.llama_functions import LlamaFunctions
from lf_export.functions.pieces import Dialect, Piece, functions_block, split_at_functions, text_of

__all__ = ["DIALECTS", "Dialect", "Piece", "dialect_for", "functions_block", "split_at_functions", "text_of"]


def _llama_functions(tokenizer: Any | None) -> Dialect:
    dialect = LlamaFunctions()
    if tokenizer is not None:
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in dialect.needed_tokens if token not in vocabulary]
        if missing:
            raise InputError(
                f"the tokenizer lacks tokens that the dialect {dialect.name} needs: {', '.join(missing)}",
                "choose the dialect chat-template for a model that is not of the Llama-2 kind",
            )
    return dialect


def _chat_template(tokenizer: Any | None) -> Dialect:
    if tokenizer is None:
        raise InputError("the dialect chat-template needs the model's tokenizer")
    return ChatTemplate(tokenizer)


DIALECTS: Mapping[str, Callable[[Any | None], Dialect]] = MappingProxyType(
    {"llama-functions": _llama_functions, "chat-template": _chat_template}
)


def dialect_for(name: str, tokenizer: Any | None = None) -> Dialect:
    """The dialect of that name for a Transformers tokenizer; `llama-functions` works without one.

    Raises:
        InputError: no such dialect, or a tokenizer that lacks what the dialect needs.
    """
    if name not in DIALECTS:
        raise InputError(f"no dialect is named {name!r}, expected one of {', '.join(DIALECTS)}")
    return DIALECTS[name](tokenizer)
