import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversations import FUNCTIONS, WEATHER, call_record, calls, chat_record, says, user
from models import tiny_tokenizer
from pydantic import ValidationError

from lf_export.calibration.audit import Audit, render_audit
from lf_export.calibration.build import CalibrationOptions, CalibrationSet, build
from lf_export.calibration.tokens import TokenClass
from lf_export.errors import InputError, MissingError
from lf_export.functions.dialects import dialect_for, text_of
from lf_export.functions.spec import schema_hash

TOKENIZER = tiny_tokenizer()
CITIES = ["Paris", "Rome", "Oslo", "Lima", "Bonn", "Kyiv", "Baku", "Doha"]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def options(tmp_path: Path) -> CalibrationOptions:
    talk = [
        chat_record(f"chat-{at}", "It is a fine day, and I would stay outside all day long. " * 3) for at in range(8)
    ]
    return CalibrationOptions(
        calls=(written(tmp_path / "calls.jsonl", [call_record(f"call-{city}", city) for city in CITIES]),),
        chat=(written(tmp_path / "chat.jsonl", talk),),
        max_seq_length=2000,
    )


def changed(options: CalibrationOptions, **fields: Any) -> CalibrationOptions:
    return CalibrationOptions(**(options.model_dump() | fields))


def refused(options: CalibrationOptions) -> InputError:
    with pytest.raises(InputError) as caught:
        build(options, TOKENIZER)
    return caught.value


def test_a_set_holds_whole_conversations_as_the_dialect_renders_them(options: CalibrationOptions) -> None:
    made = build(options, TOKENIZER)
    paris = next(sample for sample in made.samples if sample.name == "call-Paris")
    record = call_record("x")
    pieces = dialect_for("chat-template", TOKENIZER).render(record["messages"], FUNCTIONS[:1])
    assert TOKENIZER.decode(paris.ids) == text_of(pieces)
    assert {sample.name.partition("-")[0] for sample in made.samples} == {"call", "chat"}


def test_the_audit_counts_what_was_taken(options: CalibrationOptions) -> None:
    made = build(options, TOKENIZER)
    audit = made.audit
    counts = sum(sample.counts for sample in made.samples)
    assert list(audit.classes.values()) == counts.tolist()
    assert sum(audit.samples.values()) == len(made.samples) == sum(audit.categories.values())
    assert sum(audit.tokens.values()) == counts.sum()
    assert audit.call_tokens == sum(sample.call_tokens for sample in made.samples)
    assert audit.functions_called == ("get_weather",)
    assert audit.schemas == (schema_hash(FUNCTIONS[0]),)
    assert (audit.dialect, audit.call_tokens_dropped, audit.dropped) == ("chat-template", 0, ())


