"""The merge proof's last part: the merged model's logits against those of the base with the adapters beside it.

The adapters are not merged here: each linear's output gets `scaling * (x A^T) B^T`, so that the two ways share nothing
but the layers. What differs is what rounding the merged weights changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lf_export.checkpoint.adapter import Adapter, LoraModule
from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError, StepError
from lf_export.walk.families import FAMILIES, family_of, num_layers
from lf_export.walk.logits import logits_of

_TOKENS = 32

# Of the logits' own spread. Rounding SmolLM2-135M to bfloat16 gave 2 %, the lack of the quickstart's adapter 106 %.
_MOST_DIFFERENCE = 0.1


def compare_logits(
    base: Checkpoint, adapters: Sequence[Adapter], weights: Sequence[float], merged: Checkpoint
) -> dict[str, Any]:
    """Logits of `merged` against `base` with the adapters, on a fixed row of token ids, both in fp32.

    Returns:
        For the manifest: `tokens`, `difference` (root mean square, as a share of the logits' own spread), `kl_mean` in
        nats, `top1_equal` in tokens; or only `not_compared`, why.

    Raises:
        StepError: the two are different models.
    """
    reason = _not_compared(base, adapters)
    if reason is not None:
        return {"not_compared": reason}
    parts: dict[str, list[tuple[LoraModule, float]]] = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        for module in adapter.modules.values():
            parts.setdefault(module.name, []).append((module, weight * module.scaling))
    rows = base.info(family_of(base.config).embedding).shape[0]
    ids = [(7919 * place + 104729) % rows for place in range(_TOKENS)]  # primes: spread over the vocabulary
    try:
        beside = logits_of(base, ids, prepare=lambda prefix, module: _attach(prefix, module, parts))
    except InputError as error:  # a base that does not run says nothing about the merge
        return {"not_compared": error.message}
    inside = logits_of(merged, ids)
    difference = float(np.sqrt(np.square(beside - inside).mean()) / beside.std(axis=1).mean())
    facts = {
        "tokens": _TOKENS,
        "difference": float(f"{difference:.4g}"),
        "kl_mean": float(f"{_kl(beside, inside).mean():.4g}"),
        "top1_equal": int((beside.argmax(1) == inside.argmax(1)).sum()),
    }
    if not difference <= _MOST_DIFFERENCE:
        raise StepError(
            "verification failed: the merged model's logits are not those of base and adapters: they differ by "
            f"{difference:.1%} of their spread, at most {_MOST_DIFFERENCE:.0%} was expected",
            "the folder was made from another base, other adapters or other weights of them",
        )
    return facts


def _not_compared(base: Checkpoint, adapters: Sequence[Adapter]) -> str | None:
    if base.config.get("model_type") not in FAMILIES:
        return f"the walk does not know model_type {base.config.get('model_type')!r}"
    if not isinstance(base.config.get("num_hidden_layers"), int):
        return "config.json does not say how many layers there are"
    family = family_of(base.config)
    linears = {
        f"{family.prefix(index)}.{name}"
        for index in range(num_layers(base.config))
        for name in family.linears_at(index)
    }
    for adapter in adapters:
        if adapter.whole or adapter.tokens:
            return f"{adapter.root.name} replaces weights or rows"
        for module in adapter.modules.values():
            if module.magnitude is not None or module.bias is not None or module.embedding:
                return f"{adapter.root.name}: {module.name} is not plain LoRA"
            if module.name not in linears:
                return f"{adapter.root.name}: {module.name} is outside of the layers' linears"
    return None


def _attach(prefix: str, layer: torch.nn.Module, parts: Mapping[str, Sequence[tuple[LoraModule, float]]]) -> None:
    """Hook the adapters' products behind the linears of a layer."""
    for name, linear in layer.named_modules():
        for module, factor in parts.get(f"{prefix}.{name}", ()):
            A, B = module.factors(torch.float32)
            linear.register_forward_hook(
                lambda _, inputs, output, A=A, B=B, factor=factor: output + factor * ((inputs[0] @ A.t()) @ B.t())
            )


def _kl(p: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """KL of softmax(p) from softmax(q), in nats, for each row."""
    logs = [torch.log_softmax(torch.from_numpy(each).double(), dim=1) for each in (p, q)]
    kl: npt.NDArray[np.float64] = (logs[0].exp() * (logs[0] - logs[1])).sum(1).numpy()
    return kl
