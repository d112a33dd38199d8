"""What a person looks up behind a verdict: the texts of flipped items, and the quantizer's errors by layer."""

from typing import Any, Literal

from pydantic import Field

from lf_export.report.parts import Count, Measured, Part


class Turn(Part):
    """One message of a prompt."""

    role: str
    text: str


class ItemText(Part):
    """What an item asked. Its answers are in the artifacts' raw values, under the same suite and id."""

    suite: Literal["calls", "no_call"]
    id: str
    functions: list[str] = Field(default_factory=list, description="Keys into `functions`, as they were shown.")
    prompt: list[Turn] = Field(default_factory=list)
    expected_calls: list[dict[str, Any]] = Field(default_factory=list, description="`name` and `arguments` of each.")
    expected_text: str | None = Field(None, description="The reference answer where no call is expected.")


class Texts(Part):
    """The texts of items that flipped in any artifact, long ones cut, as many as fit into a bounded size."""

    functions: dict[str, str] = Field(default_factory=dict, description="Functions as JSON, by a digest.")
    items: list[ItemText] = Field(default_factory=list)
    left_out: Count = Field(0, description="Flipped items whose texts are not here for the size's sake.")


class LayerError(Part):
    """The linears of one layer: mean of their relative output errors on held-out rows, and the worst."""

    layer: int | None = Field(description="None for what is in no layer, such as the output head.")
    linears: Count
    error: Measured
    plain_error: Measured = Field(description="The same linears rounded the plain way.")
    worst: str = Field(description="The linear with the largest error.")
    worst_error: Measured


class LayerErrors(Part):
    """The quantizer's own errors, from the artifact's manifest."""

    plain: Literal["rtn", "imatrix"] = Field(description="The plain way: round to nearest, or llama.cpp's own.")
    layers: list[LayerError]
