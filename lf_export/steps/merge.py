"""The merge step: base and adapters in, a complete Hugging Face folder out."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lf_export.checkpoint import merge_checkpoint, open_adapter, open_checkpoint, staging
from lf_export.provenance import manifest, write_manifest


@dataclass(frozen=True)
class MergeOptions:
    """What to merge, and where to."""

    base: Path
    adapters: tuple[Path, ...]
    out: Path
    dtype: str | None = None
    overwrite: bool = False
    threads: int = 1


def merge_model(options: MergeOptions) -> dict[str, Any]:
    """Merge the adapters into the base, in order; returns the manifest that lies in the output.

    Raises:
        InputError: a base or an adapter that cannot be merged exactly, or an output that exists.
        StepError: the output cannot be written.
    """
    import torch  # noqa: PLC0415 - heavy, and its threads are set here

    torch.set_num_threads(options.threads)
    base = open_checkpoint(options.base)
    adapters = [open_adapter(path) for path in options.adapters]
    with staging(options.out, overwrite=options.overwrite) as folder:
        facts = merge_checkpoint(base, adapters, folder, dtype=options.dtype)
        made = manifest("merged", merge=asdict(facts))
        write_manifest(folder, made)
    return made
