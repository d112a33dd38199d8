"""What a recipe's parts are made of: names, and models that refuse unknown keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

ArtifactName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Names of artifacts are names of folders: letters, digits, dot, dash, underscore."""

VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Names of environment variables."""


class Strict(BaseModel):
    """Unknown keys are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)
