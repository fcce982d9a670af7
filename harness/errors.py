"""Errors that are shown as messages, never as tracebacks, and how to recognise that memory ran out."""

from __future__ import annotations

import difflib
import errno
import os
import re
import warnings
from collections.abc import Collection, Iterable


class UserError(Exception):
    """The request was wrong: what was wrong, what was found, the nearest valid choice, what to do. Exit code 2."""

    code = 2


class Noted(UserWarning):
    """Something that a user should know, though all is well: what, and where. Shown once, in one line."""


class Unread(Noted):
    """Something from a newer capsbench was ignored: what it is, where, and what to do. Shown once, in one line."""


def note(message: str, category: type[Noted] = Noted) -> None:
    """Warns; where Python was told to make errors of warnings (PYTHONWARNINGS=error), this one is shown all the same."""
    try:
        warnings.warn(message, category, stacklevel=3)
    except Noted as told:
        warnings.showwarning(told, category, __file__, 0)


class Stopped(UserError):
    """What was begun cannot go on, such as on a full disk: why, and what to do. Exit code 1."""

    code = 1


class BrokenPlugin(UserError):
    """A plug-in registered by a distribution does not work: which, and why. Exit code 2."""


class TrialFailed(Exception):
    """Why a trial failed: the cause in one line, the type of the `error` behind it, and what to do."""

    def __init__(self, cause: str, error: str, hint: str) -> None:
        super().__init__(cause)
        self.error, self.hint = error, hint


_ADVICE = {
    errno.ENOSPC: "make room, or name another folder",
    errno.EDQUOT: "your quota is used up: make room, or name another folder",
    errno.EFBIG: "allow larger files: ulimit -f unlimited",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "name something that you may read and write",
    errno.EPERM: "name something that you may read and write",
    errno.EMFILE: "allow more open files: ulimit -n 4096",
    errno.ENFILE: "the machine has too many open files",
    errno.ENOMEM: "free some memory",
    errno.EAGAIN: "the machine allows no more processes or threads: ulimit -u",
    errno.EIO: "the disk or the network drive has a fault",
    errno.ESTALE: "the network drive has lost it",
    errno.ENODEV: "the disk is gone",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "a link that points to itself",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "name a file",
    errno.ENOENT: "it is not there, or no longer",
}


def of_the_system(error: OSError) -> str | None:
    """What the operating system refused, in one line with what to do; None if it can be no fault but the program's."""
    if error.errno not in _ADVICE:
        return None
    if error.errno == errno.ENOENT and error.filename is None:
        if "temporary" in str(error.strerror):
            return "no folder for temporary files can be written: set TMPDIR to one of yours"
        return "the working directory has been removed; change to another one"
    what = f"{error.filename}: " if error.filename is not None else ""
    return f"{what}{error.strerror}; {_ADVICE[error.errno]}"


_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV)
_NO_ROOM = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as libraries written in Rust report it


def of_the_disk(error: BaseException | None) -> OSError | None:
    """The error behind `error` that a full, read-only or failing disk made; None if there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_DISKS:
            return error
        text = str(error)
        if (code := _OS_ERROR.search(text)) and int(code[1]) in _OF_DISKS:
            return OSError(int(code[1]), os.strerror(int(code[1])))
        if full := _NO_ROOM.search(text):
            number = errno.EDQUOT if "quota" in full[0].lower() else errno.ENOSPC
            return OSError(number, os.strerror(number))
        error = error.__cause__
    return None


_STARVED = re.compile(
    r"out.of.memory|resource.?exhausted|unable to allocate|not enough memory|cannot allocate memory|can't allocate"
    r"|bad_alloc|alloc_failed|memoryerror|\boom\b",
    re.IGNORECASE,
)


def starved(error: BaseException | str, exceptions: Collection[str] = ()) -> bool:
    """Whether an exception, or the end of a log, reports that memory ran out; those named in `exceptions` do."""
    if type(error).__name__ in exceptions:
        return True
    text = error if isinstance(error, str) else f"{type(error).__name__} {error}"
    return _STARVED.search(text) is not None


def nearest(found: str, valid: Iterable[str]) -> str:
    """A sentence with the closest valid choice, if one is close, and all choices: '; did you mean "torch"? Valid: ...'."""
    names = sorted(valid)
    lower = {name.lower(): name for name in names}
    close = [lower[each] for each in difflib.get_close_matches(found.lower(), lower, n=1, cutoff=0.5)]
    hint = f'; did you mean "{close[0]}"?' if close else "."
    return f"{hint} Valid: {', '.join(names)}."
