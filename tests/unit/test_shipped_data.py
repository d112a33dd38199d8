import hashlib
import itertools
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lf_export.functions.answers import Call
from lf_export.functions.spec import from_openai, schema_hash
from lf_export.functions.validate import validate

CALIBRATION = Path(__file__).resolve().parents[2] / "calibration"
Row = dict[str, Any]
Data = dict[str, list[Row]]
Training = tuple[list[Row], set[str]]  # conversations, and the hashes of all templates
WORDS = ("lantern", "orchard", "velvet", "compass", "harvest", "pebble", "thunder", "saddle")
GENERATED = ("calls", "chat", "suites/calls", "suites/no-call", "suites/chat")


@pytest.fixture(scope="module")
def data() -> Data:
    return {
        name: [json.loads(line) for line in (CALIBRATION / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in GENERATED
    }


@pytest.fixture(scope="module")
def generator() -> tuple[Any, Any]:
    """The generator's modules; `calibration/` is no package that the product could import."""
    sys.path.insert(0, str(CALIBRATION))
    try:
        from generator import seeds, training
    finally:
        sys.path.remove(str(CALIBRATION))
    return seeds, training


def users(row: Row) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == "user"]


def plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def hashes(rows: Sequence[Row]) -> set[str]:
    return {schema_hash(spec) for row in rows for spec in from_openai(row.get("tools", []))}


def names(rows: Sequence[Row]) -> set[str]:
    return {plain(tool["function"]["name"]) for row in rows for tool in row.get("tools", [])}


def phrasings(rows: Sequence[Row]) -> set[str]:
    return {phrasing for row in rows for phrasing in row["phrasings"]}


@pytest.fixture(scope="module")
def training(generator: tuple[Any, Any]) -> Training:
    """What the adapter was trained on: a sample of its groups, and every seed that they are drawn from."""
    seeds, groups = generator
    split, chat = seeds.load_split("train"), seeds.load_chat("train")
    drawn = [
        groups.training_group(split, chat, random.Random(f"{seed} {step} 0"), 8, mix, words)  # noqa: S311
        for seed, mix, words in ((17, "calls", None), (19, "abstain", None), (47, "last", WORDS))
        for step in range(100)
    ]
    rows = [
        {"messages": messages, "tools": group.tools, "phrasings": []}
        for group in drawn
        for _, messages in group.branches
    ]
    templates = {
        seeds.phrasing_hash(template)
        for function in split.functions
        for template in (*function.phrasings, *function.parallel, *(case.ask for case in function.missing))
    }
    templates |= {seeds.phrasing_hash(function.followup) for function in split.functions if function.followup}
    templates |= {seeds.phrasing_hash(case.ask) for case in split.no_call}
    return rows, templates


def values(groups: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every text among the arguments of all calls, with the schema that the group shows for it."""

    def walk(value: Any, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, schema["properties"][key])
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner, schema["items"])
        elif isinstance(value, str):
            yield value, schema

    found = []
    for group in groups:
        shown = {tool["function"]["name"]: tool["function"]["parameters"] for tool in group.tools}
        for _, messages in group.branches:
            for call in (call for message in messages for call in message.get("tool_calls", [])):
                name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
                found += walk(arguments, shown[name])
    return found


def test_renewed_values_are_hardly_ever_the_same_and_enumerations_show_theirs(generator: tuple[Any, Any]) -> None:
    seeds, groups = generator
    split = seeds.load_split("train")
    drawn = {
        words: [
            groups.training_group(split, [], random.Random(f"5 {step}"), 8, "last", words)  # noqa: S311
            for step in range(100)
        ]
        for words in (None, WORDS)
    }
    written = {str(value) for pool in split.pools.values() for value in pool}
    free = {words: {text for text, schema in values(rows) if "enum" not in schema} for words, rows in drawn.items()}
    known = {words: len(texts & written) / len(texts) for words, texts in free.items()}
    assert known[WORDS] < 0.5 < known[None], known
    enums = [(text, schema["enum"]) for text, schema in values(drawn[WORDS]) if "enum" in schema]
    assert all(text in choices for text, choices in enums)
    assert {text for text, _ in enums} - {text for text, schema in values(drawn[None]) if "enum" in schema}


def test_a_request_that_was_written_whole_gets_other_values_the_same_in_its_answer(generator: tuple[Any, Any]) -> None:
    renew = generator[1].renew_literals
    rng = random.Random(3)  # noqa: S311
    texts = ["Move Anna's 3 bags to gate B-12 on 2026-05-04.", "At what time on 2026-05-04, Anna?"]
    made = [renew(texts, ["copper", "window"], rng) for _ in range(60)]
    assert texts in made  # some stay as they were written
    changed = [pair for pair in made if pair != texts]
    assert len({tuple(pair) for pair in changed}) > len(changed) // 2
    for ask, reply in changed:
        assert ask.startswith("Move ")
        assert reply.startswith("At what time on ")
        date = re.search(r"\d{4}-\d{2}-\d{2}", reply)
        assert date is not None
        assert date[0] in ask
        assert re.search(r"\d bags to gate [A-Z]\w*-\d\d on ", ask)


def test_a_request_can_lack_a_number_before_its_noun(generator: tuple[Any, Any]) -> None:
    split = generator[0].load_split("train")
    (function,) = [each for each in split.functions if each.name == "transfer_money"]
    only = replace(function, phrasings=("Send {amount} euros to {recipient} out of {from_account}.",))
    asked = {
        generator[1]._contrast(only, split, random.Random(seed), required=True)[0].messages[0]["content"]  # noqa: S311
        for seed in range(40)
    }
    assert any(request.startswith("Send euros to ") for request in asked)


def test_the_files_are_what_the_seeds_make_byte_for_byte() -> None:
    command = [sys.executable, str(CALIBRATION / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", GENERATED)
def test_each_file_has_a_card_with_its_digest(name: str) -> None:
    digest = hashlib.sha256((CALIBRATION / f"{name}.jsonl").read_bytes()).hexdigest()
    assert digest in (CALIBRATION / f"{name}.md").read_text(encoding="utf-8")


def test_calibration_has_the_promised_breadth(data: Data) -> None:
    calls = data["calls"]
    assert len(calls) >= 512
    assert len(names(calls)) >= 120
    assert len({row["domain"] for row in calls}) >= 15
    assert set(Counter(row["category"] for row in calls)) == {
        "single", "one_of_several", "parallel", "nested", "array", "enum", "optional", "numbers_dates", "multi_turn",
        "clarify", "no_function_fits",
    }  # fmt: skip
    assert len(data["chat"]) >= 256


def test_the_suites_have_the_promised_size(data: Data) -> None:
    counts = Counter(row["category"] for row in data["suites/calls"])
    assert sum(counts.values()) >= 320
    assert counts["single"] + counts["one_of_several"] >= 130
    assert len(data["suites/no-call"]) >= 180
    assert len(data["suites/chat"]) >= 60


@pytest.mark.parametrize("name", GENERATED)
def test_ids_are_unique(data: Data, name: str) -> None:
    ids = [row["id"] for row in data[name]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", ["calls", "suites/calls", "suites/no-call"])
def test_every_call_is_valid_under_the_functions_that_are_shown(data: Data, name: str) -> None:
    for row in data[name]:
        functions = from_openai(row["tools"])
        assert 2 <= len(functions) <= 6, row["id"]
        for message in row["messages"]:
            for call in message.get("tool_calls", []):
                made = Call(call["function"]["name"], json.loads(call["function"]["arguments"]))
                assert not validate(made, functions), row["id"]


def test_every_value_of_a_reference_call_can_be_read_from_the_conversation(data: Data) -> None:
    def leaves(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            return itertools.chain.from_iterable(map(leaves, value.values()))
        return itertools.chain.from_iterable(map(leaves, value)) if isinstance(value, list) else iter([value])

    for row in data["suites/calls"]:
        asked = " ".join(users(row))
        functions = {tool["function"]["name"]: tool["function"] for tool in row["tools"]}
        for call in row["messages"][-1]["tool_calls"]:
            schema = json.dumps(functions[call["function"]["name"]], ensure_ascii=False)
            for value in leaves(json.loads(call["function"]["arguments"])):
                chosen = isinstance(value, bool) or f'"{value}"' in schema  # an enum's value may be said otherwise
                assert chosen or str(value) in asked, (row["id"], value)


@pytest.mark.parametrize(("name", "kind"), [("suites/calls", "call"), ("suites/no-call", "prose")])
def test_the_last_message_is_the_reference(data: Data, name: str, kind: str) -> None:
    for row in data[name]:
        last = row["messages"][-1]
        assert last["role"] == "assistant"
        assert bool(last.get("tool_calls")) == (kind == "call"), row["id"]
        assert kind == "call" or last["content"].strip()


def test_items_of_a_block_show_the_same_functions_in_the_same_order(data: Data) -> None:
    shown = {}
    for row in data["suites/calls"] + data["suites/no-call"]:
        assert shown.setdefault(row["block"], row["tools"]) == row["tools"], row["id"]


def test_no_function_that_fits_is_shown_where_none_should_fit(data: Data) -> None:
    for row in data["suites/no-call"]:
        if row["category"] == "no_function_fits":
            shown = names([row])
            owners = {
                plain(call["function"]["name"])
                for other in data["suites/calls"]
                if set(other["phrasings"]) & set(row["phrasings"])
                for message in other["messages"]
                for call in message.get("tool_calls", [])
                if len(other["phrasings"]) == 1
            }
            assert not owners & shown, row["id"]


def test_suites_share_no_function_with_calibration_or_training(data: Data, training: Training) -> None:
    rows, _ = training
    seen = data["calls"] + rows
    held = data["suites/calls"] + data["suites/no-call"]
    assert not names(held) & names(seen)
    assert not hashes(held) & hashes(seen)


def test_suites_share_no_phrasing_with_calibration_or_training(data: Data, training: Training) -> None:
    _, templates = training
    seen = phrasings(data["calls"]) | phrasings(data["chat"]) | templates
    held = data["suites/calls"] + data["suites/no-call"] + data["suites/chat"]
    assert phrasings(data["calls"]) & templates
    assert not phrasings(held) & seen


def test_suites_share_no_request_with_calibration_or_training(data: Data, training: Training) -> None:
    rows, _ = training
    seen = {text for row in data["calls"] + data["chat"] + rows for text in users(row)}
    # What follows a call ("And in {city}?") is too short to be anyone's own; the requests that open are compared.
    held = {users(row)[0] for name in ("suites/calls", "suites/no-call", "suites/chat") for row in data[name]}
    assert not held & seen


def test_a_seed_that_is_wrong_is_named(generator: tuple[Any, Any], tmp_path: Path) -> None:
    seeds, _ = generator
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "_pools.yaml").write_text("city: [Rome, Oslo]\n", encoding="utf-8")
    (folder / "weather.yaml").write_text(
        "domain: weather\nfunctions:\n- name: f\n  description: F\n  parameters: {city: {type: string, from: city}}\n"
        "  phrasings: ['Weather in {town}']\n",
        encoding="utf-8",
    )
    with pytest.raises(SystemExit, match=r"weather.yaml: f: unknown slot town[\s\S]*required city has no slot"):
        seeds.load_split("train", tmp_path)
