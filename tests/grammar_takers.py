"""Does a grammar of calls take a text? By an independent reader of its GBNF, and by llguidance for its Lark form."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from gbnf_reader import Grammar
from models import tiny_tokenizer

from lf_export.functions.answers import Form
from lf_export.functions.grammars import CallGrammar, call_grammar
from lf_export.functions.spec import FunctionSpec


def takes(functions: Sequence[FunctionSpec], text: str, form: Form = "function_call") -> bool:
    """Whether the grammar of calls to `functions` takes the whole text; both forms of it must agree."""
    grammar = call_grammar(functions, form)
    by_gbnf = Grammar(grammar.gbnf).matches(text)
    # A DEL is taken raw by the GBNF and as an escape by llguidance.
    assert takes_lark(grammar, text.replace("\x7f", "\\u007f")) == by_gbnf, f"GBNF says {by_gbnf} of {text!r}"
    return by_gbnf


def takes_lark(grammar: CallGrammar, text: str) -> bool:
    """Whether llguidance takes the whole text, byte by byte where the tokenizer has no longer tokens."""
    from llguidance import LLMatcher

    matcher = LLMatcher(_tokens(), grammar.lark)
    assert not matcher.is_error(), matcher.get_error()
    # a value may spell a special token: it is text all the same, and a model writes it with the tokens of text
    ids = _tokenizer()(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


@cache
def _tokenizer() -> Any:
    return tiny_tokenizer()


@cache
def _tokens() -> Any:
    from llguidance import hf

    return hf.from_tokenizer(_tokenizer())
