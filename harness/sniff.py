"""What a file really is, by its first bytes: for messages about a file that is not what it should be."""

from __future__ import annotations

import json
import re
import stat
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

_ENOUGH = 4096
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstandard file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and h5py write them"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file of version 5"),
    (b"MATLAB 7.3 MAT-file", "a MATLAB file of version 7.3"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "a Linux program or library"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"GGUF", "a GGUF model"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
_IDX_TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_PYTORCH_MEMBERS = ("data.pkl", "constants.pkl")
_ENTITY_TAG = re.compile(rb"<\?xml[^>]*\?>\s*<Error>|<Error>\s*<Code>")


def what_is(path: Path) -> str:
    """The file in a few words, such as "an HTML page", "a Git LFS pointer", "a PyTorch file", "an empty file".

    For what is no regular file: "a folder", "nothing (there is no such file)", "a link to X, which does not exist" and so
    on. Raises nothing.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return _special(mode)
        with path.open("rb") as file:
            head = file.read(_ENOUGH)
    except FileNotFoundError:
        return _absent(path)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror or error})"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zipped(path)
    return what_are(head, path.stat().st_size)


def what_are(head: bytes, size: int | None = None) -> str:
    """The same of a file's first bytes; `size` is the whole file's, if they are not all of it."""
    size = len(head) if size is None else size
    if not size:
        return "an empty file"
    if not head.strip(b"\x00"):
        return "nothing but zero bytes, as a broken download or a full disk leaves"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "a zip archive"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "a BMP picture"
    found = _safetensors(head, size) or _idx(head) or _pickle(head) or _text(head, is_whole=size <= len(head))
    return found or "binary data of an unknown kind"


def remedy(found: str) -> str | None:
    """What to do about a file that is `found`, in the words of `what_is`, whatever it should be; None: not known."""
    for begin, advice in {
        "a Git LFS pointer": "fetch the file itself: git lfs pull",
        "a DVC pointer": "fetch the file itself: dvc pull",
        "an HTML page": "download it again: the server sent a page, such as a login or an error, instead of the file",
        "an error from a cloud storage": "download it again, from an address that serves the file",
        "an empty file": "download or copy it again",
        "nothing but zero bytes": "download or copy it again",
        "UTF-16 text": "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
        "a gzip file": "uncompress it first (gunzip)",
        "a link to": "correct the link, or give the file itself",
    }.items():
        if found.startswith(begin):
            return advice
    return None


def _special(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def _absent(path: Path) -> str:
    if path.is_symlink():
        with suppress(OSError):
            return f"a link to {path.readlink()}, which does not exist"
    return "nothing (there is no such file)"


def _zipped(path: Path) -> str:
    """Many formats are zip archives: their members tell which."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return "a zip archive that is cut short or damaged"
    last = {name.rpartition("/")[2] for name in names}
    if last & {*_PYTORCH_MEMBERS}:
        return "a PyTorch file"
    if "model.weights.h5" in last:
        return "a Keras model (.keras)"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)"
    return "a zip archive"


def _safetensors(head: bytes, size: int) -> str | None:
    length = int.from_bytes(head[:8], "little")
    if size < 10 or head[8:9] != b"{" or not 2 <= length <= size - 8:
        return None
    with suppress(ValueError, RecursionError):
        header: Any = json.loads(head[8 : 8 + length]) if length <= len(head) - 8 else {}
        return "a safetensors file" if isinstance(header, dict) else None
    return None


def _idx(head: bytes) -> str | None:
    if head[:2] != b"\x00\x00" or len(head) < 8 or head[2] not in _IDX_TYPES or not 1 <= head[3] <= 4:
        return None
    return f"an IDX file of {_IDX_TYPES[head[2]]}, {head[3]}-dimensional"


def _pickle(head: bytes) -> str | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        old = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of torch.save before version 1.6
        return "a PyTorch file of an old format" if old in head[:32] else "a Python pickle"
    return None


def _text(head: bytes, is_whole: bool) -> str | None:
    plain = head.removeprefix(b"\xef\xbb\xbf")
    begin = plain.lstrip()[:1024]
    if begin.startswith(b"version https://git-lfs.github.com"):
        return "a Git LFS pointer"
    if re.match(rb"outs:\s*-\s*(md5|hash):", begin):
        return "a DVC pointer"
    if re.match(rb"(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b", begin, re.IGNORECASE | re.DOTALL):
        return "an HTML page"
    if _ENTITY_TAG.match(begin):
        return "an error from a cloud storage, in XML"
    if begin.startswith(b"<?xml"):
        return "an XML document"
    if _is_utf16(plain):
        return "UTF-16 text"
    try:
        text = plain.decode()
    except UnicodeDecodeError as error:
        if is_whole or error.start < len(plain) - 4:  # else a character was cut by the end of what was read
            return None
        text = plain[: error.start].decode()
    if any(ord(each) < 32 and each not in "\t\n\r\f\v\b\x1b" for each in text):
        return None
    return _structured(text, is_whole)


def _is_utf16(plain: bytes) -> bool:
    """Whether it is UTF-16 without a mark: of Latin letters, every other byte is zero."""
    halves = plain[0::2], plain[1::2]
    zero = sorted(half.count(0) / max(1, len(half)) for half in halves)
    return zero[0] < 0.1 and zero[1] > 0.7 and not any(1 <= each < 9 for each in plain)


def _structured(text: str, is_whole: bool) -> str:
    stripped = text.strip()
    first, _, more = stripped.partition("\n")
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(stripped), dict | list):
            return "a JSON document"
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(first), dict) and more:
            return "lines of JSON"
    if re.match(r'[\[{]\s*["{\[]', stripped):
        return "a JSON document, cut short or damaged" if is_whole else "a JSON document"
    return "text"
