"""Errors that are shown as a message, never as a traceback, and how to tell that memory ran out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable


class UserError(Exception):
    """The request was wrong: what was wrong, what was found, the nearest valid choice, what to do. Exit code 2."""


class Unread(UserWarning):
    """Something of a newer capsbench was left out: what it is, where, and what to do. Shown once, as one line."""


class BrokenPlugin(UserError):
    """Something that a distribution has registered with the bench does not work: which, and why. Exit code 2."""


class TrialFailed(Exception):
    """A trial's end, explained: a line of cause, the type of `error` behind it, and what to do."""

    def __init__(self, cause: str, error: str, hint: str) -> None:
        super().__init__(cause)
        self.error, self.hint = error, hint


_STARVED = re.compile(
    r"out.of.memory|resource.?exhausted|unable to allocate|not enough memory|cannot allocate memory|can't allocate"
    r"|bad_alloc|alloc_failed|memoryerror|\boom\b",
    re.IGNORECASE,
)


def starved(error: BaseException | str, exceptions: Collection[str] = ()) -> bool:
    """Whether an exception, or the end of a log, speaks of memory that could not be had; those named in `exceptions` do."""
    if type(error).__name__ in exceptions:
        return True
    text = error if isinstance(error, str) else f"{type(error).__name__} {error}"
    return _STARVED.search(text) is not None


def nearest(found: str, valid: Iterable[str]) -> str:
    """A sentence naming the closest valid choice, if one is close, and all of them: '; did you mean "torch"? Valid: ...'."""
    names = sorted(valid)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.5)
    hint = f'; did you mean "{close[0]}"?' if close else "."
    return f"{hint} Valid: {', '.join(names)}."
