"""Statistics that are right for few items and rare flips: paired proportions, Holm, cluster bootstrap."""

from lf_export.stats.bootstrap import Interval, cluster_bootstrap
from lf_export.stats.multiple import holm
from lf_export.stats.paired import (
    PairedCounts,
    items_for_pass,
    mcnemar,
    paired,
    score_statistic,
    tango_bounds,
)
from lf_export.stats.share import wilson
from lf_export.stats.student import mean_interval

__all__ = [
    "Interval",
    "PairedCounts",
    "cluster_bootstrap",
    "holm",
    "items_for_pass",
    "mcnemar",
    "mean_interval",
    "paired",
    "score_statistic",
    "tango_bounds",
    "wilson",
]
