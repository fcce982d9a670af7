"""Statistics of small samples, and of the test images on which two models differ."""

from harness.stats.images import Discordance, crossed, discordance, error_interval
from harness.stats.means import (
    FEWEST,
    Difference,
    Equivalence,
    Summary,
    adjust,
    difference,
    equivalence,
    holm,
    median_interval,
    summary,
)

__all__ = [
    "FEWEST",
    "Difference",
    "Discordance",
    "Equivalence",
    "Summary",
    "adjust",
    "crossed",
    "difference",
    "discordance",
    "equivalence",
    "error_interval",
    "holm",
    "median_interval",
    "summary",
]
