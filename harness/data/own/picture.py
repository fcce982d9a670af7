"""One picture file: what it is without decoding it, and its pixels. The only module that decodes picture files."""

from __future__ import annotations

import importlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.own.pixels import grey
from harness.errors import UserError
from harness.sniff import UNKNOWN, what_are, with_remedy

if TYPE_CHECKING:
    from jaxtyping import UInt8

SUFFIXES = frozenset((".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff"))
OTHER_SUFFIXES = frozenset(
    (".gif", ".webp", ".heic", ".heif", ".avif", ".svg", ".ppm", ".pgm", ".pnm", ".jp2", ".jxl", ".ico", ".tga", ".psd")
)
"""Pictures of kinds that are not read."""
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF")
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
_SIDEWAYS = range(5, 9)  # EXIF orientations that exchange height and width
_ORIENTATION = 0x0112
_MAX_PIXELS = 100_000_000  # of one picture: decoded, it takes three bytes each


class Broken(Exception):
    """Why a picture cannot be used."""


@dataclass(frozen=True)
class Header:
    """What a file says of its picture."""

    size: tuple[int, int]  # height and width, as shown
    is_grey: bool
    notes: tuple[str, ...]  # what happens to it: "transparent parts are laid over black"


def require_pillow() -> None:
    """Raises `UserError` if Pillow is not installed."""
    if importlib.util.find_spec("PIL") is None:
        raise UserError("pictures are read with Pillow, which is not installed: pip install pillow")


def header(path: Path) -> Header:
    """Size and mode, from the head of the file. Raises `Broken`."""
    with _opened(path) as picture:
        height, width = picture.height, picture.width
        if height * width > _MAX_PIXELS:
            raise Broken(f"{height:,} x {width:,} pixels; at most {_MAX_PIXELS:,} in all")
        if picture.format != "TIFF" and _orientation(picture) in _SIDEWAYS:  # Pillow turns a TIFF file's size itself
            height, width = width, height
        return Header((height, width), picture.mode in _GREY or _is_grey_palette(picture), tuple(_notes(picture)))


def decoded(content: bytes, path: Path, channels: int) -> UInt8[np.ndarray, "H W C"]:
    """The pixels, upright. Raises `Broken` for a file that ends early or cannot be decoded.

    A palette is resolved, transparency is laid over black, CMYK and others become RGB; 16 bits are divided by 257.
    """
    operations: Any = importlib.import_module("PIL.ImageOps")
    with _opened(path, content) as opened:
        picture: Any = operations.exif_transpose(opened)
        if picture.mode == "F" or picture.mode.startswith("I"):
            values = _eight_bits(np.asarray(picture))
            return np.repeat(values[..., np.newaxis], channels, axis=2)
        if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
            picture = _over_black(picture.convert("RGBA"))
        if picture.mode in ("1", "L"):
            values = np.asarray(picture.convert("L"))[..., np.newaxis]
            return np.repeat(values, channels, axis=2) if channels == 3 else values
        colours = np.asarray(picture.convert("RGB"))
        return colours if channels == 3 else grey(colours)


class _opened:
    """Opens a picture; whatever Pillow raises until it is closed becomes `Broken`."""

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self._path, self._content = path, content
        self._picture: Any = None

    def __enter__(self) -> Any:
        pillow: Any = importlib.import_module("PIL.Image")
        try:
            file = self._path if self._content is None else io.BytesIO(self._content)
            self._picture = pillow.open(file, formats=_FORMATS)
            frames = getattr(self._picture, "n_frames", 1)
        except Exception as error:
            raise Broken(self._reason(error)) from None
        if frames > 1 and self._picture.format != "MPO":
            self._picture.close()
            raise Broken(f"{frames} pictures in one file, an animation or several pages; keep one of them")
        return self._picture

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._picture is not None:
            self._picture.close()
        if isinstance(error, Exception) and not isinstance(error, Broken):
            raise Broken(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        try:
            content = self._path.read_bytes() if self._content is None else self._content
        except OSError as unreadable:
            return f"cannot be read ({unreadable.strerror or unreadable})"
        what = what_are(content)
        found = with_remedy(what) if what != UNKNOWN else None
        said = " ".join(str(error).split())[:150]
        if type(error).__name__ == "UnidentifiedImageError":
            if what.endswith(" picture"):
                return f"{what} that is damaged" if what.split()[1] in _FORMATS else f"{what} (convert it to PNG)"
            return found or "not a PNG, JPEG, BMP or TIFF picture"
        if "truncated" in said or "broken data stream" in said or isinstance(error, (EOFError, SyntaxError)):
            return f"{found or 'a picture'} that ends early or is damaged ({said or type(error).__name__})"
        return f"{found or 'a picture'} that cannot be decoded ({said or type(error).__name__})"


def _orientation(picture: Any) -> int:
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # asking a PNG file would decode it
    return int(picture.getexif().get(_ORIENTATION, 1))


def _is_grey_palette(picture: Any) -> bool:
    if picture.mode != "P" or picture.palette is None:
        return False
    colours = np.array(picture.getpalette("RGB"), np.uint8)
    triples = colours[: len(colours) // 3 * 3].reshape(-1, 3)
    return bool((triples == triples[:, :1]).all())


def _notes(picture: Any) -> list[str]:
    found: list[str] = []
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        found.append("with transparency, laid over black")
    if picture.mode == "CMYK":
        found.append("in CMYK, turned into RGB without a colour profile")
    if picture.mode.startswith("I"):
        found.append("of 16 bits, divided by 257")
    if picture.mode == "F":
        found.append("of floating-point numbers")
    if _orientation(picture) not in (0, 1):
        found.append("turned upright as their EXIF data say")
    return found


def _eight_bits(values: np.ndarray) -> UInt8[np.ndarray, "H W"]:
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(values * 255.0).astype(np.uint8)
    if values.dtype.kind == "f" and not (low >= 0 and high <= 255):
        raise Broken(f"floating-point pixels from {low:g} to {high:g}; expected 0 to 1, or 0 to 255")
    if values.dtype.kind == "f":
        return np.rint(values).astype(np.uint8)
    if low < 0 or high > 65_535:
        raise Broken(f"pixels from {low:,.0f} to {high:,.0f}; expected at most 16 bits, 0 to 65,535")
    return np.rint(values / 257.0).astype(np.uint8)


def _over_black(picture: Any) -> Any:
    pillow: Any = importlib.import_module("PIL.Image")
    under = pillow.new("RGBA", picture.size, (0, 0, 0, 255))
    return pillow.alpha_composite(under, picture).convert("RGB")
