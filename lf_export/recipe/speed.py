"""What a recipe says of the times that are reported beside the verdict."""

from typing import Annotated

from pydantic import Field

from lf_export.recipe.names import Strict


class LatencyRecipe(Strict):
    """Batches of stated sizes and prompt lengths, in turn with the baseline; every length with every size."""

    prompt_lengths: list[Annotated[int, Field(ge=1, le=1 << 20)]] = Field(
        default_factory=lambda: [128, 512],
        min_length=1,
        description="Tokens of each prompt, exactly: the suite's prompts, cut or followed by others.",
    )
    batch_sizes: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        default_factory=lambda: [1, 4], min_length=1, description="Prompts that are answered together."
    )
    new_tokens: int = Field(32, ge=2, description="Tokens written to each prompt; end tokens do not end it.")
    warmup: int = Field(1, ge=1, description="Batches before each length and size that do not count.")
    repeats: int = Field(5, ge=1, description="Batches that count; intervals need two.")
