"""Many picture files: their headers, their common size, and their pixels, decoded on all cores."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from harness.data.base import Split
from harness.data.frame import framed, resized
from harness.data.own.picture import Broken, Header, decoded, header
from harness.errors import UserError
from harness.spec.trial import DataConfig

_TOLD = 8  # broken pictures that are named
_BLOCK = 256  # pictures given at a time


def headers_of(pictures: Sequence[Path]) -> list[Header]:
    """The header of every picture. Raises `UserError` naming those that are broken."""
    found: list[Header] = []
    broken: list[str] = []
    for each in pictures:
        try:
            found.append(header(each))
        except Broken as error:
            broken.append(f"{each}: {error}")
    _refuse(broken, len(pictures))
    return found


def _refuse(broken: Sequence[str], of: int) -> None:
    if broken:
        more = f"\nand {len(broken) - _TOLD} more" if len(broken) > _TOLD else ""
        raise UserError(
            "\n".join(broken[:_TOLD])
            + more
            + f"\n{len(broken):,} of {of:,} pictures cannot be used. Mend them, or take them out of the folder."
        )


def common_size(pictures: Sequence[Path], headers: Sequence[Header], config: DataConfig) -> tuple[int, int]:
    """Height and width of the pictures. Raises `UserError` if they differ and are not scaled to one size."""
    sizes = Counter(each.size for each in headers)
    if len(sizes) == 1 or config.resize is not None:
        return headers[0].size
    most, _ = sizes.most_common(1)[0]
    said = ", ".join(f"{size[0]}x{size[1]} ({count:,})" for size, count in sizes.most_common(4))
    odd = next(each for each, head in zip(pictures, headers, strict=True) if head.size != most)
    raise UserError(
        f"data.resize: the pictures have {len(sizes):,} different sizes: {said}{', ...' if len(sizes) > 4 else ''}; one of "
        f"them is {odd}. Give a size that all are scaled to, such as data.resize: 32 (data.fit: crop or pad "
        "keeps the proportions)"
    )


def in_parallel(
    pictures: Sequence[Path], labels: Sequence[int], image: tuple[int, int, int], config: DataConfig
) -> Iterator[Split]:
    """The pictures with their labels, decoded on all cores, in order, as `image` says.

    Raises `UserError` naming those that are broken, after all were tried.
    """

    def pixels(path: Path) -> np.ndarray | str:
        try:
            found = decoded(path.read_bytes(), path, image[2])
            if config.resize is not None:
                found = resized(found, config)
            found = framed(found[np.newaxis], config)[0]
        except (Broken, UserError) as error:
            return f"{path}: {error}"
        except OSError as error:
            return f"{path}: cannot be read ({error.strerror or error})"
        return found if found.shape == image else f"{path}: its header gives another size than its pixels have"

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    broken: list[str] = []
    ready: list[np.ndarray] = []
    known: list[int] = []
    with ThreadPoolExecutor(cores) as pool:
        under_way: deque[tuple[Future[np.ndarray | str], int]] = deque()
        following = iter(zip(pictures, labels, strict=True))
        while True:
            while len(under_way) < 4 * cores and (each := next(following, None)) is not None:
                under_way.append((pool.submit(pixels, each[0]), each[1]))
            if not under_way:
                break
            task, label = under_way.popleft()
            found = task.result()
            if isinstance(found, str):
                broken.append(found)
            if broken or isinstance(found, str):
                ready, known = [], []  # only what is wrong matters now
                continue
            ready.append(found)
            known.append(label)
            if len(ready) == _BLOCK:
                yield Split(np.stack(ready), np.array(known, np.int64))
                ready, known = [], []
    _refuse(broken, len(pictures))
    if ready:
        yield Split(np.stack(ready), np.array(known, np.int64))
