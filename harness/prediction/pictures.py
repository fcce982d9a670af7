"""Pictures on disk: files, folders of files and arrays of images, found first and read one at a time."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from harness.data.files import CorruptFile
from harness.data.idx import parse
from harness.data.own.picture import SUFFIXES, Broken, decoded, header, require_pillow
from harness.data.own.pixels import has_16_bits
from harness.errors import UserError, nearest

_NAMES = ("images", "image", "x_test", "x", "arr_0")
"""Where an .npz archive with several arrays may have its images, best first."""
_IDX = b"\0\0\x08"
_SHOWN = 5  # names in a message


class Unreadable(Exception):
    """Why a picture cannot be read."""


@dataclass(frozen=True)
class Picture:
    """A picture as it was stored: grey (C = 1), colour (C = 3) or, from an array, anything else."""

    pixels: UInt8[np.ndarray, "h w C"]
    notes: tuple[str, ...] = ()  # what was done to read it, if anything was lost or chosen


@dataclass(frozen=True)
class Item:
    """One picture that was found. `read` raises `Unreadable`."""

    name: str
    read: Callable[[], Picture]


def find(paths: Sequence[Path]) -> list[Item]:
    """All pictures in these files and folders, in the order given; folders are walked in the order of their names.

    A file is a PNG, JPEG, BMP or TIFF picture, or an array of images: .npy, .npz or IDX, also gzipped. A picture named
    twice counts once. Raises `UserError` for a path that does not exist, a file that is neither, and a folder without
    pictures.
    """
    items: list[Item] = []
    seen: set[str] = set()
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - which never raises, as `Path.is_dir` may
            files, read = _walked(path), _items_of
        else:
            files, read = [path], _named
        for file in files:
            if (place := os.path.realpath(file)) not in seen:  # nor does this, for links in a circle
                seen.add(place)
                items += read(file)
    return items


def _walked(folder: Path) -> list[Path]:
    """The pictures in a folder and the folders in it; hidden ones are left out."""
    require_pillow()
    found: list[Path] = []
    others: dict[str, int] = {}

    def refused(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=refused):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(each for each in files if not each.startswith(".")):
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES:
                found.append(path)
            else:
                others[path.suffix.lower() or "no suffix"] = others.get(path.suffix.lower() or "no suffix", 0) + 1
    if not found:
        listed = ", ".join(f"{count} of {suffix}" for suffix, count in sorted(others.items())[:_SHOWN])
        holds = f"its files: {listed}" if others else "it is empty"
        raise UserError(f"{folder}: no pictures in this folder ({', '.join(sorted(SUFFIXES))}); {holds}")
    return found


def _named(path: Path) -> list[Item]:
    """The pictures in a file that the user named. Raises `UserError` unless it is one, or an array."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a file but a pipe or a device; expected a picture")
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError as error:
        raise UserError(f"{path}: {_missing(path)}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix.lower() in (".npy", ".npz"):
        return _array_items(path, _loaded)
    if head[:3] == _IDX or (head[:2] == b"\x1f\x8b" and "idx" in path.name):
        return _array_items(path, _idx)
    require_pillow()
    try:
        header(path)
    except Broken as error:
        expected = "expected a PNG, JPEG, BMP or TIFF picture, or an array of images (.npy, .npz, IDX)"
        raise UserError(f"{path}: {error}; {expected}") from error
    return _items_of(path)


def _missing(path: Path) -> str:
    if path.is_symlink():
        return f"a link to {path.readlink()}, which does not exist"
    if not os.path.isdir(path.parent):  # noqa: PTH112
        return f"no such file; there is no folder {path.parent} either"
    return f"no such file{nearest(path.name, [each.name for each in path.parent.iterdir()]).partition(' Valid')[0]}"


def _items_of(path: Path) -> list[Item]:
    return [Item(_shown(path), partial(_picture, path))]


def _shown(path: Path) -> str:
    """The path as text that can be written anywhere: bytes of a name that are not UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _picture(path: Path) -> Picture:
    """The picture, decoded as those that models are trained on."""
    try:
        if not path.is_file() and path.exists():
            raise Unreadable("not a file but a pipe or a device")
        head = header(path)
        return Picture(decoded(path.read_bytes(), path, 1 if head.is_grey else 3), head.notes)
    except (Broken, OSError) as error:
        raise Unreadable(str(error)) from error


# Arrays


def _array_items(path: Path, load: Callable[[Path], tuple[np.ndarray, tuple[str, ...]]]) -> list[Item]:
    images, notes = load(path)
    if not len(images):
        raise UserError(f"{path}: it holds no images, only an array of shape {images.shape}")
    return list(_each(path, images, notes))


def _each(path: Path, images: np.ndarray, notes: tuple[str, ...]) -> Iterator[Item]:
    for index, pixels in enumerate(images):
        yield Item(f"{_shown(path)}[{index}]" if len(images) > 1 else _shown(path), partial(Picture, pixels, notes))


def _idx(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The images of an IDX file. Raises `UserError`."""
    try:
        content = path.read_bytes()
        images = parse(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content, str(path))
    except (OSError, EOFError, CorruptFile) as error:
        raise UserError(str(error) if isinstance(error, CorruptFile) else f"{path}: {error}") from error
    if images.ndim != 3:
        what = "labels, not images" if images.ndim == 1 else f"an array of shape {images.shape}, not images"
        raise UserError(f"{path}: an IDX file of {what}")
    return images[..., None], ()


def _loaded(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The images of a NumPy file as uint8 (N, h, w, C), and what was done to them. Raises `UserError`."""
    try:
        found: Any = np.load(path, allow_pickle=False)
        array: np.ndarray = _of_archive(path, found) if hasattr(found, "files") else found
    except UserError:
        raise
    except Exception as error:  # an archive meets whatever a damaged file holds
        raise UserError(f"{path}: not a readable NumPy file: {' '.join(str(error).split())}") from error
    shaped, arranged = _shaped(path, array)
    images, scaled = _bytes(path, shaped)
    return images, (*arranged, *scaled)


def _of_archive(path: Path, archive: Any) -> np.ndarray:
    with archive:
        names: list[str] = archive.files
        chosen = names[0] if len(names) == 1 else next((name for name in _NAMES if name in names), None)
        if chosen is None:
            raise UserError(
                f"{path}: which of its arrays are the images? It has {', '.join(names) or 'none'}; "
                f"expected a single one, or one named {', '.join(_NAMES)}"
            )
        return archive[chosen]


def _shaped(path: Path, array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N, h, w, C), from (h, w), (N, h, w), (h, w, C) with C of 1 or 3, (N, h, w, C) or, as in training, (N, C, h, w)."""
    if array.ndim == 2:
        return array[None, ..., None], ()
    if array.ndim == 3 and array.shape[2] in (1, 3):
        return array[None], ()
    if array.ndim == 3:
        return array[..., None], ()
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        return np.moveaxis(array, 1, -1), ("channels came first; they were put last",)
    if array.ndim == 4:
        return array, ()
    raise UserError(
        f"{path}: an array of shape {array.shape}; expected images of shape (N, height, width) or "
        "(N, height, width, channels), or a single one"
    )


def _bytes(path: Path, images: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels as uint8: whole numbers of 0 to 255 as they are, fractions of 0 to 1 times 255, 16 bits as in training."""
    if images.dtype == np.uint8 or not images.size:
        return images.astype(np.uint8, copy=False), ()
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255), ()
    if not np.issubdtype(images.dtype, np.number) or np.iscomplexobj(images):
        raise UserError(f"{path}: an array of {images.dtype}; expected numbers, such as uint8")
    low, high = float(images.min()), float(images.max())
    whole = np.issubdtype(images.dtype, np.integer)
    if whole and 0 <= low <= high <= 255:
        return images.astype(np.uint8), ()
    if not whole and 0 <= low <= high <= 1:
        return np.rint(images * 255).astype(np.uint8), ()
    if not whole and 0 <= low <= high <= 255 and high > 2 and (images == np.rint(images)).all():
        return images.astype(np.uint8), ()
    if whole and 0 <= low <= high <= 65_535 and has_16_bits([images], high):
        return np.rint(images / 257).astype(np.uint8), ("16-bit pixels were divided by 257 to 0..255",)
    raise UserError(
        f"{path}: {images.dtype} values from {low:g} to {high:g}; expected whole numbers of 0 to 255, fractions of 0 to 1, or "
        "16-bit whole numbers"
    )
