"""A history as one HTML page, with all that it needs in itself: nothing is loaded, and there is no script."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.analysis.cells import METRICS
from harness.analysis.history import TRACKED, History, Series
from harness.analysis.labels import color
from harness.disk import obstacle, write_atomic
from harness.errors import UserError
from harness.text import UNKNOWN
from harness.views.history.chart import draw
from harness.views.history.words import METHOD, day, name_of, sentence, value, verdict

_DRAWN = 60  # charts of a metric; those with steps come first

_HEADINGS = {"test_err_pct": "Test error in percent", "epoch_s": "Seconds per epoch", "peak_bytes": "Peak memory in MB"}

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2127; --soft: #5a626c; --line: #d9dde2; --step: #8a3ffc;
  --worse: #a2191f; --better: #0e6027; --full: 100% }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e8eaed; --soft: #a4acb6; --line: #343a41;
  --step: #be95ff; --worse: #ffb3b8; --better: #6fdc8c; --full: 65% } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 80rem; margin: 0 auto;
  padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .3rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem }
p, ul { max-width: 52rem; margin: .4rem 0 } .soft, figcaption small { color: var(--soft) }
.answer { font-size: 1.1rem; font-weight: 600 } ul { padding-left: 1.2rem } li { margin: .3rem 0 }
.worse::marker { content: "\\25B2\\00A0"; color: var(--worse) }
.better::marker { content: "\\25BC\\00A0"; color: var(--better) }
.problem { color: var(--worse) }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20.5rem), 1fr)); gap: 1rem 1.5rem }
figure { margin: 0; break-inside: avoid } figcaption { font-size: .9rem }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif } svg text { fill: var(--soft) }
svg .grid { stroke: var(--line) } svg .step { stroke: var(--step); stroke-width: 1.5; stroke-dasharray: 4 3 }
svg .told { fill: var(--step); font-weight: 600 } svg .level { stroke: var(--ink); stroke-width: 1.5 }
svg circle { fill: color-mix(in srgb, var(--own) var(--full), white); stroke: var(--paper); stroke-width: .75 }
svg circle:hover { stroke: var(--ink); stroke-width: 2 }
details { margin: .8rem 0 } summary { cursor: pointer; color: var(--soft) }
summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--step) } .scroll { overflow-x: auto; max-height: 32rem }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
td.right, th.right { text-align: right } td.new { color: var(--step); font-weight: 600 }
@media print { .scroll { max-height: none; overflow: visible } }
"""


def write(history: History, path: Path) -> None:
    """Writes the page. Raises `UserError` if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page(history))
    except OSError as error:
        why = "it is a folder" if path.is_dir() else obstacle(path.parent) or error.strerror
        raise UserError(f"cannot write {path}: {why}; choose a file with --html FILE") from error


def page(history: History) -> str:
    """The page as text."""
    title = html.escape(f"{history.suite}: history of {len(history.runs)} runs")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{_STYLE}</style>"
    )
    body = "\n".join(_body(history))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body></html>\n'


def _body(history: History) -> Iterator[str]:
    if history.question:
        yield f'<p class="soft">{html.escape(history.question)}</p>'
    yield f'<p class="answer">{html.escape(verdict(history))}</p>'
    if history.found:
        yield "<ul>"
        for found in history.found:
            kind = "worse" if found.step.after > found.step.before else "better"
            yield f'<li class="{kind}">{html.escape(sentence(history, found).replace(" -> ", " → "))}.</li>'
        yield "</ul>"
    for lines, kind in ((history.problems, "problem"), (history.warnings, "soft")):
        if lines:
            yield "<ul>" + "".join(f'<li class="{kind}">{html.escape(line)}</li>' for line in lines) + "</ul>"
    for metric in TRACKED:
        series = [each for each in history.series if each.metric == metric]
        if series:
            yield from _section(history, metric, series)
    yield f"<h2>Runs</h2>{_runs(history)}"
    yield f'<h2>Method</h2><p class="soft">{html.escape(METHOD)}</p>'
    if history.tolerance_pct:
        yield f'<p class="soft">Steps in time and memory of less than {history.tolerance_pct:g}% are not told.</p>'


def _section(history: History, metric: str, series: Sequence[Series]) -> Iterator[str]:
    title = html.escape(METRICS[metric].title)
    yield f'<h2>{_HEADINGS[metric]}</h2>\n<div class="charts">'
    drawn = sorted(series, key=lambda each: not each.steps)[:_DRAWN]
    for each in drawn:
        yield (
            f'<figure style="--own:{color(each.cell.impl)}"><figcaption>{html.escape(each.cell.name)}</figcaption>'
            f"{draw(history, each)}</figure>"
        )
    yield "</div>"
    more = f" {len(drawn)} of {len(series)} are drawn; the table has all." if len(drawn) < len(series) else ""
    yield (
        '<p class="soft">A point is a run (the mean over its seeds), a line a level, a dashed line a step. Less is better.'
        f"{more}</p>"
    )
    yield f"<details><summary>Values: {title}</summary>{_values(history, series)}</details>"


def _values(history: History, series: Sequence[Series]) -> str:
    """A row for each run, a column for each series; the first run of a new level is marked."""
    columns = [dict(zip(each.runs, each.values, strict=True)) for each in series]
    new = [{each.runs[step.at] for step in each.steps} for each in series]
    rows: list[str] = []
    for place, run in enumerate(history.runs):
        cells = [
            f'<td class="right{" new" if place in marked else ""}">'
            f"{value(each, column[place]) if place in column else UNKNOWN}{' (new level)' if place in marked else ''}</td>"
            for each, column, marked in zip(series, columns, new, strict=True)
        ]
        rows.append(f"<tr><td>{html.escape(name_of(run, place))}</td>{''.join(cells)}</tr>")
    titles = "".join(f'<th class="right">{html.escape(each.cell.name)}</th>' for each in series)
    return _scrolled(f"<tr><th>run</th>{titles}</tr>", rows)


def _runs(history: History) -> str:
    told = list(dict.fromkeys(name for run in history.runs for name in run.origin if name != "commit"))
    rows: list[str] = []
    for place, run in enumerate(history.runs, start=1):
        texts = [str(place), day(run.ended), run.commit or UNKNOWN, *(run.origin.get(name, UNKNOWN) for name in told)]
        rows.append("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in (*texts, str(run.path))) + "</tr>")
    titles = ("run", "day", "commit", *told, "folder")
    return _scrolled("<tr>" + "".join(f"<th>{html.escape(title)}</th>" for title in titles) + "</tr>", rows)


def _scrolled(head: str, rows: Sequence[str]) -> str:
    return f'<div class="scroll" tabindex="0"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'
