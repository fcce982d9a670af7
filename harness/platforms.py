"""Where capsbench runs: Linux and macOS. Imports nothing, so that everywhere else it can say so."""

from __future__ import annotations

import sys


def refusal(platform: str) -> str | None:
    """What to do instead on an operating system without the parts of POSIX that capsbench needs; None on the others."""
    if platform in ("win32", "cygwin", "msys"):
        return "Windows itself is not supported: install capsbench within WSL (wsl --install, then pip install in its shell)"
    if platform in ("emscripten", "wasi"):
        return "it starts processes, which a browser does not allow: install it on Linux or macOS"
    return None


def require() -> None:
    """Ends the process with exit code 2 and one sentence where capsbench cannot run."""
    if message := refusal(sys.platform):
        sys.stderr.write(f"capsbench: {message}\n")
        sys.exit(2)
