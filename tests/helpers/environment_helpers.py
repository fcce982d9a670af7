"""Environments that cost nothing: a second interpreter with the packages of this one."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

_HIDING = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "{name}" else super().find_spec(name, path, target)

sys.meta_path[:] = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""


def bare(folder: Path) -> str:
    """The interpreter of an environment in which nothing is installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder / "bin" / "python")


def light(folder: Path, hide: str = "", sitecustomize: str = "") -> str:
    """One with the packages of this one, without the package `hide`; `sitecustomize` runs when it starts."""
    python = bare(folder)
    site = next((folder / "lib").glob("python*/site-packages"))
    ours = [path for path in sys.path if Path(path).name == "site-packages"] or [sysconfig.get_path("purelib")]
    (site / "ours.pth").write_text("\n".join(ours) + "\n")
    custom = _HIDING.format(name=hide) if hide else sitecustomize.replace("PLACE", repr(str(_harness())))
    if custom:
        (site / "custom.pth").write_text("import its_custom\n")
        (site / "its_custom.py").write_text(custom)
    return python


def _harness() -> Path:
    return Path(__file__).resolve().parents[2] / "harness"
