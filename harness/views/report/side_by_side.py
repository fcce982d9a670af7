"""Two runs compared, as sections of a report."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis.compare import Comparison
from harness.views.compare import table
from harness.views.report.page import Section
from harness.views.report.tables import images_table

_TEXT = (
    "Cell by cell, where both runs have the same implementation in the same setting. A: {}; B: {}. Worse and better are "
    "significant after Holm's correction for all rows, and beyond {:g}% where it is time or memory."
)


def between(found: Comparison) -> Iterator[Section]:
    """The table of the comparison, what is not alike in the two, and their test errors image by image."""
    tolerance = found.rows[0].tolerance_pct if found.rows else 1.0
    notes = [*(f"broken in B: {line}" for line in found.broken), *found.warnings]
    names = f"{found.run_a.name} and {found.run_b.name}"
    text = _TEXT.format(found.run_a, found.run_b, tolerance)
    yield Section(f"{names} compared", text, table(found), notes)
    if found.images:
        yield Section(f"{names} image by image", "", images_table(found.images))
