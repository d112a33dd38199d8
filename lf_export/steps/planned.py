"""What a plan makes do with where a base or an adapter is not there yet, and the assumptions that it states."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.errors import InputError
from lf_export.walk.planned import is_config_alone, planned_checkpoint


def checkpoint_for_plan(base: Path) -> Checkpoint:
    """The base by its headers, or by its config.json where it has no weights.

    Raises:
        InputError: it is no model folder, or one that cannot be planned from its config.
    """
    return _planned(base.resolve()) if is_config_alone(base) else open_checkpoint(base)


@cache
def _planned(base: Path) -> Checkpoint:
    return planned_checkpoint(base)


def check_weights(base: Path) -> None:
    """See that a base that is to be merged has weights.

    Raises:
        InputError: there is a config.json alone.
    """
    if is_config_alone(base):
        raise InputError(
            f"{base}: config.json alone, the weights of the base model were expected",
            "--dry-run plans from a config; give the model itself with --set base.path=FOLDER",
        )


def assumptions(base: Checkpoint | None, adapters: Sequence[Path]) -> list[str]:
    """What a plan takes for granted, a line each; nothing where base and adapters are there."""
    lines = []
    if base is not None and base.planned:
        lines.append(
            f"the weights of the base are not there: {len(base.tensors):,} tensors, {base.nbytes / 1e9:.1f} GB in all, "
            f"are planned from {base.root.name}/config.json"
        )
        if not (base.root / "tokenizer.json").is_file():
            lines.append("the tokenizer is not there: GGUF files are planned with a vocabulary of the usual size")
    absent = [adapter.name for adapter in adapters if not adapter.exists()]
    if absent:
        lines.append(f"adapters that are not there ({', '.join(absent)}) add no tensors and resize no vocabulary")
    return lines
