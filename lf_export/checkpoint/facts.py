"""What a merge did, for the manifest."""

from dataclasses import dataclass
from typing import Any

from lf_export.checkpoint.adapter import Adapter
from lf_export.checkpoint.carry import Carried
from lf_export.checkpoint.lora_config import Combine
from lf_export.provenance import public_name


@dataclass(frozen=True)
class MergeFacts:
    """What a merge did, for the manifest.

    `added` are tensors that the base does not have, `config` what is corrected in its config, `tokenizer` the adapter
    that the tokenizer is from (None: the base).

    `max_deviation` is a |W' - formula in float64| over sampled rows of every changed tensor: the one that comes closest
    to what rounding alone may cost there, `max_deviation_bound`; it was found in `max_deviation_in`.
    """

    files: tuple[str, ...]
    bytes_written: int
    changed: tuple[str, ...]
    added: tuple[str, ...]
    copied: int
    converted: int
    config: dict[str, Any]
    tokenizer: str | None
    dtype: str | None
    combine: Combine
    adapters: tuple[dict[str, Any], ...]
    carried: Carried
    max_deviation: float
    max_deviation_bound: float
    max_deviation_in: str

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return {
            "files": list(self.files),
            "bytes_written": self.bytes_written,
            "changed": list(self.changed),
            "added": list(self.added),
            "copied": self.copied,
            "converted": self.converted,
            "config": self.config,
            "tokenizer": self.tokenizer,
            "dtype": self.dtype,
            "combine": self.combine,
            "adapters": [dict(adapter) for adapter in self.adapters],
            "carried": list(self.carried.copied),
            "code_left_behind": list(self.carried.code),
            "proof": {
                "max_deviation": self.max_deviation,
                "bound": self.max_deviation_bound,
                "tensor": self.max_deviation_in,
            },
        }


def adapter_facts(adapter: Adapter, weight: float) -> dict[str, Any]:
    """What identifies an adapter and what it holds, as JSON values."""
    modules = adapter.modules.values()
    return {
        "name": adapter.root.resolve().name,
        "sha256": adapter.digest(),
        "base_model_name_or_path": public_name(adapter.config.get("base_model_name_or_path")),
        "weight": weight,
        "modules": len(modules),
        "ranks": sorted({module.a.shape[0] for module in modules}),
        "scalings": sorted({module.scaling for module in modules}),
        "rslora": bool(adapter.config.get("use_rslora")),
        "dora": bool(adapter.config.get("use_dora")),
        "biases": sum(module.bias is not None for module in modules),
        "whole": sorted(adapter.whole),
        "tokens": {name: rows.shape[0] for name, rows in sorted(adapter.tokens.items())},
    }
