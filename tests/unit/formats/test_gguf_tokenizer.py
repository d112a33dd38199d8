import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest

from lf_export.errors import InputError
from lf_export.formats.gguf_tokenizer import TokenType, read_tokenizer

LLAMA3 = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, edit: Callable[[dict[str, Any]], None], name: str = "tokenizer.json") -> None:
    path = folder / name
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def split(regex: str) -> dict[str, Any]:
    parts = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [parts, BYTES | {"use_regex": False}]}


def test_tokens_have_their_ids_types_and_special_roles(folder: Path) -> None:
    tokenizer = read_tokenizer(folder, 330)
    assert tokenizer.model == "gpt2"
    assert tokenizer.tokens[:3] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert tokenizer.types[:4] == (TokenType.CONTROL,) * 3 + (TokenType.NORMAL,)
    assert tokenizer.special == {"bos": 1, "eos": 2, "unknown": 0, "padding": 2}
    assert tokenizer.chat_template == models.CHATML


def test_rows_of_embeddings_without_a_token_are_unused(folder: Path) -> None:
    tokenizer = read_tokenizer(folder, 330)
    assert len(tokenizer.tokens) == 330
    assert tokenizer.tokens[-1] == "[PAD329]"
    assert tokenizer.types[-1] is TokenType.UNUSED


def test_more_tokens_than_rows_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="ids up to 319, the model has 300 rows"):
        read_tokenizer(folder, 300)


@pytest.mark.parametrize(
    ("rules", "ignore_merges", "name"),
    [
        (
            {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]},
            False,
            "smollm",
        ),
        (BYTES, False, "gpt-2"),
        (split(LLAMA3), True, "llama-bpe"),
        (split(LLAMA3.replace("{1,3}", "")), False, "qwen2"),
    ],
)
def test_pre_tokenizers_are_recognised_by_their_rules(
    folder: Path, rules: dict[str, Any], ignore_merges: bool, name: str
) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["pre_tokenizer"] = rules
        data["model"]["ignore_merges"] = ignore_merges

    change(folder, edit)
    assert read_tokenizer(folder, 320).pre == name


@pytest.mark.parametrize(
    "rules",
    [
        None,
        {"type": "Whitespace"},
        BYTES | {"add_prefix_space": True},
        BYTES | {"use_regex": False},
        {"type": "Sequence", "pretokenizers": [DIGITS | {"individual_digits": False}, BYTES]},
        split(LLAMA3 + "|x"),
    ],
)
def test_an_unknown_pre_tokenizer_is_refused(folder: Path, rules: dict[str, Any] | None) -> None:
    change(folder, lambda data: data.update(pre_tokenizer=rules))
    with pytest.raises(InputError, match="none that was compared with llama") as caught:
        read_tokenizer(folder, 320)
    assert caught.value.hint is not None
    assert "smollm" in caught.value.hint


def test_merges_that_llama_cpp_would_skip_are_refused(folder: Path) -> None:
    change(folder, lambda data: data["model"].update(ignore_merges=True))
    with pytest.raises(InputError, match=r"ignore_merges is True, .* smollm behaves as False"):
        read_tokenizer(folder, 320)


def test_an_unknown_normalizer_is_refused(folder: Path) -> None:
    change(folder, lambda data: data.update(normalizer={"type": "Lowercase"}))
    with pytest.raises(InputError, match="no counterpart in llama"):
        read_tokenizer(folder, 320)


def test_another_tokenizer_model_is_refused(folder: Path) -> None:
    change(folder, lambda data: data["model"].update(type="Unigram"))
    with pytest.raises(InputError, match="'Unigram', expected BPE"):
        read_tokenizer(folder, 320)


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json: not found"):
        read_tokenizer(tmp_path, 320)
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer\.json:1: not JSON"):
        read_tokenizer(tmp_path, 320)


def test_bos_is_added_where_the_template_adds_it(folder: Path) -> None:
    assert not read_tokenizer(folder, 320).add_bos
    single = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    change(folder, lambda data: data.update(post_processor={"type": "TemplateProcessing", "single": single}))
    tokenizer = read_tokenizer(folder, 320)
    assert tokenizer.add_bos
    assert not tokenizer.add_eos


def test_an_end_token_of_the_generation_config_ends_answers_too(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}', encoding="utf-8")
    special = read_tokenizer(folder, 320).special
    assert (special["eos"], special["eot"]) == (2, 7)


def test_a_token_that_is_added_but_not_special_is_user_defined(folder: Path) -> None:
    change(folder, lambda data: data["added_tokens"][1].update(special=False))
    assert read_tokenizer(folder, 320).types[1] is TokenType.USER_DEFINED


def test_merges_are_written_with_one_space_between_the_parts(folder: Path) -> None:
    change(folder, lambda data: data["model"].update(merges=[["a b", "c"], ["d", "e"]]))
    assert read_tokenizer(folder, 320).merges == ("aĠb c", "d e")


def sentencepiece(folder: Path, pre_tokenizer: dict[str, Any] | None, normalizer: dict[str, Any] | None) -> None:
    vocab = {"<unk>": 0, "<0x41>": 1, "a": 2, "b": 3, "ab": 4, "▁": 5, "▁ab": 6}
    data = {
        "added_tokens": [{"id": 0, "content": "<unk>", "special": True}],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": vocab,
            "merges": ["a b", "▁ ab", "▁a b"],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def test_sentencepiece_scores_follow_the_merges(tmp_path: Path) -> None:
    sentencepiece(tmp_path, None, REPLACE)
    tokenizer = read_tokenizer(tmp_path, 7)
    assert tokenizer.model == "llama"
    assert tokenizer.scores == (-3.0, -3.0, -3.0, -3.0, 0.0, -3.0, -1.0)
    assert tokenizer.types[:3] == (TokenType.UNKNOWN, TokenType.BYTE, TokenType.NORMAL)
    assert not tokenizer.space_prefix


def test_where_llama_cpp_spaces_otherwise_the_tokenizer_says_so(tmp_path: Path) -> None:
    for scheme, prefix, notes in (("never", False, 0), ("first", True, 2), ("always", True, 1)):
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
        sentencepiece(tmp_path, metaspace, None)
        tokenizer = read_tokenizer(tmp_path, 7)
        assert (tokenizer.space_prefix, len(tokenizer.notes)) == (prefix, notes)


@pytest.mark.parametrize(
    ("pre_tokenizer", "normalizer"),
    [(None, None), ({"type": "Metaspace", "split": True}, None), (None, {"type": "Strip"})],
)
def test_other_rules_than_sentencepiece_are_refused(
    tmp_path: Path, pre_tokenizer: dict[str, Any] | None, normalizer: dict[str, Any] | None
) -> None:
    sentencepiece(tmp_path, pre_tokenizer, normalizer)
    with pytest.raises(InputError, match="SentencePiece"):
        read_tokenizer(tmp_path, 7)
