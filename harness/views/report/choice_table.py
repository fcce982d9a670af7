"""The table of which epoch counts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from harness.analysis.choice import Choice
from harness.analysis.labels import setting
from harness.stats import Summary
from harness.views.report.tables import mean

TITLE = "Which epoch counts"


def explained(found: Sequence[Choice]) -> str:
    """What the columns are."""
    one = all(each.last.n == 1 for each in found)
    several = "Means over seeds, with half their 95% interval"
    intervals = f"{several}; of one seed, its 95% interval over test images (exact)."
    if one or all(each.last.n > 1 for each in found):
        intervals = "In brackets: the 95% interval over other test images (exact)." if one else f"{several}."
    return (
        "Test errors of the last epoch's weights, of those with the lowest validation error, and the lowest of all epochs "
        "whose test error is known, which is what choosing on the test set would claim. That one is no test error, and no fair "
        f"estimate: the test images have chosen it. {intervals}"
    )


def choice_table(found: Sequence[Choice], runs: Sequence[str] = ()) -> Table:
    """One row a cell: last epoch, best on validation images, lowest on test images, and among how many epochs.

    Args:
        runs: the run of each, where there are several.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    varied = any(each.cell.params for each in found)
    for title in (*(["run"] if runs else []), "impl", *(["setting"] if varied else [])):
        table.add_column(title, no_wrap=True)
    for title in ("seeds", "last epoch %", "best on validation %", "chosen on test %", "among epochs"):
        table.add_column(title, justify="right", no_wrap=True)
    for place, each in enumerate(found):
        last, validated, claimed = (_shown(each, figure) for figure in (each.last, each.validated, each.claimed))
        table.add_row(
            *([runs[place]] if runs else []),
            each.cell.impl,
            *([setting(each.cell.params)] if varied else []),
            str(each.last.n),
            last,
            validated,
            f"at most {claimed}" if each.is_bound else claimed,
            f"{each.known} of {each.epochs}",
        )
    return table


def _shown(choice: Choice, found: Summary) -> str:
    """ "0.42 ± 0.05"; of one seed "0.42 [0.30, 0.57]"."""
    interval = choice.interval(found)
    if found.n > 1 or interval is None:
        return mean(found, fixed=2, tells_one=False)
    return f"{found.mean:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
