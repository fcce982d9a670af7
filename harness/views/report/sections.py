"""The sections of a run's report, which the screen shows, and from which Markdown, LaTeX and the page are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.analysis import costs as curves
from harness.analysis import equivalence
from harness.analysis.choice import Choice, advice
from harness.analysis.seeds import OverSeeds, left_out_together
from harness.views import equivalence as equivalence_view
from harness.views.report import tables
from harness.views.report.choice_table import TITLE, choice_table, explained
from harness.views.report.page import Section
from harness.views.tables import doubts

_CELLS = "Means over seeds, with half their 95% interval (Student's t); sd: the standard deviation of the seeds' test errors."
_PUBLISHED = " Paper and others: published test errors; what is not alike in them is listed below."
_TWO_SEEDS = (
    "two seeds show little: half an interval is then 9 standard deviations, of three seeds 2.5, of five 1.2 "
    "(-s seed=0,1,2,3,4 adds to what is there)"
)
_CHANGES = {
    "test_err_pct": "In percentage points. ",
    "epoch_s": "A trial counts once, however many epochs it has. ",
}
_TESTS = (
    "Difference: the second's less the first's. Holm's p is corrected for all rows of this table; detectable is the "
    "smallest difference that so many seeds would show in four of five repetitions, so that none shown does not mean none."
)
IMAGES = (
    "The same {} test images in both: how many each has wrong, alone and together, summed over seeds. McNemar's exact p, of "
    "each seed, is about these trained models; difference (in percentage points), interval and Holm's p are about other "
    "seeds and other images, too. Detectable: the smallest difference that so many seeds and images would show in four of five "
    "repetitions."
)


def sections(
    cost: curves.Report, seeds: OverSeeds, choices: Sequence[Choice], errors: Sequence[Path], costs: Sequence[Path]
) -> Iterator[Section]:
    """What there is to say of a run, in order. `errors`, `costs`: figures that were drawn of test errors and of costs."""
    notes = left_out_together(seeds.cells) + [_TWO_SEEDS] * any(len(cell.counted) == 2 for cell in seeds.cells)
    only_one = all(len(cell.counted) < 2 for cell in seeds.cells)
    text = ("" if only_one else _CELLS) + _PUBLISHED * bool(seeds.beside)
    yield Section("Cells", text.strip(), tables.cells_table(seeds), notes, errors)
    if choices:
        yield Section(TITLE, explained(choices), choice_table(choices), advice("RUN", choices))
    for metric, text in _CHANGES.items():
        title = f"Differences between settings: {'test error' if metric == 'test_err_pct' else 'seconds per epoch'}"
        found = [change for change in seeds.changes if change.metric == metric]
        if any(change.test.p is not None for change in found):
            yield Section(title, text + _TESTS, tables.changes_table(found))
        elif found:
            yield Section(
                title, "", None, ["No test: that takes at least 2 seeds in both settings (grid.seed: [0, 1, 2])."]
            )
    if seeds.images:
        count = min(row.images for row in seeds.images)
        yield Section("Test errors image by image", IMAGES.format(f"{count:,}"), tables.images_table(seeds.images))
    if seeds.pairs:
        text = "Are two implementations shown to end with the same test error, within the margin? (L7, two one-sided tests)"
        notes = [equivalence.sentence(pair) for pair in seeds.pairs if pair.verdict is None]
        notes += filter(None, [equivalence.caveat([cell.trial for cell in seeds.cells])])
        yield Section("Equivalence of implementations", text, equivalence_view.table(seeds.pairs), notes)
    if seeds.beside:
        table, notes = tables.published_table(seeds)
        text = (
            "Nothing is shown but what has the same data set, network, routing and decoder, as far as the source states "
            "them; not alike: see the notes."
        )
        yield Section("Published figures", text, table, notes)
    if cost.points:
        notes = [*tables.sentences(cost), *(f"no timing: {line}" for line in cost.left_out)]
        notes += doubts([result for cell in seeds.cells for result in cell.counted])
        yield Section("Cost of a training step", "", tables.table(cost), notes, costs)
