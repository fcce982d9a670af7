"""Questions that only PyTorch can answer: see `harness.spec.device.Device`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def environment(threads: int, precision: str, gpu: bool) -> dict[str, str | None]:
    return {"THP_MEM_ALLOC_ENABLE": "1"}  # huge pages in PyTorch's own allocator


def keep_compiled(folder: str) -> dict[str, str | None]:
    return {}  # on a CPU it is fast to start; Inductor keeps a cache of its own


def without_gpu() -> str | None:
    version = _source("torch", "version.py")
    if not re.search(r"^cuda\b[^=]*= *None", version, re.MULTILINE):
        return None
    rocm = re.search(r"^(hip|rocm)\b[^=]*= *['\"]", version, re.MULTILINE)
    return None if rocm else "the PyTorch installed here was built without CUDA"


def gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def product(a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
    import torch

    dtype = {"fp64": torch.float64, "bf16": torch.bfloat16}.get(precision, torch.float32)
    left = torch.tensor(a, device="cuda" if gpu else "cpu", dtype=dtype)
    right, out = left.T.contiguous(), torch.empty_like(left)

    def run() -> None:
        torch.mm(left, right, out=out)
        if gpu:
            torch.cuda.synchronize()

    return run


def copy(count: int) -> Callable[[], None]:
    import torch

    source = torch.zeros(count, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def run() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    return run


def _source(package: str, *parts: str) -> str:
    """The text of a package's file, without importing the package; empty if there is none."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder, *parts)).is_file():
            return path.read_text(errors="replace")
    return ""
