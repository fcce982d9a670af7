"""What installed distributions register for capsbench: their entry points."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def registered(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of `group` on the import path.

    All groups are read at once, and again only when `sys.path` changes: it opens a file of each distribution.
    """
    return tuple(_all(tuple(sys.path)).select(group=group))


@cache
def _all(_path: tuple[str, ...]) -> Any:
    return entry_points()
