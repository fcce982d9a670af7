"""The terminal that a command finds, whatever it is: output that nobody can see never ends a command.

Imports nothing that takes time: it comes before all else.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any, TextIO

_PLAIN = {"\u2026": "...", "\u2501": "-", "\u2578": " ", "\u257a": " ", "\xd7": "x"}
_WIDTHS = range(20, 1001)  # columns of a screen that tables can be laid out for
_PATIENCE_S = 10.0  # with a non-blocking stdout whose reader is slow
_ERRORS = "capsbench.plain"

_lost: list[OSError] = []
"""What went wrong with stdout, if anything that matters."""
_stopped: list[str] = []
"""Libraries that were stopped while they started: their threads could crash the interpreter as it ends."""


class _Patient(io.FileIO):
    """A descriptor that takes whatever is written: once that fails, it leads to /dev/null, for C libraries too."""

    def __init__(self, descriptor: int, report: Callable[[OSError], None]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._report = report
        self._is_terminal = self.isatty()

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
            if written is None:  # non-blocking, and full
                select.select([], [self.fileno()], [], _PATIENCE_S)
                written = super().write(data)
            if written is not None:
                return written
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as error:
            if error.errno != errno.EPIPE and not self._is_terminal:  # else its reader went away, and wants no more
                self._report(error)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(memoryview(data).cast("B"))


def prepare() -> None:
    """Makes this process, and those that it will start, independent of the terminal.

    Closed standard descriptors are opened on /dev/null, since a file of the run would get their numbers; output errors
    and characters that the locale lacks end nothing; absurd widths are ignored.
    """
    was_open = [_is_open(descriptor) for descriptor in range(3)]
    while (opened := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(opened, True)
    os.close(opened)
    if not was_open[0]:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = sys.__stdout__ = _stream(1, sys.stdout, _lost.append)
    sys.stderr = sys.__stderr__ = _stream(2, sys.stderr, _ignore)
    _forget_odd_widths()


def finish(code: int) -> int:
    """Writes out what is left; the exit code, 1 instead of 0 if stdout failed otherwise than by a reader that went away.

    Does not return, but ends the process, after `stopped`.
    """
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    if _lost:
        sys.stderr.write(f"capsbench: stdout: {_lost[0].strerror}; what was to be printed there is lost\n")
        sys.stderr.flush()
        code = code or 1
    if _stopped:
        os._exit(code)
    return code


def stopped(library: str) -> None:
    """Says that a library was stopped while it started."""
    _stopped.append(library)


def copy_of(stream: TextIO) -> TextIO:
    """A stream on a copy of the descriptor of `stream`; the stream itself if it has none."""
    try:
        descriptor = os.dup(stream.fileno())
    except (OSError, ValueError):
        return stream
    return _stream(descriptor, stream, _lost.append if stream is sys.stdout else _ignore)


def _stream(descriptor: int, like: TextIO | None, report: Callable[[OSError], None]) -> TextIO:
    codecs.register_error(_ERRORS, _plain)
    raw = _Patient(descriptor, report)
    encoding = getattr(like, "encoding", None) or "utf-8"
    at_once = isinstance(like, io.TextIOWrapper) and (like.line_buffering or like.write_through)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=_ERRORS, line_buffering=at_once)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that the terminal's encoding lacks, and for bytes of file names that are no text."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    shown = (_PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in found)
    return "".join(shown), error.end


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _forget_odd_widths() -> None:
    asked = os.environ.get("COLUMNS", "")
    if asked and not (asked.isdecimal() and int(asked) in _WIDTHS):
        del os.environ["COLUMNS"]
    for descriptor in (1, 2):
        try:
            columns = os.get_terminal_size(descriptor).columns
        except OSError:  # no terminal
            continue
        if columns not in (0, *_WIDTHS):
            os.environ.setdefault("COLUMNS", "80")


def _ignore(_error: OSError) -> None:
    pass
