"""What the parts of a report have in common: checked fields, plain JSON, the types of counts and measurements."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# Classes of tokens in the order of a report; `call` is all tokens inside a call.
TOKEN_CLASSES = ("call", "name", "key", "value", "punct", "prose", "functions", "prompt")

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Measured = Annotated[float | None, BeforeValidator(_finite)]


class Part(BaseModel):
    """Fields are checked; values may come from the dataclasses of `lf_export.metrics` as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True, allow_inf_nan=False)


class Percentiles(Part):
    """p50, p90 and p99, in seconds."""

    p50: Measured
    p90: Measured
    p99: Measured
