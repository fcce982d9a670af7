"""A report's tables as a LaTeX document that needs nothing but booktabs and longtable."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.views.report.page import Section, rows_of

_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "\u00d7": r"$\times$", "\u2192": r"$\to$", "\n": " ",
}  # fmt: skip
_HEAD = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{booktabs,longtable}
\begin{document}
"""


def latex(title: str, texts: Sequence[str], sections: Sequence[Section]) -> str:
    """The document: a section each, with its table, text and notes."""
    lines = [_HEAD, rf"\section*{{{plain(title)}}}", *(f"{plain(text)}\n" for text in texts)]
    for section in sections:
        lines += [rf"\subsection*{{{plain(section.title)}}}", f"{plain(section.text)}\n"]
        if section.table:
            titles, right, rows = rows_of(section.table)
            lines += [
                r"{\footnotesize\begin{longtable}{" + "".join("r" if each else "l" for each in right) + "}",
                r"\toprule",
            ]
            lines += [_row(titles), r"\midrule\endhead", *map(_row, rows), r"\bottomrule", r"\end{longtable}}"]
        if section.notes:
            lines += [r"\begin{itemize}", *(rf"\item {plain(note)}" for note in section.notes), r"\end{itemize}"]
    return "\n".join([*lines, r"\end{document}", ""])


def plain(text: str) -> str:
    """The text, escaped so that LaTeX prints it as it is."""
    return re.sub("|".join(map(re.escape, _SIGNS)), lambda found: _SIGNS[found[0]], text)


def _row(cells: Sequence[str]) -> str:
    # a cell that begins with [ or * would be read as an option of the line before
    return " & ".join(f"{{}}{plain(cell)}" if cell[:1] in ("[", "*") else plain(cell) for cell in cells) + r" \\"
