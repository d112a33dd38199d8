"""What comes from `transformers serve` is what the torch runtime answers in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import pytest
from transformers_server import transformers_server

from lf_export.errors import ExportError
from lf_export.runtimes import runtime
from lf_export.runtimes.causal import load_tokenizer
from lf_export.runtimes.endpoint import Endpoint, EndpointSession, Question

PROMPTS = [
    "<|im_start|>user\nWhat is the weather in Paris?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nSet a timer for 25 minutes.<|im_end|>\n<|im_start|>assistant\n",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.ascii_model(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with transformers_server(folder, folder.parent / "server.log") as url:
        yield url


@pytest.fixture(scope="module")
def questions(folder: Path) -> list[Question]:
    tokenizer: Any = load_tokenizer(folder)
    return [
        Question(
            text,
            "",
            tuple(tokenizer(text, add_special_tokens=False)["input_ids"]),
            [{"role": "user", "content": text.partition("\n")[2].partition("<")[0]}],
        )
        for text in PROMPTS
    ]


def test_our_prompt_goes_as_text_and_its_tokens_are_counted(url: str, folder: Path, questions: list[Question]) -> None:
    with EndpointSession(Endpoint(url, model=str(folder)), questions[0]) as session:
        assert (session.offer.api, session.offer.prompt) == ("completions", "text")
        assert (session.offer.scoring, session.offer.ids_by, session.offer.fresh) == (None, None, {})
        parity = session.parity(questions)
        assert (parity.by, parity.prompts, parity.problem) == ("count", 2, None)


def test_answers_are_those_in_this_process(url: str, folder: Path, questions: list[Question]) -> None:
    here = runtime("torch").open_session(folder, 1)
    tokenizer: Any = load_tokenizer(folder)
    with EndpointSession(Endpoint(url, model=str(folder)), questions[0]) as session:
        for asked in questions:
            reply = session.ask(asked, 12)
            alone = here.generate_one(asked.ids, 12)
            # It leaves special tokens out of its text, and gives no ids: the report says so.
            assert reply.text == tokenizer.decode(list(alone.ids), skip_special_tokens=True)
            assert reply.cut == (alone.ids[-1] not in here.eos_ids)
            assert reply.completion_tokens == len(alone.ids)
            assert 0 < reply.token_times()[0] <= reply.ended
    here.close()


def test_the_chat_interface_writes_the_same_prompt_by_its_template(
    url: str, folder: Path, questions: list[Question]
) -> None:
    tokenizer: Any = load_tokenizer(folder)
    with EndpointSession(Endpoint(url, model=str(folder), api="chat"), questions[0]) as session:
        reply = session.ask(questions[0], 6)
        rendered = tokenizer.apply_chat_template(
            list(questions[0].messages), add_generation_prompt=True, return_dict=True
        )
        assert reply.prompt_tokens == len(rendered["input_ids"])


def test_a_model_that_it_does_not_serve_is_refused(url: str, questions: list[Question]) -> None:
    with pytest.raises(ExportError, match="HTTP 400: Server is pinned to"):
        EndpointSession(Endpoint(url, model="other", retries=0), questions[0])
