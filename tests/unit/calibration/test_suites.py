import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conversations import call_record, chat_record, says, user

from lf_export.calibration.suites import NO_CALL_TEXT, EvalItem, load_suite, read_suite, stratified
from lf_export.errors import InputError, MissingError
from lf_export.functions.answers import Answer, Call, calling, prose
from lf_export.functions.llama_functions import LlamaFunctions
from lf_export.functions.pieces import text_of
from lf_export.functions.spec import from_openai
from lf_export.provenance import sha256_file


def suite(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "suite.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def item(name: str, category: str, block: str) -> EvalItem:
    return EvalItem(name, category, block, (user(name),), (), Answer("prose", (), "x"))


def test_the_last_message_is_the_reference_answer(tmp_path: Path) -> None:
    first, second = load_suite(suite(tmp_path, call_record("a", block="weather"), chat_record("b", "No.")))
    assert (first.id, first.category, first.block) == ("a", "single", "weather")
    assert first.messages == (user("What is the weather in Paris?"),)
    assert first.expected == calling(Call("get_weather", {"city": "Paris", "days": 3}))
    assert second.expected == prose("No.")


def test_items_that_show_the_same_functions_share_a_block(tmp_path: Path) -> None:
    items = load_suite(suite(tmp_path, call_record("a"), call_record("b", "Rome"), chat_record("c")))
    assert items[0].block == items[1].block != items[2].block


def test_every_bad_row_is_told_at_once(tmp_path: Path) -> None:
    unanswered = call_record("a") | {"messages": [user("x")]}
    invalid = call_record("b")
    invalid["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"city": 5, "days": 50}'
    empty = chat_record("c", " ")
    rows = [
        unanswered,
        invalid,
        empty,
        {"id": "d"},
        chat_record("e"),
        chat_record("e"),
        chat_record("f") | {"block": 5},
    ]
    path = suite(tmp_path, *rows)
    with pytest.raises(InputError) as caught:
        load_suite(path)
    assert [line.removeprefix(str(path)) for line in caught.value.message.splitlines()] == [
        ":1: messages: expected the reference answer, an assistant message, as the last of several",
        ":2: messages[1]: get_weather: city is integer, expected string",
        ":2: messages[1]: get_weather: days is 50, expected at most 10",
        ":3: messages: the reference answer is empty",
        ":4: expected 'messages', or 'input' and 'output' as text, found id",
        ":6: a second item with the id 'e'",
        ":7: block: expected text, found 5",
    ]


def test_a_suite_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        load_suite(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"nothing named 'suites/none\.jsonl' ships"):
        load_suite("none")


def test_a_lone_answer_is_no_item(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="as the last of several"):
        load_suite(suite(tmp_path, chat_record("a") | {"messages": [says("x")]}))


ITEMS = [item(f"{block}-{at}", "abc"[at % 3], f"block{block}") for block in range(20) for at in range(6)]


@pytest.mark.parametrize("n", [1, 7, 30, 59, 60, 119])
def test_categories_keep_their_proportion_exactly(n: int) -> None:
    chosen = stratified(ITEMS, n, seed=1)
    counts = Counter(one.category for one in chosen)
    assert len(chosen) == n
    assert max(counts.values()) - min(counts[kind] for kind in "abc") <= 1


def test_blocks_stay_whole_where_the_counts_allow_it() -> None:
    blocks = Counter(one.block for one in stratified(ITEMS, 30, seed=1))
    assert set(blocks.values()) == {6}
    partial = Counter(one.block for one in stratified(ITEMS, 34, seed=1))
    assert sorted(partial.values()) == [4, 6, 6, 6, 6, 6]


def test_whole_blocks_are_taken_before_any_is_broken() -> None:
    sizes = {"w": 5, "x": 5, "y": 5, "z": 2}
    items = [item(f"{block}-{at}", "a", block) for block, size in sizes.items() for at in range(size)]
    for seed in range(10):
        chosen = Counter(one.block for one in stratified(items, 7, seed=seed))
        assert all(count == sizes[block] for block, count in chosen.items())


def test_the_choice_is_the_same_for_the_same_seed_and_keeps_the_order() -> None:
    chosen = [one.id for one in stratified(ITEMS, 40, seed=1)]
    assert chosen == [one.id for one in stratified(ITEMS, 40, seed=1)]
    assert chosen != [one.id for one in stratified(ITEMS, 40, seed=2)]
    assert chosen == [one.id for one in ITEMS if one.id in set(chosen)]


def test_small_categories_are_rounded_by_largest_remainder() -> None:
    items = [*[item(f"a{at}", "a", "") for at in range(97)], *[item(f"b{at}", "b", "") for at in range(3)]]
    assert Counter(one.category for one in stratified(items, 20)) == {"a": 19, "b": 1}


def test_asking_for_more_than_there_is_gives_all() -> None:
    assert stratified(ITEMS, 1000) == ITEMS


def test_other_attributes_can_be_the_key() -> None:
    chosen = stratified(ITEMS, 20, key="block", group="category")
    assert set(Counter(one.block for one in chosen).values()) == {1}


def expecting(name: str, *named: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "messages": [user("x")], "tools": call_record("x")["tools"], "expected": list(named), **more}


def test_expected_calls_may_stand_beside_the_messages(tmp_path: Path) -> None:
    plain = {"name": "get_weather", "arguments": {"city": "Rome"}}
    wrapped = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    first, second, third = load_suite(suite(tmp_path, expecting("a", plain), expecting("b", wrapped), expecting("c")))
    assert first.expected == second.expected == calling(Call("get_weather", {"city": "Rome"}))
    assert third.expected == prose(NO_CALL_TEXT)
    assert first.messages == (user("x"),)


def test_an_answer_and_expected_calls_are_one_too_many(tmp_path: Path) -> None:
    rows = [call_record("a") | {"expected": []}, expecting("b") | {"expected": "f"}, expecting("c", {"name": "f"})]
    with pytest.raises(InputError) as caught:
        load_suite(suite(tmp_path, *rows))
    assert [line.partition("jsonl:")[2] for line in caught.value.message.splitlines()] == [
        "1: messages: ends with an answer, and 'expected' gives another: expected one of them",
        "2: expected: expected a list of calls, found str",
        "3: messages[1]: f: no function is named 'f'",
    ]


def test_a_row_may_say_that_order_matters(tmp_path: Path) -> None:
    plain, ordered = load_suite(suite(tmp_path, call_record("a"), call_record("b") | {"ordered": True}))
    assert (plain.ordered, ordered.ordered) == (False, True)
    with pytest.raises(InputError, match="ordered: expected true or false"):
        load_suite(suite(tmp_path, call_record("a") | {"ordered": "yes"}))


def test_llama_functions_rows_are_items(tmp_path: Path) -> None:
    functions = from_openai(call_record("x")["tools"])
    messages = [user("How is Rome?")]
    prompt = text_of(LlamaFunctions().render(messages, functions, generate=True))
    row = {"input": prompt, "output": ' {"function_call":{"name":"get_weather","arguments":{"city":"Rome"}}} '}
    (item_read,) = load_suite(suite(tmp_path, row))
    assert item_read.expected == calling(Call("get_weather", {"city": "Rome"}))
    assert item_read.messages == tuple(messages)
    assert [spec.name for spec in item_read.functions] == ["get_weather"]


def test_a_suite_has_the_digest_of_its_file(tmp_path: Path) -> None:
    path = suite(tmp_path, call_record("a"))
    assert read_suite(path).sha256 == sha256_file(path)


def test_a_function_that_no_model_can_be_made_of_is_its_rows_mistake(tmp_path: Path) -> None:
    schema: Any = {"type": "string"}
    for _ in range(90):
        schema = {"type": "array", "items": schema}
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": schema}}},
    }
    with pytest.raises(InputError, match=r"suite\.jsonl:1: .*expected a smaller one"):
        load_suite(suite(tmp_path, call_record("a") | {"tools": [tool]}))
