"""How the pages of this folder become a site: `make docs`.

The pages read well on GitHub, too. So they link to files of the repository by relative paths, which are made links to the
repository here, and every page is in the navigation: those that `NAVIGATION` does not name are how-tos.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from harness import __version__  # noqa: E402

project = "capsbench"
author = "capsbench contributors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["raw", "_build"]
highlight_language = "none"
nitpicky = True
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
copybutton_prompt_text = "$ "
smartquotes = False  # an option's two hyphens stay two

html_theme = "furo"
html_title = f"capsbench {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
linkcheck_ignore = [r"http://"]  # examples of addresses: those that anybody can open are https
linkcheck_anchors = False
linkcheck_timeout = 20
linkcheck_retries = 2

NAVIGATION = {
    "learn": ("Learn", ["tutorial", "install"]),
    "do": (
        "Do",
        [
            *(
                "own-data",
                "own-implementation",
                "own-model-kind",
                "own-suite",
                "running",
                "best-settings",
                "cluster",
                "gpu",
                "environments",
            ),
            *(
                "variables",
                "storage",
                "ci-gate",
                "publishing",
                "pandas",
                "mlflow",
                "figures",
                "demo",
                "weights",
                "predictions",
            ),
        ],
    ),
    "look up": (
        "Look up",
        ["suite-keys", "commands", "metrics", "json", "run-directory", "table", "data-sets", "troubleshooting"],
    ),
    "understand": (
        "Understand",
        ["trust", "parity", "speed", "statistics", "paper", "performance", "reliability", "architecture"],
    ),
}
"""Section -> its title, and its pages in their order. A page that is named nowhere is one of "do"."""

_PAGES = re.compile(r"<!-- pages: (.*?) -->")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./|raw/)[^)#\s]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_SERVER, _NAME = os.environ.get("GITHUB_SERVER_URL", "https://github.com"), os.environ.get("GITHUB_REPOSITORY")
REPOSITORY = f"{_SERVER}/{_NAME}/blob/{os.environ.get('GITHUB_SHA', 'main')}" if _NAME else None
"""Where files of the repository are shown; None: not known here, and such links become plain text."""


def pages(section: str) -> list[str]:
    """The pages of a section of the navigation."""
    named = {page for _, those in NAVIGATION.values() for page in those} | {"index"}
    others = sorted(path.stem for path in DOCS.glob("*.md") if path.stem not in named)
    return [*NAVIGATION[section][1], *(others if section == "do" else ())]


def _toctree(found: re.Match[str]) -> str:
    title, _ = NAVIGATION[found[1]]
    return f"```{{toctree}}\n:caption: {title}\n:maxdepth: 1\n\n" + "\n".join(pages(found[1])) + "\n```"


def _repository_link(found: re.Match[str], wrong: list[str]) -> str:
    text, target, anchor = found[1], found[2], found[3] or ""
    path = (DOCS / target).resolve()
    if not path.exists() or not path.is_relative_to(ROOT):
        wrong.append(f"a link to {target}, which does not exist")
    inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    return f"[{text}]({REPOSITORY}/{inside}{anchor})" if REPOSITORY else text


def _read(_app: object, page: str, source: list[str]) -> None:
    from sphinx.util import logging

    wrong: list[str] = []
    pieces = _FENCE.split(source[0])
    for number in range(0, len(pieces), 2):  # the others are code
        text = _PAGES.sub(_toctree, pieces[number])
        pieces[number] = _LINK.sub(lambda found: _repository_link(found, wrong), text)
    source[0] = "".join(pieces)
    for each in wrong:
        logging.getLogger(__name__).warning(each, location=page)


def setup(app: object) -> None:
    """Registers what is done to each page before it is read."""
    app.connect("source-read", _read)  # type: ignore[attr-defined]