def test_the_same_options_give_the_same_bytes_and_another_seed_does_not(
    options: CalibrationOptions, tmp_path: Path
) -> None:
    fewer = changed(options, num_samples=9)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build(fewer, TOKENIZER).save(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["calibration.json", "tokens.npz"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert build(changed(fewer, seed=1), TOKENIZER).digest != build(fewer, TOKENIZER).digest


def test_a_saved_set_loads_as_it_was(options: CalibrationOptions, tmp_path: Path) -> None:
    made = build(changed(options, weights={"value": 4.0}), TOKENIZER)
    made.save(tmp_path)
    loaded = CalibrationSet.load(tmp_path)
    assert (loaded.audit, loaded.weights, loaded.digest) == (made.audit, made.weights, made.digest)
    for first, second in zip(loaded.samples, made.samples, strict=True):
        assert first.name == second.name
        assert np.array_equal(first.ids, second.ids)
        assert np.array_equal(first.classes, second.classes)
        assert (first.ids.dtype, first.classes.dtype) == (np.int32, np.uint8)


def test_tokens_that_are_not_those_of_the_digest_are_refused(options: CalibrationOptions, tmp_path: Path) -> None:
    made = build(options, TOKENIZER)
    first = made.samples[0]
    other = replace(made, samples=(replace(first, ids=first.ids + 1), *made.samples[1:]))
    other.save(tmp_path)
    with pytest.raises(InputError, match="not those of the digest"):
        CalibrationSet.load(tmp_path)
    replace(made, samples=(replace(first, classes=first.classes * 0), *made.samples[1:])).save(tmp_path)
    with pytest.raises(InputError, match="not those of the digest"):
        CalibrationSet.load(tmp_path)


def test_a_damaged_set_is_refused(options: CalibrationOptions, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"there is no calibration\.json"):
        CalibrationSet.load(tmp_path)
    build(options, TOKENIZER).save(tmp_path)
    facts = json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))
    (tmp_path / "calibration.json").write_text(json.dumps(facts | {"names": ["x"]}), encoding="utf-8")
    with pytest.raises(InputError, match="lengths of the arrays do not agree"):
        CalibrationSet.load(tmp_path)
    del facts["audit"]["digest"]
    (tmp_path / "calibration.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(InputError, match="not a calibration audit of this version: digest"):
        CalibrationSet.load(tmp_path)
    (tmp_path / "calibration.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="does not read as a calibration set"):
        CalibrationSet.load(tmp_path)


def test_a_pickle_in_the_arrays_is_not_loaded(options: CalibrationOptions, tmp_path: Path) -> None:
    build(options, TOKENIZER).save(tmp_path)
    np.savez(tmp_path / "tokens.npz", ids=np.array([{}], dtype=object), classes=np.zeros(1), lengths=np.ones(1))
    with pytest.raises(InputError, match="Object arrays cannot be loaded"):
        CalibrationSet.load(tmp_path)


def test_weights_go_by_class(options: CalibrationOptions) -> None:
    made = build(changed(options, weights={"value": 4.0, "prompt": 0.5}), TOKENIZER)
    sample = next(sample for sample in made.samples if sample.name == "call-Paris")
    weights = made.token_weights(sample)
    assert (set(weights[sample.classes == TokenClass.VALUE]), weights.dtype) == ({4.0}, np.float32)
    assert set(weights[sample.classes == TokenClass.PROMPT]) == {0.5}
    assert set(weights[sample.classes == TokenClass.KEY]) == {1.0}
    assert made.digest != build(options, TOKENIZER).digest


def test_calls_that_do_not_fit_are_an_error_that_names_them(options: CalibrationOptions, tmp_path: Path) -> None:
    long = call_record("long", "Paris" * 100)
    calls_file = written(tmp_path / "more.jsonl", [*[call_record(f"c-{city}", city) for city in CITIES], long])
    error = refused(changed(options, calls=(calls_file,), max_seq_length=600))
    assert "call tokens are lost: 1 samples with calls are longer than max_seq_length 600: long (" in error.message
    assert error.status == 3
    assert error.hint is not None
    fraction = float(error.hint.rpartition("--allow-dropped ")[2].partition(" ")[0])
    made = build(changed(options, calls=(calls_file,), max_seq_length=600, allow_dropped=fraction), TOKENIZER)
    assert [name for name, _ in made.audit.dropped] == ["long"]
    assert made.audit.call_tokens_dropped > 0
    assert "long (" in render_audit(made.audit)


def test_chat_that_does_not_fit_is_counted_and_no_error(options: CalibrationOptions, tmp_path: Path) -> None:
    chat = written(
        tmp_path / "more.jsonl",
        [*[chat_record(f"{at}", "Fine. " * 40) for at in range(9)], chat_record("long", "word " * 3000)],
    )
    made = build(changed(options, chat=(chat,)), TOKENIZER)
    assert [name for name, _ in made.audit.dropped] == ["long"]
    assert made.audit.call_tokens_dropped == 0


def test_too_few_call_tokens_are_an_error(options: CalibrationOptions) -> None:
    error = refused(changed(options, min_call_tokens=100_000))
    assert "tokens are inside function calls, expected at least 100000" in error.message
    assert build(changed(options, share=0.0, min_call_tokens=100_000), TOKENIZER).audit.call_tokens == 0


def test_a_function_or_a_request_of_an_evaluation_suite_is_an_error(
    options: CalibrationOptions, tmp_path: Path
) -> None:
    reworded = json.loads(json.dumps(WEATHER).replace("get_weather", "getWeather").replace("Get the", "Fetch the"))
    message = [user("How warm is it, in Accra?"), calls(("getWeather", {"city": "Accra"}))]
    same_function = call_record("eval-1") | {"tools": [reworded], "messages": message}
    same_words = chat_record("eval-2") | {"messages": [user("what is the WEATHER in Paris"), says("I cannot know.")]}
    path = written(tmp_path / "suite.jsonl", [same_function, same_words])
    error = refused(changed(options, suites=(str(path),)))
    assert error.message.splitlines() == [
        f"{path}: the function 'getWeather' is in the calibration sample call-Doha too",
        f"{path}: the request of item eval-2 is in the calibration sample call-Paris too",
    ]


def test_a_suite_of_its_own_is_compared_and_named(options: CalibrationOptions, tmp_path: Path) -> None:
    path = written(
        tmp_path / "suite.jsonl", [chat_record("e") | {"messages": [user("What is a noun, please?"), says("x")]}]
    )
    made = build(changed(options, suites=(str(path),)), TOKENIZER)
    assert made.audit.suites == (str(path),)
    assert "no overlap" in render_audit(made.audit)


@pytest.mark.parametrize("allowed", ["get_weather", "the suite"])
def test_a_function_or_a_suite_that_is_allowed_by_name_may_be_shared_and_no_audit_denies_it(
    options: CalibrationOptions, tmp_path: Path, allowed: str
) -> None:
    path = written(tmp_path / "mine.jsonl", [call_record("other", "Nowhere at all")])
    shared = changed(options, suites=(str(path), "no-call"))
    assert "'get_weather'" in refused(shared).message
    name = str(path) if allowed == "the suite" else allowed
    assert build(changed(shared, allow_contaminated=(name,)), TOKENIZER).audit.suites == ("no-call",)


def test_mistakes_of_all_sources_are_told_at_once(options: CalibrationOptions, tmp_path: Path) -> None:
    bad = written(tmp_path / "bad.jsonl", [{"id": "x"}])
    twice = written(tmp_path / "twice.jsonl", [chat_record("chat-0")])
    error = refused(changed(options, calls=(*options.calls, bad), chat=(*options.chat, twice)))
    assert [line.partition(": ")[2] for line in error.message.splitlines()] == [
        "expected 'messages', or 'input' and 'output' as text, found id",
        "the id 'chat-0' is in another source too",
    ]


def test_a_conversation_that_the_dialect_cannot_show_is_named(options: CalibrationOptions, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<s>", "</s>"]})
    chat = written(tmp_path / "odd.jsonl", [chat_record("odd") | {"messages": [user("a"), user("b"), says("c")]}])
    with pytest.raises(InputError, match="sample odd: turn 2 is the user's, expected the assistant's"):
        build(changed(options, chat=(chat,), dialect="llama-functions"), tokenizer)


def test_llama_functions_sets_begin_with_bos(options: CalibrationOptions) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<s>", "</s>"]})
    made = build(changed(options, dialect="llama-functions"), tokenizer)
    begin, end = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    assert {(int(sample.ids[0]), int(sample.ids[-1])) for sample in made.samples} == {(begin, end)}


def test_plain_text_counts_as_chat(options: CalibrationOptions, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("A line of plain words.\n" * 200, encoding="utf-8")
    made = build(changed(options, chat=(tmp_path / "text.txt",)), TOKENIZER)
    text = next(sample for sample in made.samples if sample.name == "text:1")
    assert set(text.classes) == {TokenClass.PROSE}
    assert made.audit.samples["chat"] > 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dialect": "klingon"}, "no dialect is named 'klingon'"),
        ({"weights": {"verb": 1}}, "no token class is named verb"),
        ({"weights": {"value": -1}}, "greater than or equal to 0"),
        ({"weights": {"value": float("nan")}}, "finite"),
        ({"num_samples": 5, "max_tokens": 5}, "both given"),
        ({"share": 1.5}, "less than or equal to 1"),
        ({"shares": 0.5}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CalibrationOptions(**fields)


def test_the_audit_reads_back_and_prints_one_fact_a_line(options: CalibrationOptions) -> None:
    audit = build(changed(options, num_samples=10), TOKENIZER).audit
    assert Audit.from_json(json.loads(json.dumps(audit.to_json()))) == audit
    lines = render_audit(audit).splitlines()
    names = [line.split("  ")[0].strip() or line.split()[0] for line in lines]
    assert names[:3] == ["dialect", "call", "chat"]
    assert names[-1] == "digest"
    assert audit.digest in lines[-1]
    assert any(line.split()[:3] == ["value", str(audit.classes["value"]), "tokens"] for line in lines)
