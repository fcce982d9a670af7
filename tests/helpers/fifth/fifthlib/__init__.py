"""A make-believe framework: it computes with NumPy, and looks at its environment when it starts."""

from __future__ import annotations

import os

__version__ = "9.1"


class HeapFull(Exception):
    """Its memory has run out, which only the name tells."""


def start(threads: int) -> None:
    """Raises `RuntimeError` where the process was not started as this framework wants it."""
    if os.environ.get("FIFTH_THREADS") != str(threads) or "FIFTH_STALE" in os.environ:
        found = {name: value for name, value in os.environ.items() if name.startswith("FIFTH_")}
        raise RuntimeError(f"fifthlib: not the environment for {threads} threads: {found}")
