"""What the bench may know about fifthlib before importing it, and what only fifthlib can answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PACKAGES = ("fifthlib", "fifthcaps")
INSTALL = "pip install fifthcaps[fast]"
DEVICES = ("cpu",)
DISTRIBUTIONS = ("fifthlib", "fifthcaps")
SHORT_NAME = "5th"
COLOR = "#123ABC"
SLOW_START = 3
OUT_OF_MEMORY = ("HeapFull",)


@dataclass(frozen=True)
class Engine:
    version: str

    def __str__(self) -> str:
        return f"Engine {self.version}"


def environment(threads: int, precision: str, gpu: bool) -> dict[str, str | None]:
    return {"FIFTH_THREADS": str(threads), "FIFTH_STALE": None}


def gpus() -> list[str]:
    import fifthlib

    return [str(Engine(fifthlib.__version__))]


def product(a: Any, precision: str, gpu: bool) -> Callable[[], None]:
    b = a.T.copy()

    def run() -> None:
        _ = a @ b

    return run
