"""An answer token by token is the whole answer's, in every runtime, and may be left at any token."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from models import tiny_model
from onnx_folders import Exported

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.runtimes import RUNTIMES, Session, runtime
from lf_export.runtimes.child import ChildSession

PROMPT = [5, 17, 40, 41, 90]
NAMES = [name for name in RUNTIMES if name != "transformers"]  # the same session as torch's


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("stream") / "tiny")


@pytest.fixture(scope="module", params=NAMES)
def session(
    request: pytest.FixtureRequest,
    folder: Path,
    exported: Callable[[str], Exported],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Session]:
    path = folder
    if request.param == "llamacpp":
        path = tmp_path_factory.mktemp("gguf")
        FORMAT.open(open_checkpoint(folder), path, GgufOptions(types=("F32",), name="m"), "digest").finish()
    elif request.param in {"onnx", "genai"}:
        path = exported("llama-fp32").folder
    opened = runtime(request.param).open_session(path, 1)
    yield opened
    opened.close()


def test_token_by_token_is_the_whole_answer(session: Session) -> None:
    whole = session.generate_one(PROMPT, 12)
    steps = list(session.stream(PROMPT, 12))
    assert [step.ids for step in steps] == [whole.ids[: count + 1] for count in range(len(whole.ids))]
    assert steps[-1].text == whole.text
    assert all(step.times == steps[-1].times[: len(step.ids)] for step in steps)
    assert list(steps[-1].times) == sorted(steps[-1].times)
    assert steps[-1].times[0] > 0


def test_an_end_token_ends_it(session: Session) -> None:
    (*_, third) = session.generate_one(PROMPT, 3).ids
    before = session.eos_ids
    session.eos_ids = before | {third}  # type: ignore[misc]
    try:
        *_, last = session.stream(PROMPT, 12)
    finally:
        session.eos_ids = before  # type: ignore[misc]
    assert last.ids[-1] == third
    assert len(last.ids) <= 3


def test_what_is_left_half_way_does_not_show_in_the_next_answer(session: Session) -> None:
    whole = session.generate_one(PROMPT, 8)
    left = session.stream([90, 3, 8, 200, 11, 6], 20)
    next(left)
    next(left)
    *_, again = session.stream(PROMPT, 8)
    assert again.ids == whole.ids
    assert session.generate_one(PROMPT, 8).ids == whole.ids


def test_an_answer_is_cut_at_the_context(session: Session) -> None:
    prompt = (PROMPT * 200)[:510]
    *_, last = session.stream(prompt, 12)
    assert 1 <= len(last.ids) <= 2


@pytest.mark.parametrize(("prompt", "said"), [((PROMPT * 200)[:512], "512 tokens.* context of 512"), ([], "empty")])
def test_what_leaves_no_room_is_refused(session: Session, prompt: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        next(session.stream(prompt, 4))
    assert session.generate_one(PROMPT, 2).ids  # and it goes on


def test_a_child_streams_what_the_session_does_and_takes_other_requests_half_way(folder: Path, tmp_path: Path) -> None:
    whole = runtime("torch").open_session(folder, 1).generate_one(PROMPT, 6)
    with ChildSession("torch", folder, 1, tmp_path) as child:
        steps = list(child.stream(PROMPT, 6))
        assert [step.ids for step in steps] == [whole.ids[: count + 1] for count in range(len(whole.ids))]
        assert steps[-1].text == whole.text
        left = child.stream(PROMPT[::-1], 20)
        next(left)
        assert child.encode(["x"])  # the rest of the answer is not in its way
        assert list(left) == []  # nor is there any
        assert child.generate_one(PROMPT, 6).ids == whole.ids
        with pytest.raises(InputError, match="empty"):
            next(child.stream([], 4))
        assert [step.ids for step in child.stream(PROMPT, 6)][-1] == whole.ids
