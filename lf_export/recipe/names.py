"""What a recipe's parts are made of: names, and models that refuse unknown keys."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

ArtifactName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Names of artifacts are names of folders: letters, digits, dot, dash, underscore."""

VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Names of environment variables."""


class Strict(BaseModel):
    """Unknown keys are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ArmBeside = Literal["constrained", "routed"]
"""A way to answer that is reported beside the raw one: held to a grammar, or routed by a classifier."""

ArmName = Literal["raw", ArmBeside]


def arms_beside(named: Sequence[str]) -> tuple[ArmBeside, ...]:
    """Of the arms that are named those beside the raw answers, each once, in the order in which they are asked for."""
    known: tuple[ArmBeside, ...] = ("constrained", "routed")
    return tuple(arm for arm in known if arm in named)
