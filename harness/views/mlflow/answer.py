"""What the parent run says in MLflow: the question, its answer, the summary table, and the report as one HTML file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

from harness import __version__
from harness.analysis.answer import answer
from harness.analysis.choice import choices
from harness.analysis.costs import make_report
from harness.analysis.gates import matrix
from harness.analysis.search import of_journal as search_of
from harness.analysis.seeds import OverSeeds, left_out_together, over_seeds
from harness.errors import UserError
from harness.journal.journal import FOLDER, INDEX, Journal
from harness.text import number
from harness.views.mlflow import saved
from harness.views.report.chart import Shown
from harness.views.report.compose import Material, compose
from harness.views.report.document import render
from harness.views.report.page import plain, table_lines
from harness.views.report.search import section as search_section
from harness.views.report.sections import sections
from harness.views.report.tables import cells_table

PAGE = "report.html"
"""The name of the report among the parent run's artifacts."""

LARGEST = 20_000_000  # bytes of a report that is still sent
_NOTE_LENGTH = 5000  # characters of a tag that every MLflow 3 takes
_FEW, _LONG = 4, 400  # lines on what does not count, characters of each
_CUT = "| ... | the rest is in report.html |"


def fingerprint(journal: Journal) -> str:
    """Changes whenever the note or the report would: with the plan, the events of its trials, and their figures."""
    plan = journal.plan()
    found: list[object] = [__version__, plan.get("question"), plan.get("search")]
    for trial in plan.get("trials", ()):
        folder = journal.trial_dir(str(trial["id"]))
        events, figures = folder / "events.jsonl", folder / FOLDER / INDEX
        found.append([trial, events.stat().st_size if events.exists() else 0])
        found.append(hashlib.sha256(figures.read_bytes()).hexdigest() if figures.exists() else None)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def note(journal: Journal, experiment_id: str, run_id: str, live: bool) -> str:
    """The parent run's note, as Markdown of at most 5,000 characters; while trials run, what is asked and planned."""
    plan = journal.plan()
    asked = f"**{plain(str(plan.get('question') or plan['suite']))}**"
    links = " | ".join(_links(journal, experiment_id, None if live else run_id))
    planned = len(plan.get("trials", ()))
    if live:
        told = f"{planned} trial{'s' * (planned != 1)} planned. The answer comes here when the run ends."
        return f"{asked} {told}\n\n{links}\n"
    seeds = over_seeds(journal.run_dir)
    found = answer(seeds)
    first, *others = map(plain, found.sentences or ["Nothing can be compared yet."])
    table = "\n".join(table_lines(cells_table(seeds)))
    out = left_out_together(seeds.cells)
    out = [*out[:_FEW], *([f"... and {len(out) - _FEW} more lines of this kind."] if len(out) > _FEW else [])]
    small = [plain(line)[:_LONG] for line in (*_counted(seeds), *out, *found.notes)]
    rest = "".join(f"\n\n{each}" for each in (*small, links))
    body = "\n\n".join([f"{asked} {first}", *others, table])
    return _fitting(body.splitlines(), _NOTE_LENGTH - len(rest) - 1) + rest + "\n"


def page(journal: Journal) -> str | None:
    """The report, as `capsbench report` writes it; None if nothing has finished.

    Raises `UserError` for damaged files, and if jinja2 is not installed.
    """
    seeds = over_seeds(journal.run_dir)
    if not any(cell.counted for cell in seeds.cells):
        return None
    cost, found, search = make_report(journal.run_dir), answer(seeds), search_of(journal)
    told = list(sections(cost, seeds, choices(seeds.cells), [], []))
    if search:
        told.insert(1, search_section(search))
    made = render(compose([Material("", journal, Shown("", seeds, cost, matrix(journal, seeds.cells)), found, told)]))
    if len(made.encode()) > LARGEST:
        raise UserError(f"the report has {len(made.encode()) / 1e6:.0f} MB, more than {LARGEST / 1e6:.0f}")
    return made


def _counted(seeds: OverSeeds) -> Iterator[str]:
    """How many trials count, and what the gate said of all."""
    results = [result for cell in seeds.cells for result in cell.results]
    counted = sum(len(cell.counted) for cell in seeds.cells)
    if counted < len(results):
        yield f"{counted} of {len(results)} trials count."
    verdicts = [result.parity_ok for result in results if result.parity_ok is not None]
    worst = max((result.parity_max_rel_err or 0.0 for result in results if result.parity_ok), default=0.0)
    if verdicts:
        good = f"{sum(verdicts)} of {len(verdicts)}"
        largest = f"; the largest relative error is {number(worst, 1)}" if any(verdicts) else ""
        yield f"Parity: good in {good} trials that were compared{largest}."


def _links(journal: Journal, experiment_id: str, run_id: str | None) -> Iterator[str]:
    """The saved views and the report, for a click: they are on the same server, whichever that is."""
    several = len({each.get("seed") for each in journal.plan().get("trials", ())}) > 1
    for view in saved.views([]):
        if view.key != saved.CELLS or several:
            yield f"[{view.title}]({saved.place(experiment_id, view.key, view.opens_charts)})"
    if run_id:
        yield f"[Report](#/experiments/{experiment_id}/runs/{run_id}/artifacts/{PAGE}?workflowType=machine_learning)"


def _fitting(lines: Sequence[str], most: int) -> str:
    """The lines without as many rows of the table, from the last one up, as are too many; then without what follows."""
    kept, rows = list(lines), [index for index, line in enumerate(lines) if line.startswith("| ")][2:]
    if len("\n".join(kept)) > most and rows:
        kept[rows[-1]] = _CUT
        for index in reversed(rows[:-1]):
            if len("\n".join(kept)) <= most:
                break
            del kept[index]
    text = "\n".join(kept)
    return text if len(text) <= most else text[: max(0, most - 4)] + " ..."
