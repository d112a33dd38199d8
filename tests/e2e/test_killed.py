"""A seeded few of the kills of `benchmarks/kill.py`: what is finished afterwards is what nobody disturbed."""

import pytest
from killed import Killer


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Killer:
    return Killer(tmp_path_factory.mktemp("killed"), seed=7)


@pytest.mark.parametrize(("name", "trials"), [("merge", 3), ("gptq", 2), ("awq", 2), ("gguf", 3)])
def test_a_command_that_is_killed_over_and_over_leaves_what_an_undisturbed_one_does(
    killer: Killer, name: str, trials: int
) -> None:
    done = [killer.trial(killer.case(name)) for _ in range(trials)]
    assert [problem for trial in done for problem in trial.problems] == []
    assert sum(len(trial.kills) for trial in done) >= 1
