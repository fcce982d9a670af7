"""What a file is, by its first bytes: for messages that say what was found where something else was expected."""

from __future__ import annotations

import re
import struct
from pathlib import Path

HEAD_BYTES = 1024  # enough for `kind`

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded; `git lfs pull` fetches it"),
    (b"/annex/objects", "a git-annex pointer: the file itself was not downloaded; `git annex get` fetches it"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"7z\xbc\xaf'\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\x93NUMPY", "a NumPy array (NPY)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"MATLAB 7.3 MAT-file", "a MATLAB file of version 7.3 (HDF5)"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file of version 5"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_IDX_TYPES = {0x08: "bytes", 0x09: "signed bytes", 0x0B: "shorts", 0x0C: "ints", 0x0D: "floats", 0x0E: "doubles"}


def kind(head: bytes) -> str | None:
    """What a file that starts with `head` is, in words: "an HTML page"; None for what is not recognised."""
    if not head:
        return "an empty file"
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "a NumPy archive (NPZ)" if b".npy" in head[:128] else "a zip archive"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head[4:8] == b"ftyp":
        return "an AVIF picture" if head[8:12] in (b"avif", b"avis") else "a HEIC picture or an MP4 video"
    if head.startswith(b"BM") and len(head) > 14 and head[6:10] == b"\0\0\0\0":
        return "a BMP picture"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _IDX_TYPES and 1 <= head[3] <= 8:
        return f"an IDX file of {_IDX_TYPES[head[2]]}"
    if _PICKLE.match(head):
        return "a Python pickle"
    if not head.strip(b"\0"):
        return "a file of zero bytes only: a download that was cut off leaves such a file"
    return _text(head)


def of_file(path: Path) -> str | None:
    """`kind` of the file at `path`; None if it is not recognised or cannot be read."""
    try:
        with path.open("rb") as file:
            return kind(file.read(HEAD_BYTES))
    except OSError:
        return None


def wrong_length(content: bytes) -> str | None:
    """How much too long or too short an IDX file is, by its own header; None if that is as it should be, or not IDX."""
    if (kind(content[:HEAD_BYTES]) or "").partition(" of ")[0] != "an IDX file":
        return None
    start = 4 + 4 * content[3]
    if len(content) < start:
        return f"truncated in its header, after {len(content)} of {start} bytes"
    expected = start + {0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}.get(content[2], 1)
    sizes = struct.unpack_from(f">{content[3]}I", content, 4)
    count = 1
    for size in sizes:
        count *= size
    expected = start + count * (expected - start)
    if len(content) == expected:
        return None
    if (over := len(content) - expected) > 0:
        return f"{over:,} byte{'s' * (over > 1)} too long: {len(content):,} instead of {expected:,}"
    return f"truncated: {len(content):,} of {expected:,} bytes"


def _text(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in start:
        return "an HTML page: what a download gives that ended at a login, consent or error page"
    if start.startswith(b"<?xml"):
        return "an XML document (SVG pictures are such)" if b"<svg" in head.lower() else "an XML document"
    if start.startswith(b"<svg"):
        return "an SVG picture"
    if b"\0" in head:
        return None
    try:
        head[: HEAD_BYTES - 8].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 12:  # otherwise the head ends within a letter
            return None
    return "JSON text" if start.startswith((b"{", b"[")) else "text"
