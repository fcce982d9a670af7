"""Errors that are the user's to mend: shown as a message, never as a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The request was wrong: what was wrong, what was found, the nearest valid choice, what to do. Exit code 2."""


def nearest(found: str, valid: Iterable[str]) -> str:
    """A sentence naming the closest valid choice, if one is close, and all of them: '; did you mean "torch"? Valid: ...'."""
    names = sorted(valid)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.5)
    hint = f'; did you mean "{close[0]}"?' if close else "."
    return f"{hint} Valid: {', '.join(names)}."
