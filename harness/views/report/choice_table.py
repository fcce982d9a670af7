"""The table of which epoch counts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from harness.analysis.choice import Choice
from harness.analysis.labels import setting
from harness.views.report.tables import mean


def choice_table(found: Sequence[Choice]) -> Table:
    """One row a cell: last epoch, best on validation images, lowest on test images, and among how many epochs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    varied = any(each.cell.params for each in found)
    for title in ("impl", *(["setting"] if varied else [])):
        table.add_column(title, no_wrap=True)
    for title in ("seeds", "last epoch %", "best on validation %", "chosen on test %", "among epochs"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in found:
        claimed = mean(each.claimed, fixed=2, tells_one=False)
        table.add_row(
            each.cell.impl,
            *([setting(each.cell.params)] if varied else []),
            str(each.last.n),
            mean(each.last, fixed=2, tells_one=False),
            mean(each.validated, fixed=2, tells_one=False),
            f"at most {claimed}" if each.is_bound else claimed,
            f"{each.known} of {each.epochs}",
        )
    return table
