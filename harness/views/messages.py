"""Sentences on a screen: folded between words on a terminal, so that none is cut in two; in a log a line each.

What a reader copies, a path or a command, stays in one piece, whatever its length: it can be taken from a terminal as one.
"""

from __future__ import annotations

import os
import re
from typing import Any

from rich import console
from rich.cells import cell_len
from rich.text import Text

from harness.views.layout import width_of

_PIECE = re.compile(r"`[^`]*`\S*|(?<!\S)(?:capsbench|tensorboard|ssh|pip) [^;]*$|\S+", re.MULTILINE)


class Console(console.Console):
    """A console whose lines of text (`soft_wrap=True`) are folded as said above."""

    def print(self, *objects: Any, soft_wrap: bool | None = None, **more: Any) -> None:
        if soft_wrap and len(objects) == 1 and isinstance(objects[0], Text) and is_live(self):
            objects = (folded(objects[0], width_of(self)),)
        super().print(*objects, soft_wrap=soft_wrap, **more)


def is_live(of: console.Console) -> bool:
    """Whether lines can be drawn again. Neither a notebook (`!capsbench`) nor a file takes that, FORCE_COLOR or not."""
    is_forced = "FORCE_COLOR" in os.environ and not of.file.isatty()
    return of.is_terminal and not (of.is_dumb_terminal or is_forced or "JPY_PARENT_PID" in os.environ)


def folded(text: Text, width: int) -> Text:
    """The text in lines of this width, the further ones indented like the first."""
    return Text("\n").join(part for line in text.split("\n", allow_blank=True) for part in _lines(line, width))


def _lines(line: Text, width: int) -> list[Text]:
    plain = line.plain
    if cell_len(plain) <= width:
        return [line]
    indent = plain[: len(plain) - len(plain.lstrip())]
    breaks: list[int] = []
    start = 0
    for piece in _PIECE.finditer(plain):
        used = (indent if breaks else "") + plain[start : piece.end()]
        if piece.start() > len(indent) and cell_len(used) > width:
            start = piece.start()
            breaks.append(start)
    found = list(line.divide(breaks))
    for part in found:
        part.rstrip()
    return [found[0], *(Text(indent) + part for part in found[1:])]
