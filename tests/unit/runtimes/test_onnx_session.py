"""What both runtimes of folders in ONNX Runtime GenAI's layout do alike."""

from collections.abc import Callable, Iterator

import pytest
from onnx_folders import Exported

from lf_export.errors import InputError
from lf_export.runtimes import runtime
from lf_export.runtimes.onnx_session import FolderSession

Cases = Callable[[str], Exported]


@pytest.fixture(scope="module", params=["onnx", "genai"])
def session(exported: Cases, request: pytest.FixtureRequest) -> Iterator[FolderSession]:
    opened = runtime(request.param).open_session(exported("llama-fp32").folder, 1)
    assert isinstance(opened, FolderSession)
    yield opened
    opened.close()


def test_token_ids_are_the_models(exported: Cases, session: FolderSession) -> None:
    text = '<|im_start|>user\nThe weather in Paris, 25 °C?<|im_end|>\n{"name": "get_weather"}'
    assert session.encode(text) == runtime("torch").open_session(exported("llama-fp32").model, 1).encode(text)
    assert session.decode(session.encode(text)) == text
    assert session.eos_ids == {2}


def test_an_answer_is_cut_at_the_context_and_a_longer_prompt_is_refused(session: FolderSession) -> None:
    session.eos_ids = frozenset()
    try:
        assert len(session.generate_one([7] * 505, 40).ids) == 7
    finally:
        session.eos_ids = frozenset({2})
    with pytest.raises(InputError, match=r"601 tokens are asked for, .* has a context of 512"):
        session.generate_one([7] * 600, 4)


def test_an_empty_prompt_is_refused(session: FolderSession) -> None:
    with pytest.raises(InputError, match="an empty prompt cannot be continued"):
        session.generate([], [[]], 4)
    with pytest.raises(InputError, match="cannot be scored from its first token"):
        session.score([], [[4, 5]], [0])
