"""The report as one HTML file that asks nothing of any network: text, tables, charts, pictures, and the charts' library."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.views.report.chart import Chart, Data
from harness.views.report.gallery import Album

_ROOM = Path(__file__).parent / "templates"
NO_CHARTS = (
    'Charts need plotly, which was not installed here: pip install "capsbench[report]". Their tables are complete.'
)


@dataclass(frozen=True)
class Part:
    """A part of the page: a heading, texts, and what is below them, each of which may be missing.

    `run`: whose it is, where there are several runs; empty for what is about all of them.
    """

    id: str
    title: str
    text: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[tuple[str, Data]] = ()  # caption, table
    notes: Sequence[str] = ()
    albums: Sequence[Album] = ()
    code: Sequence[tuple[str, str]] = ()  # caption, text
    run: str = ""

    @property
    def heading(self) -> str:
        """The title, with the run's name before it."""
        return f"{self.run}: {self.title}" if self.run else self.title


@dataclass(frozen=True)
class Document:
    """The page. `lead`: the answer, a sentence each."""

    title: str
    question: str
    lead: Sequence[str]
    small: Sequence[str]
    parts: Sequence[Part]
    warnings: Sequence[str] = field(default_factory=tuple[str, ...])

    @property
    def by_run(self) -> dict[str, list[Part]]:
        """Run -> its own parts; parts about all runs are under the empty name."""
        found: dict[str, list[Part]] = {"": []}
        for part in self.parts:
            found.setdefault(part.run, []).append(part)
        return found


def render(document: Document) -> str:
    """The page's HTML. Raises `UserError` if jinja2 is not installed."""
    if importlib.util.find_spec("jinja2") is None:
        raise UserError('the page needs jinja2, which is not installed: pip install "capsbench[report]"')
    jinja2: Any = importlib.import_module("jinja2")
    loader = jinja2.FileSystemLoader(_ROOM)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    charts = [chart for part in document.parts for chart in part.charts]
    library = _plotly() if charts else None
    return environment.get_template("page.html").render(
        document=document,
        library=library,
        no_charts=NO_CHARTS if charts and library is None else "",
        figures={chart.id: _script_safe(chart.figure) for chart in charts},
        style=_text("page.css"),
        script=_text("page.js"),
    )


@cache
def _plotly() -> str | None:
    """Plotly's script, from its Python package; None if that is not installed."""
    spec = importlib.util.find_spec("plotly")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "package_data" / "plotly.min.js"
        if path.is_file():
            return path.read_text("utf-8")
    return None


def _text(name: str) -> str:
    return (_ROOM / name).read_text("utf-8")


def _script_safe(figure: dict[str, Any]) -> str:
    """JSON that ends no script element, whatever is in its texts."""
    text = json.dumps(figure, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
