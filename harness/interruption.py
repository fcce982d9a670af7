"""Ctrl-C while a command is only being loaded: nothing has begun, so that nothing has to end in order.

Imports nothing that takes time: it comes before all else.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def is_at_once() -> None:
    """From here on an interruption ends the process at once, without a traceback from the midst of an import.

    Where it is ignored (nohup, or a shell's `&`) it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def is_an_exception() -> None:
    """From here on it raises `KeyboardInterrupt` again, as Python has it."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: Any) -> None:
    if "--json" in sys.argv:
        os.write(1, b'{\n  "error": "interrupted"\n}\n')
    os.write(2, b"interrupted\n")
    os._exit(130)
