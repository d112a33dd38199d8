"""A server is judged as an artifact is: on the command line and in a recipe, with llama.cpp's own server."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import completions, fake_server, says
from llama_server import llama_server

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.report import to_markdown
from lf_export.report.model import Report

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def gguf(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf")
    FORMAT.open(open_checkpoint(merged), out, GgufOptions(types=("F32",), name="m"), "digest").finish()
    return next(out.glob("*.gguf"))


@pytest.fixture(scope="module")
def url(gguf: Path) -> Iterator[str]:
    with llama_server(gguf) as url:
        yield url


@pytest.fixture
def bench(lf_export: Run, merged: Path, project: Path, tmp_path: Path) -> Run:
    def run(*arguments: str | Path) -> Any:
        return lf_export(
            "bench", *arguments, "--baseline", merged, "-o", tmp_path / "bench",
            "--calls", project / "suite-calls.jsonl", "--no-call", project / "suite-no-call.jsonl",
            "--chat", project / "suite-chat.jsonl", "--max-new-tokens", "8",
        )  # fmt: skip

    return run


def test_a_server_is_measured_beside_the_file_that_it_serves(bench: Run, url: str, gguf: Path, tmp_path: Path) -> None:
    ended = bench(gguf, f"served=endpoint:{url}", "--concurrency", "1,2", "--requests", "4", "--ttft-limit", "30",
                  "--tpot-limit", "30", "--json")  # fmt: skip
    assert ended.status == 11, ended.err  # few items, and a baseline that knows nothing
    local, served = json.loads(ended.out)["artifacts"]
    assert (served["name"], served["runtime"], served["format"]) == ("served", "endpoint", "served")
    assert (served["disk_bytes"], served["peak_rss_bytes"]) == (None, None)
    # The same file in the same engine: the same answers, token by token.
    kept = ("id", "kind", "correct", "answer", "cut")
    one, other = ([{key: item[key] for key in kept} for item in each["raw"]["items"]] for each in (local, served))
    assert one == other
    shown, whole = served["fidelity_shown"]["call"], local["fidelity"]["call"]
    assert shown["tokens"] == whole["tokens"]
    assert 0 <= shown["kl_at_least_mean"] <= whole["kl_mean"] + 1e-4
    assert shown["top1_agreement"] == whole["top1_agreement"]
    assert served["fidelity"] == {}
    assert served["chat_perplexity"] is None
    assert served["latency"]["ttft"]["p50"] > 0
    assert [(each["concurrency"], each["requests"], each["completed"]) for each in served["serving"]] == [
        (1, 4, 4),
        (2, 4, 4),
    ]
    assert all(each["good"] == 4 and each["seconds"] > 0 for each in served["serving"])
    assert any("token ids equal the baseline's on all 6 prompts" in note for note in served["notes"])
    assert any("chat perplexity is not measured" in note for note in served["notes"])
    page = (tmp_path / "bench" / "report.md").read_text(encoding="utf-8")
    assert "## Under load" in page
    assert "a first token within 30,000 ms" in page
    assert "KL at least, mean" in page


def test_the_chat_interface_is_judged_too_and_the_terminal_shows_each_concurrency(
    bench: Run, url: str, tmp_path: Path
) -> None:
    ended = bench(f"endpoint:{url}", "--api", "chat", "--concurrency", "1,3", "--requests", "3")
    name = url.removeprefix("http://").removesuffix("/v1").replace(":", "-")
    rows = [line.split() for line in ended.out.splitlines() if line.startswith(f"{name} ")]
    assert [row[1] for row in rows[1:3]] == ["1", "3"]
    assert "Goodput: the share of requests" in ended.out
    (served,) = json.loads((tmp_path / "bench" / "report.json").read_text(encoding="utf-8"))["artifacts"]
    assert len(served["raw"]["items"]) == 6
    # The template knows no tools: functions go as text, so that the server's prompt is the baseline's.
    assert any("the number of tokens equals the baseline's" in note for note in served["notes"])
    assert served["fidelity_shown"] == {}
    assert any("KL and top-1 agreement are not measured" in note for note in served["notes"])


def test_a_server_of_another_model_fails_by_its_tokens(bench: Run) -> None:
    with fake_server(tokenize=says(200, '{"tokens": [1, 2, 3]}')) as server:
        ended = bench(f"endpoint:{server.url}", "--concurrency", "1")
    assert ended.status == 10
    assert "token ids differ from the baseline's" in ended.out


def test_a_server_that_dies_on_the_way_is_a_finding_about_it(bench: Run) -> None:
    good, asked = completions(), []

    def dies(handler: Any, body: dict[str, Any]) -> None:
        asked.append(body)
        # It counts as the baseline does, as long as it lives.
        (good if len(asked) < 30 else says(400, '{"error": {"message": "out of memory"}}'))(handler, body)

    with fake_server(completions=dies) as server:
        ended = bench(f"endpoint:{server.url}", "--concurrency", "1")
    assert ended.status == 10
    assert "out of memory" in ended.out


def test_a_server_that_is_not_there_ends_the_bench_before_anything_is_measured(bench: Run, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ended = bench(f"endpoint:http://127.0.0.1:{unused.getsockname()[1]}/v1", "--model", "m")
    assert ended.status == 5
    assert "cannot connect" in ended.err
    assert "hint: start the server" in ended.err
    assert not (tmp_path / "bench").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["endpoint:ftp://host/v1"], 3, "with http or https"),
        (["endpoint:http://user:secret@host/v1"], 3, "credentials in a URL"),
        (["a=endpoint:http://h/v1", "a=endpoint:http://i/v1"], 3, "the name 'a' is taken"),
        (["merged=endpoint:http://h/v1"], 3, "the name 'merged' is taken"),
        (["endpoint:http://127.0.0.1:1/v1", "--concurrency", "0"], 2, "expected numbers from 1 to 1024"),
        (["endpoint:http://127.0.0.1:1/v1", "--concurrency", "four"], 2, "expected numbers from 1 to 1024"),
        (["endpoint:http://127.0.0.1:1/v1", "--api-key-env", "LFX_NOT_SET"], 4, "LFX_NOT_SET is not set"),
    ],
)
def test_what_a_command_line_cannot_mean_is_said(bench: Run, arguments: list[str], status: int, said: str) -> None:
    ended = bench(*arguments)
    assert ended.status == status
    assert said in ended.err
    assert "secret" not in ended.err


def test_a_key_is_in_nothing_that_is_written_or_printed(
    bench: Run, gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-of-a-test-0123456789"
    monkeypatch.setenv("LLAMA_KEY", key)
    with llama_server(gguf, key=key) as url:
        ended = bench(f"endpoint:{url}", "--api-key-env", "LLAMA_KEY", "--requests", "2", "--concurrency", "1")
        assert ended.status == 11, ended.err
        monkeypatch.setenv("LLAMA_KEY", f"{key}-wrong")
        refused = bench(f"endpoint:{url}", "--api-key-env", "LLAMA_KEY", "--model", "m")
        assert refused.status == 3
        assert "HTTP 401" in refused.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 3
    assert all(key.encode() not in path.read_bytes() for path in written)
    assert key not in ended.out + ended.err + refused.out + refused.err


def test_a_recipe_names_servers_and_what_they_serve(lf_export: Run, recipe: Any, tmp_path: Path) -> None:
    servers = {"q8-served": {"url": "http://127.0.0.1:1/v1", "artifact": "q8", "model": "m", "retries": 0}}
    suites = {
        "calls": {"path": "suite-calls.jsonl"}, "no_call": {"path": "suite-no-call.jsonl"},
        "chat": {"path": "suite-chat.jsonl"}, "max_new_tokens": 8, "latency_prompts": 1, "latency_tokens": 4,
    }  # fmt: skip
    targets = {"q8": {"format": "gguf", "type": "Q8_0"}}
    path = recipe(quantize=targets, bench=suites | {"endpoints": servers})
    ended = lf_export("run", path)
    assert ended.status == 5
    assert "cannot connect" in ended.err
    # What was made stays: the server is started on it, and the same run goes on.
    (made,) = (tmp_path / "run" / "q8").glob("*.gguf")
    with llama_server(made) as url:
        servers["q8-served"] |= {"url": url, "model": None, "concurrency": [1], "requests": 2}
        ended = lf_export("run", recipe(quantize=targets, bench=suites | {"endpoints": servers}))
    assert ended.status == 11, ended.err
    report = Report.model_validate_json((tmp_path / "run" / "bench" / "report.json").read_text(encoding="utf-8"))
    local, served = report.artifacts
    assert (served.name, served.format, served.scheme, served.digest) == (
        "q8-served", "gguf", local.scheme, local.digest,
    )  # fmt: skip
    assert served.disk_bytes == local.disk_bytes
    assert "q8-served" in to_markdown(report)
