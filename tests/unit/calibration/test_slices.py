"""Each item is in its slices."""

from typing import Any

import pytest
from conversations import FUNCTIONS, calls, says, user

from lf_export.calibration.slices import SLICES, slices_of
from lf_export.calibration.suites import EvalItem
from lf_export.functions.answers import Answer, Call, calling, prose

PARIS = Call("get_weather", {"city": "Paris"})
MAIL = Call("sendEmail", {"to": ["a"], "body": {"title": "x"}})


@pytest.mark.parametrize(
    ("expected", "shown", "before", "names"),
    [
        (calling(PARIS), 1, [], ("single", "1 function")),
        (calling(PARIS), 2, [], ("one of several", "2 to 4 functions")),
        (calling(PARIS, PARIS), 1, [], ("parallel", "1 function")),
        (calling(MAIL), 2, [], ("one of several", "nested", "2 to 4 functions")),
        (calling(Call("f", {"x": [[1]]})), 5, [], ("one of several", "nested", "5 to 9 functions")),
        (calling(Call("f", {"x": [1]})), 10, [], ("one of several", "10 functions or more")),
        (prose("No."), 1, [says("Hi"), user("?")], ("no call", "multi-turn", "1 function")),
        (calling(PARIS), 1, [calls(("f", {})), user("?")], ("single", "multi-turn", "1 function")),
        (prose("No."), 0, [], ("no call", "no function")),
    ],
)
def test_an_item_is_in_the_slices_of_its_shape(
    expected: Answer, shown: int, before: list[Any], names: tuple[str, ...]
) -> None:
    functions = (FUNCTIONS * 5)[:shown]
    assert slices_of(EvalItem("a", "", "", (user("x"), *before), functions, expected)) == names
    assert set(names) <= set(SLICES)
