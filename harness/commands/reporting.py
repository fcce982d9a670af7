"""What one or several runs say, as files: a page, Markdown, tables, LaTeX, figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import progress
from harness.analysis import costs as curves
from harness.analysis.answer import Answer, answer
from harness.analysis.choice import Choice, choices
from harness.analysis.compare import Comparison, compare
from harness.analysis.frames import frames
from harness.analysis.gates import Gate, matrix
from harness.analysis.rows import Row, all_rows
from harness.analysis.search import Search
from harness.analysis.search import of_journal as search_of
from harness.analysis.seeds import OverSeeds, left_out, over_seeds
from harness.errors import UserError
from harness.events import ResultEvent
from harness.journal.journal import Journal
from harness.journal.results import named_files
from harness.publishing.crate import home_of_results
from harness.views import search as search_view
from harness.views.report.chart import Shown
from harness.views.report.compose import Material, compose
from harness.views.report.cost_plot import draw
from harness.views.report.document import render
from harness.views.report.files import DEFAULT, write_tables, write_texts
from harness.views.report.latex import latex
from harness.views.report.page import Section, markdown
from harness.views.report.search import section as search_section
from harness.views.report.sections import sections
from harness.views.report.side_by_side import between
from harness.views.report.speed import Measured
from harness.weights.whole import Damaged, read_predictions, read_weights, recorded


@dataclass(frozen=True)
class Known:
    """What is known of one run. `name`: what it is called among others; empty if it is alone."""

    name: str
    run_dir: Path
    seeds: OverSeeds
    cost: curves.Report
    choices: list[Choice]
    gates: list[Gate]
    answer: Answer
    search: Search | None

    @property
    def has_finished(self) -> bool:
        """Whether any trial counts."""
        return any(cell.counted for cell in self.seeds.cells)

    @property
    def nothing(self) -> str:
        """Why there is nothing to tell, if nothing has finished."""
        lines = [*left_out(self.seeds.cells), *(search_view.notes(self.search) if self.search else [])]
        return "\n".join([f"{self.run_dir}: nothing has finished.", *lines])

    def sections(self, figures: tuple[list[Path], list[Path]]) -> list[Section]:
        """What its page and its Markdown tell, in their order."""
        found = list(sections(self.cost, self.seeds, self.choices, *figures))
        return [*found[:1], search_section(self.search), *found[1:]] if self.search else found


@dataclass(frozen=True)
class Written:
    """A report on disk, of one run."""

    cost: curves.Report
    seeds: OverSeeds
    sections: list[Section]
    figures: list[Path]
    pages: list[Path]
    answer: Answer
    choices: list[Choice]
    tables: list[Path] = field(default_factory=list[Path])
    search: Search | None = None

    def to_json(self) -> dict[str, Any]:
        """The output of `report --json`."""
        paths = {"figures": self.figures, "pages": self.pages, "tables": self.tables}
        return {
            **curves.to_json(self.cost), **self.seeds.to_json(), "answer": self.answer.to_json(),
            "choice": [each.to_json() for each in self.choices],
            **({"search": self.search.to_json()} if self.search else {}),
            **{name: list(map(str, found)) for name, found in paths.items()},
        }  # fmt: skip


@dataclass(frozen=True)
class Together:
    """A report on disk, of several runs. `problems`: what could not be shown, and why."""

    runs: list[Written]
    comparisons: list[Comparison]
    sections: list[Section]
    pages: list[Path]
    tables: list[Path]
    problems: list[str]

    def to_json(self) -> dict[str, Any]:
        """The output of `report A B --json`."""
        return {
            "runs": [each.to_json() for each in self.runs],
            "comparisons": [each.to_json() for each in self.comparisons],
            "pages": list(map(str, self.pages)), "tables": list(map(str, self.tables)), "problems": self.problems,
        }  # fmt: skip


def report(run_dir: Path, out: Path | None = None, formats: Sequence[str] = DEFAULT) -> Written:
    """Writes a run's report in these forms to `out`, by default `report` in `home_of_results`.

    Raises `UserError` for a folder without a run, a run with no finished trial, damaged files of finished trials, a folder
    that cannot be written, and a package that a form needs and that is not installed.
    """
    run = look(run_dir)
    if not run.has_finished:
        raise UserError(run.nothing)
    return write([run], out or home_of_results(run_dir) / "report", formats).runs[0]


def look(run_dir: Path, name: str = "") -> Known:
    """What is known of a run. Raises `UserError` for a folder without a run, and damaged files of finished trials."""
    seeds = over_seeds(run_dir)
    journal = Journal(run_dir)
    _require_whole(journal, [result.id for cell in seeds.cells for result in cell.counted])
    cost, gates = curves.make_report(run_dir), matrix(journal, seeds.cells)
    return Known(name, run_dir, seeds, cost, choices(seeds.cells), gates, answer(seeds), search_of(journal))


def side_by_side(
    run_dirs: Sequence[Path], out: Path | None, formats: Sequence[str], speed: Measured | None = None
) -> Together:
    """A report of several runs, or of one of which nothing can be told but what went wrong.

    Runs that cannot be read are left out, and told among the problems. Raises `UserError` if none can be read.
    """
    known: list[Known] = []
    problems: list[str] = []
    for name, run_dir in _named(run_dirs).items():
        try:
            known.append(look(run_dir, name))
        except UserError as error:
            problems.append(str(error))
    if not known:
        raise UserError("\n".join(problems))
    problems += [run.nothing for run in known if not run.has_finished]
    others = "-".join(_file_name(run.name) for run in known[1:])
    folder = f"report-with-{others}"[:200] if others else "report"
    return write(known, out or home_of_results(known[0].run_dir) / folder, formats, problems, speed)


def write(
    runs: Sequence[Known],
    out: Path,
    formats: Sequence[str],
    problems: Sequence[str] = (),
    speed: Measured | None = None,
) -> Together:
    """Writes the report of these runs to the folder `out`."""
    comparisons, apart = _compared(runs)
    problems = [*problems, *apart]
    drawn = {run.name: _draw(run, out / _file_name(run.name) if run.name else out, formats) for run in runs}
    own = {run.name: run.sections(_first(drawn[run.name], formats)) for run in runs}
    shared = [section for each in comparisons for section in between(each)]
    if problems:
        shared.insert(0, Section("What is missing", "", None, problems))
    shared += speed.sections if speed else ()
    pages = _pages(runs, own, shared, out, formats, speed)
    tables = _tables(runs, out, formats)
    written = [
        Written(
            run.cost, run.seeds, own[run.name], [path for each in drawn[run.name].values() for paths in each for path in paths],
            pages, tables=tables, answer=run.answer, choices=run.choices, search=run.search,
        )
        for run in runs
    ]  # fmt: skip
    return Together(written, comparisons, shared, pages, tables, problems)


_Figures = Mapping[str, tuple[list[Path], list[Path]]]
"""png or svg -> figures of errors, and of costs."""


def _draw(run: Known, folder: Path, formats: Sequence[str]) -> _Figures:
    return {kind: draw(run.cost, run.seeds, folder, kind) for kind in ("png", "svg") if kind in formats}


def _first(drawn: _Figures, formats: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """What Markdown shows: the figures of one kind."""
    for found in drawn.values():
        if "md" in formats:
            return found
    return [], []


def _compared(runs: Sequence[Known]) -> tuple[list[Comparison], list[str]]:
    """Each other run with the first, and why some are not compared."""
    found: list[Comparison] = []
    apart: list[str] = []
    for other in runs[1:]:
        try:
            found.append(compare(runs[0].run_dir, other.run_dir))
        except UserError as error:
            apart.append(f"{runs[0].name} and {other.name} share no trial, so each stands alone. {error}")
    return found, apart


def _pages(
    runs: Sequence[Known],
    own: Mapping[str, Sequence[Section]],
    shared: Sequence[Section],
    out: Path,
    formats: Sequence[str],
    speed: Measured | None,
) -> list[Path]:
    told = [
        Section(f"{run.name}: {section.title}" if run.name else section.title, *_rest(section))
        for run in runs
        for section in own[run.name]
    ]
    several = len(runs) > 1
    title = f"capsbench: {' and '.join(dict.fromkeys(run.seeds.suite for run in runs))}"
    lines = [
        f"{run.name}: {line}" if several and line else line
        for run in runs
        for line in (run.seeds.question, *run.answer.sentences, *run.answer.notes, run.seeds.machine)
    ]
    texts: dict[str, str] = {}
    lines = list(dict.fromkeys(filter(None, lines)))
    if "md" in formats:
        texts["report.md"] = markdown(title, lines, [*shared, *told], out)
    if "html" in formats:
        made = [
            Material(
                run.name,
                Journal(run.run_dir),
                Shown(run.name, run.seeds, run.cost, run.gates),
                run.answer,
                own[run.name],
            )
            for run in runs
        ]
        texts["report.html"] = render(compose(made, shared, speed.charts if speed else ()))
    if "latex" in formats:
        texts["report.tex"] = latex(title, lines, [*shared, *told])
    return write_texts(texts, out) if texts else []


def _rest(section: Section) -> tuple[Any, ...]:
    return section.text, section.table, section.notes, section.figures


def _tables(runs: Sequence[Known], out: Path, formats: Sequence[str]) -> list[Path]:
    wanted = [kind for kind in ("csv", "parquet") if kind in formats]
    if not wanted:
        return []
    found: dict[str, list[Row]] = {}
    for run in runs:
        epochs = all_rows(Journal(run.run_dir))
        for name, rows in frames(run.seeds, run.cost, run.gates, epochs, run.name or None).items():
            found.setdefault(name, []).extend(rows)
    return [path for kind in wanted for path in write_tables(found, out, kind)]


def _named(run_dirs: Sequence[Path]) -> dict[str, Path]:
    """Name -> run, by the folder's name, or the whole path where two are alike; one run alone needs none."""
    if len(run_dirs) == 1:
        return {"": run_dirs[0]}
    names = [each.resolve().name for each in run_dirs]
    return {name if names.count(name) == 1 else str(each): each for name, each in zip(names, run_dirs, strict=True)}


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"


def _require_whole(journal: Journal, trial_ids: Sequence[str]) -> None:
    """Raises `UserError` naming damaged files behind the results. Missing ones are fine: runs may be shared without."""
    damaged: list[str] = []
    for trial_id in progress.track(trial_ids, "checking files"):
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
