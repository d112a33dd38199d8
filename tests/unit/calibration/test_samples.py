import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conversations import FUNCTIONS, WEATHER, call_record, calls, chat_record, says, user

from lf_export.calibration.samples import load_samples
from lf_export.errors import InputError, MissingError
from lf_export.functions.dialects import dialect_for, text_of


def written(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def refused(path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_samples(path)
    return [line.replace(str(path), "FILE") for line in caught.value.message.splitlines()]


def llama_row(**fields: Any) -> dict[str, Any]:
    messages = [user("Weather in Paris?"), calls(("get_weather", {"city": "Paris"}))]
    text = text_of(dialect_for("llama-functions").render(messages, FUNCTIONS))
    prompt, _, output = text.partition("[/INST]")
    return {"input": f"{prompt}[/INST]", "output": output.removesuffix("</s>")} | fields


def test_openai_rows_are_samples(tmp_path: Path) -> None:
    path = written(tmp_path, call_record("a", note="kept out"), chat_record("b"))
    first, second = load_samples(path)
    assert (first.id, first.category, first.kind, first.functions[0].name) == ("a", "single", "call", "get_weather")
    assert (second.id, second.category, second.kind, second.functions) == ("b", "chat", "chat", ())
    assert first.messages[1]["tool_calls"][0]["function"]["name"] == "get_weather"


def test_rows_without_an_id_are_named_by_their_line(tmp_path: Path) -> None:
    record = {key: value for key, value in chat_record("x").items() if key not in {"id", "category"}}
    assert [sample.id for sample in load_samples(written(tmp_path, record, record))] == ["rows:1", "rows:2"]


def test_llama_functions_rows_are_samples_and_render_to_the_same_bytes(tmp_path: Path) -> None:
    (sample,) = load_samples(written(tmp_path, llama_row()))
    assert (sample.kind, sample.functions) == ("call", FUNCTIONS)
    text = text_of(dialect_for("llama-functions").render(sample.messages, sample.functions))
    assert text == llama_row()["input"] + llama_row()["output"] + "</s>"


def test_parquet_rows_are_samples(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([llama_row(), {"input": "[INST] Hi [/INST]", "output": " Hello. "}]), path)
    first, second = load_samples(path)
    assert (first.id, first.kind, second.kind) == ("rows:1", "call", "chat")
    assert second.messages == (user("Hi"), says("Hello."))


def test_nested_parquet_rows_lose_the_nulls_that_parquet_adds(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    zone = {"type": "object", "properties": {"zone": {"type": "string"}}}
    now = {"type": "function", "function": {"name": "now", "parameters": zone}}
    second = call_record("b") | {"messages": [user("Now?"), says("Noon.")], "tools": [now]}
    pq.write_table(pa.Table.from_pylist([call_record("a"), second]), path)
    first, second_read = load_samples(path)
    assert first.functions == FUNCTIONS[:1]
    assert second_read.functions[0].parameters == zone


def test_conversations_may_be_json_text_in_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    record = call_record("a")
    row = record | {"messages": json.dumps(record["messages"]), "tools": json.dumps([WEATHER])}
    pq.write_table(pa.Table.from_pylist([row]), path)
    assert load_samples(path)[0].messages == tuple(record["messages"])


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingError, match="needs pyarrow") as caught:
        load_samples(tmp_path / "rows.parquet")
    assert caught.value.hint == "pip install pyarrow"


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    assert "does not read as parquet" in refused(path)[0]


def test_plain_text_becomes_passages_of_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    lines = [f"Line {at} says a few words about nothing.\n" for at in range(100)]
    path.write_text("".join(lines), encoding="utf-8")
    samples = load_samples(path)
    assert [sample.id for sample in samples] == ["text:1", "text:2", "text:3"]
    assert "\n".join(sample.text for sample in samples) + "\n" == "".join(lines)
    assert {sample.kind for sample in samples} == {"text"}


def test_every_bad_line_is_told_at_once_with_its_number(tmp_path: Path) -> None:
    broken = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}
    two_calls = [user("a"), calls(("get_weather", {"city": "x"}), ("nope", {}))]
    path = written(
        tmp_path,
        call_record("a"),
        b"",
        b"{",
        b'{"id": "caf\xe9"}',
        b"[1]",
        b'{"id": NaN}',
        b'{"id": "b", "id": "c"}',
        {"id": "d"},
        call_record("e") | {"messages": [user("x"), broken]},
        call_record("f") | {"messages": two_calls},
        chat_record("g") | {"messages": two_calls},
        call_record("h") | {"tools": "x"},
        call_record("i") | {"messages": [user("x")]},
        call_record("a"),
        {"id": 5},
        llama_row(output=' {"function_call":{"name":"get_weather" '),
        llama_row(input="Hello"),
        chat_record("k") | {"category": 5},
    )
    no_key = "Expecting property name enclosed in double quotes"
    cut = json.dumps(' {"function_call":{"name":"get_weather" ')
    assert refused(path) == [
        "FILE:2: the line is empty, expected a JSON object",
        f"FILE:3: not JSON at column 2: {no_key}",
        "FILE:4: not UTF-8 at byte 12",
        "FILE:5: expected a JSON object, found list",
        "FILE:6: not JSON: NaN is not JSON",
        "FILE:7: not JSON: a key stands twice in one object",
        "FILE:8: expected 'messages', or 'input' and 'output' as text, found id",
        f"FILE:9: messages[1].tool_calls[0].function.arguments: not JSON: {no_key}: line 1 column 2 (char 1)",
        "FILE:10: messages[1]: calls 'nope', which is not in tools (get_weather)",
        "FILE:11: messages[1]: calls 'get_weather', which is not in tools (none)",
        "FILE:11: messages[1]: calls 'nope', which is not in tools (none)",
        "FILE:12: tools: not JSON: Expecting value: line 1 column 1 (char 0)",
        "FILE:13: messages: no assistant message with text or tool_calls, so there is nothing to learn from",
        "FILE:14: the id 'a' is line 1's already",
        "FILE:15: id: expected text, found 5",
        f"FILE:16: output: the answer is malformed, expected a call or prose: {cut}",
        "FILE:17: input: expected '[INST] … [/INST]'",
        "FILE:18: category: expected text, found 5",
    ]


def test_the_number_of_mistakes_told_is_bounded(tmp_path: Path) -> None:
    lines = refused(written(tmp_path, *[b"{"] * 50))
    assert len(lines) == 21
    assert lines[-1] == "FILE: and 30 more mistakes"


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, data: bytes) -> None:
    for name, words in (("rows.jsonl", "expected a conversation a line"), ("rows.txt", "expected text")):
        path = tmp_path / name
        path.write_bytes(data)
        assert refused(path) == [f"FILE:1: the file is empty, {words}"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends with \.jsonl, \.parquet or \.txt"):
        load_samples(tmp_path / "rows.csv")
    for name in ("none.jsonl", "none.txt", "none.parquet"):
        with pytest.raises(MissingError, match="no such file"):
            load_samples(tmp_path / name)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load_samples(tmp_path / "folder.jsonl")
    (tmp_path / "latin.txt").write_bytes(b"one\ncaf\xe9\n")
    with pytest.raises(InputError, match=r"latin\.txt:2: not UTF-8"):
        load_samples(tmp_path / "latin.txt")
