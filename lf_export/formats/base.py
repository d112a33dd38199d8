"""What a format is: a name, options, and a target that takes its share of each layer of one walk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from lf_export.checkpoint.index import Checkpoint
from lf_export.formats.pace import Pace
from lf_export.walk.view import LayerView, LayerVisitor

# What a target says for the manifest: JSON values, the same for the same inputs.
ArtifactFacts = dict[str, Any]


def significant(value: float) -> float:
    """Four significant digits, for a manifest: more would only show in which order a processor adds up."""
    return float(f"{value:.4g}")


class FormatOptions(BaseModel):
    """The options of a format, as a recipe or the command line gives them; each format has its own subclass."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Snapshot:
    """What a target has to know to go on after a layer, beside the files in its folder.

    Attributes:
        facts: JSON values; the order of keys is kept.
        arrays: what is too large for JSON, by name.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


class Target(LayerVisitor, Protocol):
    """One artifact in the making: a visitor of the walk that writes as it goes."""

    needs_moments: bool

    def layer(self, view: LayerView) -> None:
        """Quantize and write one layer."""

    def snapshot(self) -> Snapshot:
        """What `restore` needs; asked after each layer."""

    def restore(self, snapshot: Snapshot) -> None:
        """Go on after the layer of a snapshot; called on a new target in the folder that the killed one left.

        The files are there as they were at the snapshot, no shorter and no longer. They may hold parts of what is
        not in the snapshot: that is written again, to the same bytes.
        """

    def finish(self) -> ArtifactFacts:
        """Write what belongs to no layer and every companion file; returns facts for the manifest.

        Raises:
            StepError: the artifact did not prove itself, or cannot be written.
        """


@dataclass(frozen=True)
class Format:
    """A layout on disk that a checkpoint can be exported to.

    Attributes:
        name: as in a recipe and after `--format`.
        summary: one line for help pages and docs.
        schemes: scheme name → the options that it stands for (`Q4_K_M`, `W4A16`).
        options: the options' model.
        open: (checkpoint, folder, options, audit digest) → the target. The folder is the step's staging folder. It
            is empty, or it holds what a killed run left, and `restore` follows: files that are there are kept.
            Raises InputError for what the options and the checkpoint do not admit together, before anything is
            computed.
        size: (checkpoint, options) → bytes on disk, from shapes alone; raises InputError likewise.
        scratch: (checkpoint, options) → bytes on disk beside them while it is made.
        seconds: (checkpoint, options, the machine's pace) → how long its linears take, the pass over the data apart;
            None where nobody knows.
    """

    name: str
    summary: str
    options: type[FormatOptions]
    open: Callable[[Checkpoint, Path, Any, str], Target]
    size: Callable[[Checkpoint, Any], int]
    schemes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scratch: Callable[[Checkpoint, Any], int] = lambda _, __: 0
    seconds: Callable[[Checkpoint, Any, Pace], float | None] = lambda _, __, ___: None
