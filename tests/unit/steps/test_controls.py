"""A run that cannot tell verdicts that are known beforehand passes nothing."""

import pytest

from lf_export.errors import InputError
from lf_export.report.model import ArtifactReport, EndpointResult, GateResult
from lf_export.steps.controls import check_names, judged_control


def part(
    name: str, verdict: str = "PASS", flips: int = 0, n: int = 50, problems: list[str] | None = None
) -> ArtifactReport:
    endpoint = EndpointResult.model_validate(
        {
            "name": "strict_call",
            "verdict": verdict,
            "n": n,
            "lost": flips,
            "gained": 0,
            "baseline_rate": 0.9,
            "candidate_rate": 0.9,
            "loss": 0.0,
            "lower": -0.1,
            "upper": 0.1,
            "p_over_margin": 0.5,
            "mcnemar_p": 1.0,
            "reason": "",
        }
    )
    gate = GateResult.model_validate({"verdict": verdict, "endpoints": [endpoint], "problems": problems or []})
    return ArtifactReport(name=name, path="/a/folder", format="gguf", gate=gate)


@pytest.mark.parametrize(
    ("made", "met"),
    [
        (part("control-self"), True),
        (part("control-self", verdict="INCONCLUSIVE"), True),  # no flips is what counts, whatever the number of items
        (part("control-self", flips=1), False),
        (part("control-self", n=0), False),
        (part("control-self", problems=["logits are not finite"]), False),
        (part("control-q8_0"), True),
        (part("control-q8_0", verdict="INCONCLUSIVE"), False),
        (part("control-q2_k", verdict="FAIL", flips=20), True),
        (part("control-q2_k"), False),
        (part("control-q2_k").model_copy(update={"gate": None}), False),
    ],
)
def test_a_control_is_held_against_what_is_known_of_it(made: ArtifactReport, met: bool) -> None:
    judged = judged_control(made)
    assert judged.control is not None
    assert judged.control.met is met
    assert judged.path == ""  # a folder that is gone when the run ends


def test_an_artifact_with_a_controls_name_is_refused() -> None:
    check_names({"q8": 1})
    with pytest.raises(InputError, match="'control-self', which is a control's name"):
        check_names({"q8": 1, "control-self": 2})
