"""A request goes to one artifact after the other, may be stopped, and ends the one before it."""

import pytest
from scripted import Scripted

from lf_export.errors import InputError, StepError
from lf_export.functions.dialects import dialect_for
from lf_export.trial import Trial
from lf_export.trial.trial import Shown

CALL = '{"function_call":{"name":"get_x","arguments":{"city":"Rome"}}}'
FUNCTIONS = '[{"name": "get_x", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]'


def trial(*artifacts: Scripted) -> Trial:
    return Trial(artifacts, dialect_for("llama-functions"))  # type: ignore[arg-type]


def test_both_are_asked_the_same_and_their_times_are_shown() -> None:
    first, second = Scripted("a", [CALL]), Scripted("b", ["No."])
    seen = list(trial(first, second).ask(FUNCTIONS, " Where? ", 200))
    assert first.asked == second.asked
    assert first.asked[0].startswith("<s>[INST] <<SYS>>\n<<API>>")
    assert first.asked[0].endswith("Where? [/INST]")
    states = [(left.state, right.state) for left, right in seen]
    changes = [state for at, state in enumerate(states) if not at or states[at - 1] != state]
    assert changes == [
        ("reading", "waiting"), ("writing", "waiting"), ("done", "waiting"),
        ("done", "reading"), ("done", "writing"), ("done", "done"),
    ]  # fmt: skip
    left, right = seen[-1]
    assert left.judged is not None
    assert left.judged.calls[0].valid
    assert (left.text, left.ended, left.tokens) == (CALL, True, len(CALL) + 1)
    assert (left.ttft, left.tpot) == (0.25, 0.125)
    assert right.judged is not None
    assert (right.text, right.judged.kind) == ("No.", "prose")


def test_the_answer_comes_token_by_token_and_is_cut_where_it_was_asked_to_be() -> None:
    seen = [shown for (shown,) in trial(Scripted("a", ["abcdef"])).ask("", "Hi", 4)]
    assert [shown.text for shown in seen if shown.state == "writing"] == ["a", "ab", "abc", "abcd"]
    assert (seen[-1].state, seen[-1].ended, seen[-1].tokens) == ("done", False, 4)


def test_a_stopped_request_says_so_and_asks_no_other_artifact() -> None:
    first, second = Scripted("a", ["abcdef"]), Scripted("b", ["x"])
    asked = trial(first, second)
    running = asked.ask("", "Hi", 50, "me")
    next(running)
    asked.stop("somebody else")
    assert next(running)[0].text == "a"
    asked.stop("me")
    left, right = list(running)[-1]
    assert (left.state, left.text, left.judged) == ("stopped", "a", None)
    assert right.state == "stopped"
    assert second.asked == []
    # and it does not stop the next one
    assert list(asked.ask("", "Hi", 50, "me"))[-1][0].state == "done"


def test_a_request_that_nobody_reads_is_in_nobodys_way() -> None:
    asked = trial(Scripted("a", ["abcdef", "xyz"]))
    left = asked.ask("", "Hi", 50)
    next(left)
    next(left)
    assert list(asked.ask("", "Hi", 50))[-1][0].text == "xyz"
    assert list(left)[-1][0].state == "stopped"


def test_what_breaks_one_artifact_is_said_there_and_the_other_is_asked() -> None:
    broken = Scripted("a", [StepError("the child process ended with SIGKILL"), InputError("too long", "shorten it")])
    asked = trial(broken, Scripted("b", ["Yes."]))
    left, right = list(asked.ask("", "Hi", 50))[-1]
    assert (left.state, right.state) == ("failed", "done")
    assert left.problem == "the child process ended with SIGKILL (the next request loads the artifact again)"
    left, _ = list(asked.ask("", "Hi", 50))[-1]
    assert left.problem == "too long (shorten it)"


@pytest.mark.parametrize(("functions", "message"), [("[", "Hi"), ("", " ")])
def test_what_cannot_be_asked_asks_nobody(functions: str, message: str) -> None:
    artifact = Scripted("a", ["x"])
    with pytest.raises(InputError):
        list(trial(artifact).ask(functions, message, 50))
    assert artifact.asked == []


def test_closing_ends_every_child_and_what_is_under_way() -> None:
    first, second = Scripted("a", ["abcdef"]), Scripted("b", ["x"])
    asked = trial(first, second)
    running = asked.ask("", "Hi", 50)
    next(running)
    asked.close()
    assert first.closed
    assert second.closed
    assert [shown.state for shown in list(running)[-1]] == ["stopped", "stopped"]


def test_nothing_is_known_before_anything_was_asked() -> None:
    assert Shown("a").state == "waiting"


def test_a_call_is_held_to_the_grammar_where_that_is_asked_for_and_never_silently_raw() -> None:
    held, bare = Scripted("a", ["{broken"], held=CALL), Scripted("b", ["{broken"], guided="")
    left, right = list(trial(held, bare).ask(FUNCTIONS, "Hi", 200, constrained=True))[-1]
    assert (left.text, left.engine) == (CALL, "the script")
    assert (right.state, right.text, right.engine) == ("failed", "", "")
    assert right.problem == "the runtime script cannot hold an answer to a grammar (use torch)"
    left, right = list(trial(held, bare).ask(FUNCTIONS, "Hi", 200))[-1]
    assert {left.text, right.text} == {"{broken"}
    assert left.engine == ""
    # without functions there is nothing to hold an answer to
    left, right = list(trial(held, bare).ask("", "Hi", 200, constrained=True))[-1]
    assert {left.text, right.text} == {"{broken"}
