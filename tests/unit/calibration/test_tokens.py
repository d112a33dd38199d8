from itertools import groupby
from typing import Any

import numpy as np
import pytest
from conversations import FUNCTIONS, calls, says, user
from models import tiny_tokenizer
from templates import HERMES

from lf_export.calibration.tokens import TokenClass, call_spans, encode
from lf_export.errors import InputError
from lf_export.functions.dialects import Piece, dialect_for, text_of

CALL = '{"function_call":{"name":"get_weather","arguments":{"city":"Paris","days":3}}}'


def by_class(pieces: list[Piece], tokenizer: Any) -> list[tuple[str, str]]:
    """The text of each run of tokens of one class, told from the ids alone."""
    sample = encode(pieces, tokenizer)
    runs = groupby(zip(sample.classes, sample.ids, strict=True), key=lambda pair: pair[0])
    return [(TokenClass(kind).name, tokenizer.decode([token for _, token in run])) for kind, run in runs]


def spans(text: str) -> list[tuple[str, str]]:
    return [(kind.name, text[start:end]) for start, end, kind in call_spans(text)]


def letters_alone() -> Any:
    """A tokenizer that knows each byte alone, so that no token straddles anything."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=259, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["a"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    return fast


def merging(*merged: str, trim_offsets: bool = False) -> Any:
    """A byte-level tokenizer that also knows `merged` as words of one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [word.replace(" ", "Ġ") for word in merged]
    pairs: dict[tuple[str, str], None] = {}
    for name in names:
        for at in range(1, len(name)):
            pairs[name[:at], name[at]] = None
    vocabulary = {word: at for at, word in enumerate(dict.fromkeys([*alphabet, *("".join(pair) for pair in pairs)]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(pairs)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_names_keys_and_values_are_found_without_their_quotes() -> None:
    assert spans(CALL) == [
        ("NAME", "get_weather"),
        ("KEY", "city"),
        ("VALUE", "Paris"),
        ("KEY", "days"),
        ("VALUE", "3"),
    ]


def test_nested_values_have_keys_and_values_of_their_own() -> None:
    text = (
        '{"function_call":{"name":"f","arguments":{"a":{"name":"x","b":[1,{"c":null},"d e"]},"arguments":"y",'
        '"e":true,"n":-1.5e3,"z":"","q":"say \\"hi\\" {[:,"}}}'
    )
    assert spans(text) == [
        ("NAME", "f"),
        ("KEY", "a"),
        ("KEY", "name"),
        ("VALUE", "x"),
        ("KEY", "b"),
        ("VALUE", "1"),
        ("KEY", "c"),
        ("VALUE", "null"),
        ("VALUE", "d e"),
        ("KEY", "arguments"),
        ("VALUE", "y"),
        ("KEY", "e"),
        ("VALUE", "true"),
        ("KEY", "n"),
        ("VALUE", "-1.5e3"),
        ("KEY", "z"),
        ("VALUE", ""),
        ("KEY", "q"),
        ("VALUE", 'say \\"hi\\" {[:,'),
    ]


def test_a_name_after_the_arguments_is_a_name() -> None:
    assert spans('{"function_call":{"arguments":{"name":"x"},"name":"f"}}') == [
        ("KEY", "name"),
        ("VALUE", "x"),
        ("NAME", "f"),
    ]


def test_parallel_and_hermes_calls_are_found() -> None:
    assert spans(f"{CALL}\n{CALL}<|im_end|>") == 2 * spans(CALL)
    hermes = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
    assert spans(f"{hermes}\n{hermes}") == 2 * spans(CALL)


def test_every_token_of_a_conversation_has_its_class() -> None:
    tokenizer = tiny_tokenizer()
    dialect = dialect_for("chat-template", tokenizer)
    pieces = dialect.render([user("Hi"), calls(("get_weather", {"city": "Rome"})), user("Ok"), says("Fine")], FUNCTIONS)
    found = by_class(pieces, tokenizer)
    assert [kind for kind, _ in found if kind != "PUNCT"] == [
        *("PROMPT", "FUNCTIONS", "PROMPT"),
        *("NAME", "KEY", "VALUE"),
        *("PROMPT", "PROSE", "PROMPT"),
    ]
    assert "".join(text for _, text in found) == text_of(pieces)
    words = dict(found)
    assert (words["NAME"], words["KEY"], words["VALUE"]) == ("get_weather", "city", "Rome")
    assert words["PROSE"] == "Fine<|im_end|>"
    assert ("PUNCT", '"}}}<|im_end|>') in found


@pytest.mark.parametrize("template", [None, HERMES])
def test_ids_are_those_of_the_whole_text(template: str | None) -> None:
    tokenizer = tiny_tokenizer()
    if template:
        tokenizer.chat_template = template
    pieces = dialect_for("chat-template", tokenizer).render(
        [user("Zürich 😀  ?"), calls(("f", {"a": "Zürich 😀 \u2028"}))], FUNCTIONS
    )
    sample = encode(pieces, tokenizer, name="x")
    assert sample.ids.tolist() == tokenizer(text_of(pieces), add_special_tokens=False)["input_ids"]
    assert (sample.ids.dtype, sample.classes.dtype, len(sample), sample.name) == (
        np.int32,
        np.uint8,
        len(sample.ids),
        "x",
    )
    assert sample.counts.sum() == len(sample)
    assert sample.call_tokens == sample.counts[TokenClass.NAME :].sum() > 0


def test_a_character_of_several_tokens_keeps_its_class() -> None:
    found = by_class([Piece("é", "prompt"), Piece(CALL.replace("Paris", "😀é"), "call")], letters_alone())
    assert found[0] == ("PROMPT", "é")
    assert ("VALUE", "😀é") in found


def test_the_first_token_of_llama_functions_is_its_bos() -> None:
    tokenizer = letters_alone()
    dialect = dialect_for("llama-functions", tokenizer)
    pieces = dialect.render([user("Hi"), calls(("f", {}))], ())
    sample = encode(pieces, tokenizer, bos=dialect.bos)
    assert tokenizer.decode(sample.ids) == "<s>" + text_of(pieces)
    assert (sample.ids[0], sample.classes[0]) == (tokenizer.bos_token_id, TokenClass.PROMPT)
    assert sample.classes[-1] == TokenClass.PUNCT


def test_a_token_that_straddles_takes_the_most_specific_class() -> None:
    pieces = [Piece("user:", "prompt"), Piece(CALL, "call")]
    # closing quote and brackets glued to a value, a quote to a key, the prompt to the call
    for glued, kind in (
        ('s",', "VALUE"),
        ('"city', "KEY"),
        (':{"function', "PUNCT"),
        ('get_weather","arguments":{"c', "NAME"),
    ):
        tokenizer = merging(glued)
        sample = encode(pieces, tokenizer)
        straddling = tokenizer.get_vocab()[glued]
        assert TokenClass(sample.classes[sample.ids.tolist().index(straddling)]).name == kind


def test_spaces_that_offsets_leave_out_belong_to_their_token() -> None:
    pieces = [Piece("a", "prompt"), Piece("  b", "prose"), Piece(" c", "prompt")]
    for trim in (False, True):
        assert by_class(pieces, merging(" b", " c", trim_offsets=trim)) == [
            ("PROMPT", "a"),
            ("PROSE", "  b"),
            ("PROMPT", " c"),
        ]


def test_a_space_that_offsets_leave_out_still_decides_what_its_token_is() -> None:
    pieces = [Piece("a ", "prose"), Piece("b", "prompt"), Piece(" ", "prose"), Piece(" ", "prompt")]
    plain, trimmed = (encode(pieces, merging(" b", trim_offsets=trim)) for trim in (False, True))
    names = [TokenClass(kind).name for kind in plain.classes]
    assert names == ["PROSE", "PROSE", "PROSE", "PROMPT"]
    assert trimmed.classes.tolist()[:2] == plain.classes.tolist()[:2]


def test_an_empty_conversation_has_no_tokens() -> None:
    assert len(encode([], tiny_tokenizer())) == 0


def test_a_tokenizer_that_cannot_serve_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="gives no offsets"):
        encode([], Slow())
    with pytest.raises(InputError, match="lacks the token <s>"):
        encode([Piece("a", "prose")], tiny_tokenizer(), bos="<s>")
