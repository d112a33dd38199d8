"""Fidelity by token class where a server showed its likeliest tokens only."""

from collections.abc import Mapping, Sequence

import numpy as np

from lf_export.metrics.fidelity_top import TopFidelity, concatenate_top
from lf_export.report.serving import ShownFidelity
from lf_export.stats import cluster_bootstrap
from lf_export.steps.prompts import Prompt, class_masks


def shown_fidelity(prompts: Sequence[Prompt], shown: Mapping[str, TopFidelity]) -> dict[str, ShownFidelity]:
    """By token class, and as `call` over all call tokens; the interval of the mean is over items."""
    chosen = [prompt for prompt in prompts if prompt.item.id in shown]
    found = {}
    for name, wanted in class_masks(chosen).items():
        parts = [
            TopFidelity(each.kl_at_least[mask], each.same_top1[mask], each.margin[mask])
            for each, mask in zip((shown[prompt.item.id] for prompt in chosen), wanted, strict=True)
            if mask.any()
        ]
        if not parts:
            continue
        joined = concatenate_top(parts)
        interval = cluster_bootstrap([part.kl_at_least for part in parts])
        unknown = int(np.isnan(joined.margin).sum())
        found[name] = ShownFidelity(
            tokens=len(joined.kl_at_least),
            kl_at_least_mean=float(joined.kl_at_least.mean()),
            kl_at_least_p99=float(np.percentile(joined.kl_at_least, 99)),
            kl_at_least_lower=interval.lower,
            kl_at_least_upper=interval.upper,
            top1_agreement=float(joined.same_top1.mean()),
            margin_unknown=unknown,
            margin_mean=None if unknown else float(joined.margin.mean()),
        )
    return found
