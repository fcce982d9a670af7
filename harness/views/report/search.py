"""The report's section on a search."""

from __future__ import annotations

from harness.analysis.search import Search
from harness.views import search as view
from harness.views.report.page import Section


def section(search: Search) -> Section:
    """Budget, best values, and how sure the confirmation is."""
    return Section(view.TITLE, view.text(search), view.table(search), view.notes(search))
