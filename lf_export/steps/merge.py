"""The merge step: base and adapters in, a complete Hugging Face folder out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_export.checkpoint.adapter import Adapter, open_adapter
from lf_export.checkpoint.digests import folder_facts
from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.checkpoint.lock import writing
from lf_export.checkpoint.lora_config import Combine
from lf_export.checkpoint.merge import merge_checkpoint
from lf_export.checkpoint.staging import staging
from lf_export.provenance import digest_of, manifest, write_manifest
from lf_export.steps import estimate
from lf_export.steps.cards import inherited
from lf_export.steps.disk import check_disk
from lf_export.steps.inputs import adapter_inputs, model_inputs


@dataclass(frozen=True)
class MergeOptions:
    """What to merge, and where to."""

    base: Path
    adapters: tuple[Path, ...]
    out: Path
    dtype: str | None = None
    overwrite: bool = False
    threads: int = 1
    weights: tuple[float, ...] | None = None
    combine: Combine = "in-order"
    dequantize_base: bool = False
    check_logits: bool = False


def merge_model(options: MergeOptions) -> dict[str, Any]:
    """Merge the adapters into the base; returns the manifest that lies in the output.

    Raises:
        InputError: a base or an adapter that cannot be merged exactly, or an output that exists.
        StepError: the output cannot be written.
    """
    import torch  # noqa: PLC0415 - heavy, and its threads are set here

    torch.set_num_threads(options.threads)
    stored = open_checkpoint(options.base)
    base = _float_base(stored, options)
    adapters = [open_adapter(path) for path in options.adapters]
    check_disk({options.out: estimate.merge(base, options.dtype).writes or 0})
    with writing(options.out), staging(options.out, overwrite=options.overwrite) as folder:
        facts = merge_checkpoint(base, adapters, folder, options.dtype, options.weights, options.combine).as_dict()
        if options.check_logits:
            facts["logits"] = _logits(options, base, adapters, folder)
        card = inherited(
            [options.base, *options.adapters], [str(each.get("base_model_name_or_path")) for each in facts["adapters"]]
        )
        made = manifest(
            "merged",
            base=_base_facts(stored),
            card=card,
            merge=facts,
            options=_manifest_options(options),
            inputs={
                "base": model_inputs(stored, options.threads),
                "adapters": [adapter_inputs(path) for path in options.adapters],
            },
            files=folder_facts(folder, threads=options.threads),
        )
        write_manifest(folder, made)
    return made


def verify_model(options: MergeOptions) -> dict[str, Any]:
    """Check that the folder `options.out` is the base with the adapters; returns how much was compared.

    Raises:
        InputError: the base, an adapter or the folder cannot be read, or an adapter does not fit.
        StepError: the folder is something else.
    """
    import torch  # noqa: PLC0415 - heavy, and its threads are set here

    from lf_export.checkpoint.verify import check_merged  # noqa: PLC0415

    torch.set_num_threads(options.threads)
    adapters = [open_adapter(path) for path in options.adapters]
    base = _float_base(open_checkpoint(options.base), options)
    checked = check_merged(base, adapters, open_checkpoint(options.out), options.weights, options.combine)
    return {
        "tensors": checked.tensors,
        "rows": checked.rows,
        "max_deviation": checked.proof.deviation,
        "bound": checked.proof.bound,
        "tensor": checked.proof.tensor,
        "logits": _logits(options, base, adapters, options.out),
    }


def _manifest_options(options: MergeOptions) -> dict[str, Any]:
    return {
        "dtype": options.dtype,
        "weights": list(options.weights or [1.0] * len(options.adapters)),
        "combine": options.combine,
        "dequantize_base": options.dequantize_base,
        "check_logits": options.check_logits,
    }


def _float_base(stored: Checkpoint, options: MergeOptions) -> Checkpoint:
    from lf_export.steps.dequantize import dequantized  # noqa: PLC0415 - heavy

    return dequantized(stored) if options.dequantize_base else stored


def _logits(options: MergeOptions, base: Checkpoint, adapters: Sequence[Adapter], merged: Path) -> dict[str, Any]:
    from lf_export.steps.merge_logits import compare_logits  # noqa: PLC0415 - heavy

    if options.combine != "in-order":
        return {"not_compared": f"adapters were combined by {options.combine!r} first"}
    return compare_logits(base, adapters, options.weights or [1.0] * len(adapters), open_checkpoint(merged))


def _base_facts(base: Checkpoint) -> dict[str, Any]:
    """What identifies the base at a glance; the digests of its files are under `inputs`."""
    layout = [[info.name, info.dtype, list(info.shape)] for info in base.tensors.values()]
    return {
        "config_sha256": digest_of(base.config),
        "layout_sha256": digest_of(sorted(layout)),
        "shards": {shard.name: shard.stat().st_size for shard in base.shards},
    }
