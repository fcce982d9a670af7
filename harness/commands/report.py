"""`capsbench report`: everything about a run, on the screen and as two self-contained files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.analysis import costs as curves
from harness.analysis import equivalence
from harness.analysis.search import Search
from harness.analysis.search import of_journal as search_of
from harness.analysis.seeds import OverSeeds, left_out, over_seeds
from harness.commands.output import print_json
from harness.errors import UserError
from harness.events import ResultEvent
from harness.journal.journal import Journal
from harness.journal.results import named_files
from harness.views import equivalence as equivalence_view
from harness.views import search as search_view
from harness.views.report import tables
from harness.views.report.cost_plot import draw
from harness.views.report.page import Section, write
from harness.views.report.search import section as search_section
from harness.views.report.tables import cells_table, changes_table, images_table, published_table
from harness.views.tables import doubts, print_table
from harness.weights.whole import Damaged, read_predictions, read_weights, recorded

_CELLS = "Means over seeds, with half their 95% interval (Student's t); sd: the standard deviation of the seeds' test errors."
_PUBLISHED = " paper and others: published test errors; what is not alike in them is listed below."
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


@dataclass(frozen=True)
class Written:
    """A report on disk."""

    cost: curves.Report
    seeds: OverSeeds
    sections: list[Section]
    figures: list[Path]
    pages: list[Path]
    search: Search | None = None

    def to_json(self) -> dict[str, Any]:
        """The output of `report --json`."""
        paths = {"figures": list(map(str, self.figures)), "pages": list(map(str, self.pages))}
        searched = {"search": self.search.to_json()} if self.search else {}
        return {**curves.to_json(self.cost), **self.seeds.to_json(), **searched, **paths}


def report(run_dir: Path, out: Path | None = None) -> Written:
    """Writes figures, report.md and report.html to `out`, by default `report` in the run's folder.

    Raises `UserError` for a folder without a run, a run with no finished trial, damaged files of finished trials, and a
    folder that cannot be written.
    """
    seeds = over_seeds(run_dir)
    search = search_of(Journal(run_dir))
    if not any(cell.counted for cell in seeds.cells):
        lines = [*left_out(seeds.cells), *(search_view.notes(search) if search else [])]
        raise UserError("\n".join([f"{run_dir}: nothing has finished.", *lines]))
    _require_whole(Journal(run_dir), [result.id for cell in seeds.cells for result in cell.counted])
    cost, out = curves.make_report(run_dir), out or run_dir / "report"
    errors, costs = draw(cost, seeds, out)
    sections = list(_sections(cost, seeds, errors, costs))
    if search:
        sections.insert(1, search_section(search))
    pages = write(f"capsbench: {seeds.suite}", [seeds.question, seeds.machine], sections, out)
    return Written(cost, seeds, sections, [*errors, *costs], pages, search)


def show(console: Console, written: Written) -> None:
    """Prints every section, and where the files are."""
    for section in written.sections:
        console.print(Text(f"{section.title}\n", "bold"), end="")
        if section.text:
            console.print(Text(section.text, "dim"), soft_wrap=True)
        if section.table:
            print_table(console, section.table)
        for line in [*section.notes, ""]:
            console.print(Text(line), soft_wrap=True)
    for path in written.figures:
        console.print(Text(f"Figure: {path}"), soft_wrap=True)
    console.print(Text(f"Report: {', '.join(map(str, written.pages))}"), soft_wrap=True)


def _require_whole(journal: Journal, trial_ids: Sequence[str]) -> None:
    """Raises `UserError` naming damaged files behind the results. Missing ones are fine: runs may be shared without."""
    damaged: list[str] = []
    for trial_id in trial_ids:
        trial = journal.trial(trial_id)
        for name, event in named_files(journal.events(trial_id)).items():
            path = journal.trial_dir(trial_id) / name
            if not isinstance(event, ResultEvent) or not path.exists():
                continue
            try:
                if name == event.predictions:
                    read_predictions(path, trial, event)
                else:
                    read_weights(path, trial, recorded(event, name))
            except Damaged as error:
                damaged.append(str(error))
    if damaged:
        raise UserError("\n".join(damaged))


def _sections(cost: curves.Report, seeds: OverSeeds, errors: list[Path], costs: list[Path]) -> Iterator[Section]:
    notes = left_out(seeds.cells) + [_TWO_SEEDS] * any(len(cell.counted) == 2 for cell in seeds.cells)
    yield Section("Cells", _CELLS + _PUBLISHED * bool(seeds.beside), cells_table(seeds), notes, errors)
    for metric, text in _CHANGES.items():
        title = f"Differences between settings: {'test error' if metric == 'test_err_pct' else 'seconds per epoch'}"
        found = [change for change in seeds.changes if change.metric == metric]
        if any(change.test.p is not None for change in found):
            yield Section(title, text + _TESTS, changes_table(found))
        elif found:
            yield Section(
                title, "", None, ["No test: that takes at least 2 seeds in both settings (grid.seed: [0, 1, 2])."]
            )
    if seeds.images:
        count = min(row.images for row in seeds.images)
        yield Section("Test errors image by image", IMAGES.format(f"{count:,}"), images_table(seeds.images))
    if seeds.pairs:
        text = "Are two implementations shown to end with the same test error, within the margin? (L7, two one-sided tests)"
        notes = [equivalence.sentence(pair) for pair in seeds.pairs if pair.verdict is None]
        notes += filter(None, [equivalence.caveat([cell.trial for cell in seeds.cells])])
        yield Section("Equivalence of implementations", text, equivalence_view.table(seeds.pairs), notes)
    if seeds.beside:
        table, notes = published_table(seeds)
        text = (
            "Nothing is shown but what has the same data set, network, routing and decoder, as far as the source states "
            "them; not alike: see the notes."
        )
        yield Section("Published figures", text, table, notes)
    if cost.points:
        notes = [*tables.sentences(cost), *(f"no timing: {line}" for line in cost.left_out)]
        notes += doubts([result for cell in seeds.cells for result in cell.counted])
        yield Section("Cost of a training step", "", tables.table(cost), notes, costs)


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench report`."""
    command.add_argument("run_dir", type=Path, metavar="RUN", help="a run's directory, such as runs/scaling")
    command.add_argument("--out", type=Path, metavar="DIR", help="where files are written; default: RUN/report")


def main(args: argparse.Namespace) -> int:
    written = report(args.run_dir, args.out)
    show(Console(stderr=args.json), written)
    if args.json:
        print_json(written.to_json())
    return 0
