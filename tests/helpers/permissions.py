"""Folders that may only be read, also by root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


def bound() -> list[str]:
    """What to put before a command so that permissions apply to it: root is made to give up passing over them."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv here")
    capabilities = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]


@contextmanager
def only_to_be_read(folder: Path) -> Generator[None]:
    """Takes the permission to write from a folder and all in it, until the end of the block."""
    everything = [folder, *folder.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield
    for path in everything:
        path.chmod(0o755 if path.is_dir() else 0o644)
