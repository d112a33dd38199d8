"""An answer that is held to a guide is a call that its function takes, or free prose, in both engines alike."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversations import ENDING as FUNCTIONS
from grammar_takers import takes, takes_lark
from models import tiny_model, tiny_tokenizer
from onnx_folders import Exported

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.functions.answers import read_answer
from lf_export.functions.grammars import CallGrammar, call_grammar
from lf_export.functions.validate import validate
from lf_export.runtimes import runtime
from lf_export.runtimes.guides import Guide, Held

GRAMMAR = call_grammar(FUNCTIONS)
PROMPTS = [[5, 17, 40], [5, 17, 100, 101], [5, 200]]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tiny_model(tmp_path_factory.mktemp("guides") / "tiny")
    gguf = tmp_path_factory.mktemp("gguf")
    FORMAT.open(open_checkpoint(folder), gguf, GgufOptions(types=("F32",), name="m"), "digest").finish()
    return {"torch": folder, "llamacpp": gguf}


@pytest.fixture(scope="module", params=["torch", "llamacpp"])
def session(request: pytest.FixtureRequest, paths: dict[str, Path]) -> Iterator[Any]:
    opened = runtime(request.param).open_session(paths[request.param], 1)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def engines(paths: dict[str, Path]) -> Iterator[list[Callable[[Guide], Held]]]:
    opened: list[Any] = [runtime(name).open_session(path, 1) for name, path in paths.items()]
    yield [each._held for each in opened]
    for each in opened:
        each.close()


def ids(text: str) -> list[int]:
    return list(tiny_tokenizer()(text, add_special_tokens=False)["input_ids"])


def text(tokens: list[int]) -> str:
    return str(tiny_tokenizer().decode([token for token in tokens if token not in {0, 2}]))


def written(held: Held, wanted: str, seed: int = 0, most: int = 200) -> str:
    """What a model writes that wants to write `wanted` and, where that is not possible, anything."""
    chance, tokens = np.random.default_rng(seed), list[int]()
    targets = [*ids(wanted), 2]
    while len(tokens) < most and (not tokens or tokens[-1] not in {0, 2}):
        logits = chance.normal(size=320).astype(np.float32)
        logits[targets[min(len(tokens), len(targets) - 1)]] = 9
        tokens.append(held.choose(logits))
    return text(tokens)


def test_a_forced_answer_is_a_call_that_its_function_takes(session: Any) -> None:
    guides = [[Guide(GRAMMAR, "call")] * 2, [Guide(GRAMMAR, "call")]]
    groups = [(PROMPTS[0][:2], [PROMPTS[0][2:], PROMPTS[1][2:]]), ((), [PROMPTS[2]])]
    answers = [answer for _, group in sorted(session.generate_groups(groups, 96, guides)) for answer in group]
    for answer in answers:
        assert answer.ids[-1] in session.eos_ids, answer.text
        read = read_answer(answer.text)
        assert read.kind == "call", answer.text
        assert [validate(call, FUNCTIONS) for call in read.calls] == [[]] * len(read.calls)
    free = [session.generate_one(prompt, 96) for prompt in PROMPTS]
    assert [read_answer(answer.text).kind for answer in free] != ["call"] * 3


def test_prose_is_the_same_with_a_lazy_guide_as_without(session: Any) -> None:
    groups = [((), [prompt]) for prompt in PROMPTS]
    free = sorted(session.generate_groups(groups, 24))
    held = sorted(session.generate_groups(groups, 24, [[Guide(GRAMMAR)], [None], [Guide(GRAMMAR, "prose")]]))
    assert [answer.ids for _, (answer,) in held] == [answer.ids for _, (answer,) in free]


def test_token_by_token_a_held_answer_is_the_whole_one(session: Any) -> None:
    guide = Guide(GRAMMAR, "call")
    ((_, (whole,)),) = session.generate_groups([((), [PROMPTS[0]])], 96, [[guide]])
    *_, last = session.stream(PROMPTS[0], 96, guide)
    assert last.ids == whole.ids


def test_a_call_is_held_from_the_token_that_opens_it(engines: list[Callable[[Guide], Held]]) -> None:
    for wanted in (
        '{"function_call":{"name":"set_lamp","arguments":{"room":"hall","on":true}}}',
        ' {"function_call": {"name": "ring", "arguments": {}}}',
    ):
        assert {written(held(Guide(GRAMMAR)), wanted) for held in engines} == {wanted}
    for wanted in (
        '{"function_call":{"name":"set_lmap","arguments":{"room":"attic","on":"true","x":1}}}',
        '{"name":"set_lamp"}',
        '{\n  "function_call": {',
        "\n{ ",
    ):
        for held in engines:
            answer = written(held(Guide(GRAMMAR)), wanted)
            assert takes(FUNCTIONS, answer), answer


def test_what_is_no_call_is_free(engines: list[Callable[[Guide], Held]]) -> None:
    for wanted in ('Sure: {"function_call":{}}', "", "\n\nYes", "   {too much space before it", "5 {"):
        assert {written(held(Guide(GRAMMAR)), wanted) for held in engines} == {text(ids(wanted))}


def test_a_call_is_not_opened_where_prose_is_asked_for(engines: list[Callable[[Guide], Held]]) -> None:
    for held in engines:
        answer = written(held(Guide(GRAMMAR, "prose")), ' {"function_call":{}}')
        assert not GRAMMAR.opened(answer)
        assert "{" not in answer.split("function")[0]
        assert written(held(Guide(GRAMMAR, "prose")), "Sure: {}") == "Sure: {}"


def test_the_tags_of_hermes_open_a_call(engines: list[Callable[[Guide], Held]]) -> None:
    grammar = call_grammar(FUNCTIONS, "hermes")
    for held in engines:
        answer = written(held(Guide(grammar)), '<tool_call>{"name": "ring", "arguments": {"x": 1}}</tool_call>')
        assert takes_lark(grammar, answer), answer
        assert written(held(Guide(grammar)), "<tool>x") == "<tool>x"
        assert written(held(Guide(grammar)), '{"name": 1}') == '{"name": 1}'


@pytest.mark.parametrize("seed", range(12))
def test_whatever_a_model_wants_it_writes_a_call(engines: list[Callable[[Guide], Held]], seed: int) -> None:
    for held in engines:
        answer = written(held(Guide(GRAMMAR, "call")), "Sorry,", seed)
        assert takes(FUNCTIONS, answer), answer


def test_a_grammar_that_cannot_be_read_is_named(engines: list[Callable[[Guide], Held]]) -> None:
    for held in engines:
        with pytest.raises(InputError, match="the grammar of the functions"):
            held(Guide(CallGrammar("{", "root ::= (", "start: ("), "call"))


def test_onnx_says_that_it_cannot(exported: Callable[[str], Exported]) -> None:
    for name in ("onnx", "genai"):
        opened = runtime(name).open_session(exported("llama-fp32").folder, 1)
        assert not opened.guided
        with pytest.raises(InputError, match="cannot hold an answer to a grammar"):
            list(opened.generate_groups([((), [PROMPTS[0]])], 4, [[Guide(GRAMMAR)]]))
        with pytest.raises(InputError, match="cannot hold an answer to a grammar"):
            list(opened.stream(PROMPTS[0], 4, Guide(GRAMMAR)))
        opened.close()
