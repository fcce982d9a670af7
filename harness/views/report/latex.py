"""A report's tables as a LaTeX document, for pdfLaTeX, LuaLaTeX and XeLaTeX, with packages of every installation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.views.report.page import Section, rows_of

_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "\u00d7": r"$\times$", "\u2192": r"$\to$", "\u2264": r"$\le$", "\u2265": r"$\ge$", "\u2248": r"$\approx$",
    "\u2212": r"$-$", "\u00b5": r"$\mu$", "\u03bc": r"$\mu$", "`": r"\textasciigrave{}", "\n": " ",
}  # fmt: skip
_LONG = r">{\raggedright\arraybackslash}p{60mm}"
_HEAD = r"""\documentclass{article}
\usepackage{iftex}
\ifPDFTeX\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\else\usepackage{fontspec}\fi
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{array,booktabs,longtable}
\setlength{\LTleft}{0pt}
\setlength{\parindent}{0pt}
\begin{document}
"""


def latex(title: str, texts: Sequence[str], sections: Sequence[Section]) -> str:
    """The document: a section each, with its table, text and notes."""
    lines = [_HEAD, rf"\section*{{{plain(title)}}}", *(f"{plain(text)}\n" for text in texts)]
    for section in sections:
        lines += [rf"\subsection*{{{plain(section.title)}}}", f"{plain(section.text)}\n"]
        if section.table:
            titles, right, rows = rows_of(section.table)
            lines += [r"{\footnotesize\begin{longtable}{" + _columns(right, rows) + "}", r"\toprule"]
            lines += [_row(titles), r"\midrule\endhead", *map(_row, rows), r"\bottomrule", r"\end{longtable}}"]
        if section.notes:
            lines += [r"\begin{itemize}", *(rf"\item{{}} {plain(note)}" for note in section.notes), r"\end{itemize}"]
    return "\n".join([*lines, r"\end{document}", ""])


def _columns(right: Sequence[bool], rows: Sequence[Sequence[str]]) -> str:
    """Numbers to the right, text to the left; long text is broken into lines, so that no table is wider than the page."""
    longest = [max((len(row[column]) for row in rows), default=0) for column in range(len(right))]
    kinds = zip(right, longest, strict=True)
    return "".join("r" if is_number else _LONG if length > 40 else "l" for is_number, length in kinds)


def plain(text: str) -> str:
    """The text, escaped so that LaTeX prints it as it is."""
    escaped = re.sub("|".join(map(re.escape, _SIGNS)), lambda found: _SIGNS[found[0]], text)
    return re.sub("-(?=-)", "-{}", escaped)  # else two hyphens are a dash


def _row(cells: Sequence[str]) -> str:
    # a cell that begins with [ or * would be read as an option of the line before
    return " & ".join(f"{{}}{plain(cell)}" if cell[:1] in ("[", "*") else plain(cell) for cell in cells) + r" \\"
