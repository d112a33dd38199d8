"""What a router learns from: as many requests that call as that do not, and some that it never sees."""

import pytest
from conversations import FUNCTIONS, user

from lf_export.calibration.choices import choices
from lf_export.calibration.samples import Sample, load_samples
from lf_export.errors import InputError
from lf_export.shipped import shipped

CALL = {"function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
SAYS = {"role": "assistant", "content": "Sunny."}


def sample(name: str, *messages: object, functions: bool = True) -> Sample:
    kind = "call" if functions else "chat"
    return Sample(name, "x", kind, (user(name), *messages), FUNCTIONS if functions else ())  # type: ignore[arg-type]


def test_both_kinds_are_as_many_and_a_third_of_each_is_held_out() -> None:
    samples = [sample(f"call {at}", CALLS, SAYS) for at in range(20)]
    samples += [sample(f"prose {at}", SAYS) for at in range(5)]
    samples += [sample(f"chat {at}", SAYS, functions=False) for at in range(30)]
    learnt, held = choices(samples, 30, seed=3)
    for part, each in ((learnt, 10), (held, 5)):
        assert [choice.calls for choice in part].count(True) == each
        assert len(part) == 2 * each
    everything = [*learnt, *held]
    assert len({choice.messages[0]["content"] for choice in everything}) == 30
    assert all(choice.functions == FUNCTIONS and len(choice.messages) == 1 for choice in everything)
    said = {choice.messages[0]["content"].split()[0]: choice.calls for choice in everything}
    assert said == {"call": True, "prose": False, "chat": False}
    assert choices(samples, 30, seed=3) == (learnt, held)
    assert choices(samples, 30, seed=4) != (learnt, held)


def test_too_few_of_one_kind_are_named() -> None:
    with pytest.raises(InputError, match="20 calibration conversations with functions call and 2 do not"):
        choices([sample(f"{at}", CALLS) for at in range(20)] + [sample("a", SAYS), sample("b", SAYS)], 30, 0)


def test_the_shipped_conversations_are_enough() -> None:
    files = [shipped("calibration", name) for name in ("calls.jsonl", "chat.jsonl")]
    learnt, held = choices([each for file in files for each in load_samples(file)], 192, 0)
    assert (len(learnt), len(held)) == (128, 64)
