"""A safetensors file by hand: what is wrong with one that the library refuses, and numbers that NumPy has no type for."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from harness.sniff import UNKNOWN, what_is
from harness.spec import Weights

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_LONGEST = 100_000_000  # bytes of a header, the library's own limit


def flaw(path: Path) -> str | None:
    """What the file is instead, or by how many bytes it is too long or too short; None: neither."""
    found = what_is(path)
    size = path.stat().st_size
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        header, begin = _header(path)
        end = begin + max(
            (each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"), default=0
        )
        if size != end:
            return f"it is {_bytes(size - end)} too long" if size > end else f"it is {_bytes(end - size)} too short"
    return None if found in ("a safetensors file", UNKNOWN) else f"it is {found}"


def load_widened(path: Path) -> Weights:
    """The tensors of an intact file, each in float32, or float64 as it is; bfloat16 and float16 fit into float32 exactly.

    Raises `KeyError` for other types.
    """
    header, begin = _header(path)
    body = np.fromfile(path, np.uint8, offset=begin)
    weights: Weights = {}
    for name, each in header.items():
        if name != "__metadata__":
            first, last = each["data_offsets"]
            values = np.frombuffer(body[first:last].tobytes(), _TYPES[each["dtype"]])
            if each["dtype"] == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            weights[name] = values.reshape(each["shape"]).astype(np.promote_types(values.dtype, np.float32), copy=False)
    return weights


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Name -> dtype, shape, and place of the bytes; and where the bytes begin. Raises `ValueError` if there is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST:
            raise ValueError("no header")
        return json.loads(file.read(length)), 8 + length


def _bytes(count: int) -> str:
    return f"{count:,} byte{'s' if count > 1 else ''}"
