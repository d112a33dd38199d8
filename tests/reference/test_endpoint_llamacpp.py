"""What comes from llama.cpp's own server is what llama.cpp gives in this process."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from llama_server import llama_server

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.metrics.fidelity import log_softmax
from lf_export.runtimes.causal import load_tokenizer
from lf_export.runtimes.endpoint import Endpoint, EndpointSession, Question
from lf_export.runtimes.llamacpp import LlamaCppSession, open_session

END = 2
PROMPTS = [
    "<|im_start|>user\nWhat is the weather in Paris?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nSet a timer for 25 minutes.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nhé ☃ 12<|im_end|>\n<|im_start|>assistant\n",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    folder = models.tiny_model(root / "model")
    FORMAT.open(open_checkpoint(folder), folder, GgufOptions(types=("F32",), name="m"), "digest").finish()
    return folder


@pytest.fixture(scope="module")
def here(folder: Path) -> Iterator[LlamaCppSession]:
    session = open_session(folder, threads=1)
    yield session
    session.close()


@pytest.fixture(scope="module")
def questions(folder: Path) -> list[Question]:
    tokenizer: Any = load_tokenizer(folder)
    return [
        Question(text, "", tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), _messages(text))
        for text in PROMPTS
    ]


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text.partition("\n")[2].partition("<")[0]}]


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with llama_server(next(folder.glob("*.gguf"))) as url:
        yield url


@pytest.fixture(scope="module")
def session(url: str, questions: list[Question]) -> Iterator[EndpointSession]:
    with EndpointSession(Endpoint(url, concurrency=(1, 2)), questions[0]) as session:
        yield session


def test_the_server_is_asked_as_exactly_as_it_can_be(session: EndpointSession, questions: list[Question]) -> None:
    offer = session.offer
    assert (offer.api, offer.prompt, offer.scoring) == ("completions", "ids", "steps")
    parity = session.parity(questions)
    assert (parity.by, parity.prompts, parity.problem) == ("ids", 3, None)


def test_another_tokenizer_is_noticed(session: EndpointSession, questions: list[Question]) -> None:
    asked = questions[0]
    swapped = Question(asked.text, "", (*asked.ids[:-1], asked.ids[-1] + 1))
    assert session.parity([asked, swapped]).problem == (
        f"the server's token ids differ from the baseline's, first at token {len(asked.ids) - 1} of a prompt"
    )


def test_answers_are_those_in_this_process_token_by_token(
    session: EndpointSession, here: LlamaCppSession, questions: list[Question]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda asked: session.ask(asked, 24), questions))
    for asked, reply in zip(questions, replies, strict=True):
        alone = here.generate_one(asked.ids, 24)
        ended = alone.ids[-1] in here.eos_ids
        assert reply.token_ids in {alone.ids, alone.ids[:-1] if ended else alone.ids}
        assert reply.cut != ended
        assert reply.prompt_tokens == len(asked.ids)


def test_each_token_has_its_time(tmp_path: Path, questions: list[Question]) -> None:
    folder = models.ascii_model(tmp_path / "model")
    FORMAT.open(open_checkpoint(folder), folder, GgufOptions(types=("F32",), name="m"), "digest").finish()
    (file,) = folder.glob("*.gguf")
    with llama_server(file) as url, EndpointSession(Endpoint(url), questions[0]) as session:
        here = open_session(file, threads=1)
        for asked in questions:
            reply, alone = session.ask(asked, 16), here.generate_one(asked.ids, 16)
            ended = alone.ids[-1] in here.eos_ids
            assert reply.token_ids == (alone.ids[:-1] if ended else alone.ids)
            times = session.timed(asked, 16).token_times()
            assert len(times) == len(reply.token_ids or ())
            assert 0 < times[0] < times[-1]
            assert reply.one_by_one
        here.close()


def test_candidates_are_the_likeliest_of_the_whole_distribution(
    session: EndpointSession, here: LlamaCppSession, questions: list[Question]
) -> None:
    for asked in questions:
        answer = [40, 5, 120, END]
        (logits,) = here.score([], [[*asked.ids, *answer]], [len(asked.ids)])
        log_q = log_softmax(logits)
        for row, place in zip(log_q, session.candidates(asked.ids, answer), strict=True):
            assert len(place.ids) == 20
            # The server's cache and batches add in another order than one pass; other tokens are apart by tenths.
            np.testing.assert_allclose(place.logprobs, row[list(place.ids)], atol=0.01)
            assert row[list(place.ids)].min() >= np.sort(row)[-20] - 0.01


def test_an_end_token_that_is_the_likeliest_is_shown_too(
    tmp_path: Path, here: LlamaCppSession, questions: list[Question]
) -> None:
    """A greedy answer would stop there and show nothing: those are the places that abstention turns on."""
    folder = models.tiny_model(tmp_path / "model")
    asked = questions[0]
    likeliest = int(here.score([], [[*asked.ids, 0]], [len(asked.ids)])[0][0].argmax())
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(config | {"eos_token_id": likeliest}), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(likeliest)
    tokenizer.save_pretrained(folder)
    FORMAT.open(open_checkpoint(folder), folder, GgufOptions(types=("F32",), name="m"), "digest").finish()
    with (
        llama_server(next(folder.glob("*.gguf"))) as url,
        EndpointSession(Endpoint(url), asked) as session,
    ):
        reply = session.ask(asked, 8)
        assert (reply.finish, reply.token_ids) == ("stop", (likeliest,))
        (place,) = session.candidates(asked.ids, [likeliest])
        assert place.ids[0] == likeliest


def test_the_chat_interface_answers_too(url: str, questions: list[Question]) -> None:
    with EndpointSession(Endpoint(url, api="chat"), questions[0]) as session:
        reply = session.ask(questions[0], 8)
        assert reply.completion_tokens == 8
        assert reply.cut


def test_a_prompt_that_is_too_long_for_the_server_is_its_own_words(
    session: EndpointSession, questions: list[Question]
) -> None:
    long = Question("", "", questions[0].ids * 60)
    with pytest.raises(InputError, match=r"HTTP 400: .*exceeds the available context size"):
        session.ask(long, 8)


def test_a_key_that_the_server_asks_for_comes_from_the_environment(
    folder: Path, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-of-this-server"
    with llama_server(next(folder.glob("*.gguf")), key=key) as url:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with pytest.raises(InputError, match="HTTP 401") as caught:
            EndpointSession(Endpoint(url, model="m"), questions[0])
        assert caught.value.hint == "put the key into the environment variable OPENAI_API_KEY"
        monkeypatch.setenv("LLAMA_KEY", key)
        with EndpointSession(Endpoint(url, api_key_env="LLAMA_KEY"), questions[0]) as session:
            assert session.ask(questions[0], 2).completion_tokens == 2
