"""Who holds what another process needs: the process that listens on a port, or that has a file open."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_LISTENS = "0A"  # the state of a listening socket in /proc/net/tcp
_LENGTH = 60


def listening(port: int) -> str | None:
    """The process that listens on this port of this machine: "process 123 (python -m http.server)"; None if unknown."""
    if not Path("/proc/net/tcp").exists():
        return _lsof(f"-iTCP:{port}", "-sTCP:LISTEN")
    inodes = {inode for name in ("tcp", "tcp6") for inode in _inodes(Path("/proc/net") / name, port)}
    return _process(lambda target: target in {f"socket:[{inode}]" for inode in inodes}) if inodes else None


def holding(path: Path) -> str | None:
    """Another process that has this file open; None if unknown."""
    if not Path("/proc/self/fd").exists():
        return _lsof("--", str(path))
    real = str(path.resolve())
    return _process(lambda target: target == real)


def _inodes(table: Path, port: int) -> Iterator[str]:
    with suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _process(has: Callable[[str], bool]) -> str | None:
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        with suppress(OSError):  # another user's process, or one that has just ended
            if any(has(str(handle.readlink())) for handle in (folder / "fd").iterdir()):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                return _named(folder.name, " ".join([Path(words[0]).name, *words[1:]]))
    return None


def _lsof(*arguments: str) -> str | None:
    """The same where there is no /proc, as on macOS."""
    if (tool := shutil.which("lsof")) is None:
        return None
    with suppress(OSError, subprocess.TimeoutExpired):
        found = subprocess.run(
            [tool, "-nP", "-Fpc", *arguments], capture_output=True, text=True, timeout=5, check=False
        )
        for number, command in re.findall(r"^p(\d+)\nc(.*)$", found.stdout, re.MULTILINE):
            if int(number) != os.getpid():
                return _named(number, command)
    return None


def _named(number: str, command: str) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in command).strip()
    text = re.sub(r"(://[^/@:]*):[^/\s]*@", r"\1:***@", text)
    return f"process {number} ({text if len(text) <= _LENGTH else f'{text[:_LENGTH]}...'})"
