"""What a recipe says of the verdict, and of who signs what passed."""

from typing import Annotated, Literal

from pydantic import Field

from lf_export.metrics.limits import LimitName
from lf_export.recipe.names import ArtifactName, Strict, VariableName


class GateRecipe(Strict):
    """What the verdict is about."""

    enforce: list[ArtifactName] | None = Field(
        None,
        description="Artifacts whose verdict decides the exit status (all, where not given); others are advisory.",
    )
    margin: float = Field(0.05, gt=0, lt=1, description="The largest loss that is accepted, as a share of items.")
    margins: dict[Literal["strict_call", "abstention"], Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict, description="Another margin for one of the two questions."
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="One-sided error rate of the bounds.")
    min_items: int = Field(1, ge=1, description="With fewer items no question can pass.")
    baseline_floor: float = Field(
        0.25, ge=0, le=1, description="Where the merged model is right less often than this, nothing can pass."
    )
    limits: dict[LimitName, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="The largest ratio to the merged model that is accepted: time to the first token, time a token "
        "after it, bytes on disk, peak memory, load time. Over it is FAIL, not measured INCONCLUSIVE.",
    )
    controls: bool = Field(
        False,
        description="Judge the merged model against itself, and as Q8_0 and Q2_K: where these do not come out as "
        "no flips, PASS and FAIL, nothing passes.",
    )


class SignRecipe(Strict):
    """Who signs the artifacts at the end of a run; passwords and tokens are in the environment, never here."""

    private_key: str | None = Field(
        None,
        description="An elliptic-curve key in PEM; relative to the recipe. LF_EXPORT_SIGNING_KEY where not given.",
    )
    password_env: VariableName | None = Field(
        None, description="The environment variable that holds the key's password."
    )
    certificate: str | None = Field(None, description="The key's certificate in PEM; relative to the recipe.")
    chain: list[str] = Field(default_factory=list, description="Certificates between it and a root.")
    sigstore: bool = Field(False, description="Sign with an identity instead of a key; needs the network.")
    identity_token_env: VariableName | None = Field(
        None, description="With `sigstore`: the environment variable that holds the identity's token."
    )
    unjudged: bool = Field(
        False,
        description="Sign what no bench has judged too. What came out as FAIL or INCONCLUSIVE is never signed.",
    )
