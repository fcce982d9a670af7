"""What a file really is, by its content, and what to do about it: for messages about a file that is not what it should be.

All formats are known here, whoever reads them: those of suites, journals, weights, data sets and pictures.
"""

from __future__ import annotations

import json
import re
import stat
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

UNKNOWN = "binary data of an unknown kind"
"""What is said of a file that is not recognised: it may be anything."""
_ENOUGH = 4096
_ZEROS = "nothing but zero bytes, as a broken download or a full disk leaves"
_DAMAGED = "that is cut short or damaged"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
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
    (b"GIF87a", "a GIF picture"),
    (b"GIF89a", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"II+\x00", "a TIFF picture"),  # BigTIFF
    (b"MM\x00+", "a TIFF picture"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"8BPS\x00", "a Photoshop picture"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "a Linux program or library"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"GGUF", "a GGUF model"),
    (b"\xff\xfe\x00\x00", "UTF-32 text"),
    (b"\x00\x00\xfe\xff", "UTF-32 text"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "a HEIC picture"),
}
"""What MP4's kind of file may hold but films."""
_IDX_TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_PYTORCH_MEMBERS = ("data.pkl", "constants.pkl")
_PNM = re.compile(rb"P[1-6]\s(\s|#[^\n]*\n)*\d+\s+\d+\s")
_PROLOGUE = re.compile(rb"(<\?xml[^>]*\?>|<!--.*?-->|\s)+", re.DOTALL)
_HTML = re.compile(rb"<(!doctype\s+html|html|head|body|title|meta|script)\b", re.IGNORECASE)
_SVG = re.compile(rb"<(!doctype\s+svg|svg|svg:svg)\b", re.IGNORECASE)
_REMEDIES = {
    "a Git LFS pointer": "fetch the file itself: git lfs pull",
    "a DVC pointer": "fetch the file itself: dvc pull",
    "a git-annex pointer": "fetch the file itself: git annex get",
    "an HTML page": "download it again: the server sent a page, such as a login or an error, instead of the file",
    "an error from a cloud storage": "download it again, from an address that serves the file",
    "an empty file": "download or copy it again",
    "nothing but zero bytes": "download or copy it again",
    "UTF-16 text": "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    "UTF-32 text": "save it as UTF-8 (iconv -f UTF-32 -t UTF-8)",
    "a gzip file": "uncompress it first (gunzip)",
    "a bzip2 file": "uncompress it first (bunzip2)",
    "an xz file": "uncompress it first (unxz)",
    "a zstandard file": "uncompress it first (unzstd)",
    "a MATLAB file of version 7.3": "in MATLAB, save it with -v7",
    "a link to": "correct the link, or give the file itself",
}


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
            if head and not head.strip(b"\x00"):
                return _ZEROS if _is_zero(file) else UNKNOWN
    except FileNotFoundError:
        return _absent(path)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror or error})"
    if head.startswith(_ZIP):
        return _zipped(path, head)
    return what_are(head, path.stat().st_size)


def what_are(content: bytes, size: int | None = None) -> str:
    """The same of a file's bytes, or its first 4096; `size` is the whole file's, if they are not all of it."""
    size = len(content) if size is None else size
    head = content[:_ENOUGH]
    if not size:
        return "an empty file"
    if not head.strip(b"\x00"):
        return _ZEROS if size == len(content) and not content.strip(b"\x00") else UNKNOWN
    if _is_safetensors(head, size):  # before all others: it begins with a number, which may look like any of them
        return "a safetensors file"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith(_ZIP):
        return _first_zipped(head)
    if head[257:262] == b"ustar":
        return "a tar archive"
    found = _idx(head) or _pickle(head) or _picture(head) or _text(head, is_whole=size <= len(head))
    return found or UNKNOWN


def remedy(found: str) -> str | None:
    """What to do about a file that is `found`, in the words of `what_is`, whatever it should be; None: not known."""
    if found.startswith("a link to") and "annex/objects/" in found:  # its content was not fetched
        return _REMEDIES["a git-annex pointer"]
    if found.endswith(_DAMAGED):
        return "download or copy it again"
    return next((advice for begin, advice in _REMEDIES.items() if found.startswith(begin)), None)


def with_remedy(found: str) -> str:
    """`found`, and in brackets what to do about it, if that is known: "a DVC pointer (fetch the file itself: dvc pull)"."""
    advice = remedy(found)
    return f"{found} ({advice})" if advice else found


def _is_zero(file: BinaryIO) -> bool:
    """Whether all that follows is zero: some formats only begin so."""
    while piece := file.read(1 << 20):
        if piece.count(0) < len(piece):
            return False
    return True


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


def _zipped(path: Path, head: bytes) -> str:
    """Many formats are zip archives: their members tell which."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return f"{_first_zipped(head)} {_DAMAGED}"
    last = {name.rpartition("/")[2] for name in names}
    if last & {*_PYTORCH_MEMBERS}:
        return "a PyTorch file"
    if "model.weights.h5" in last:
        return "a Keras model (.keras)"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)"
    return "a zip archive"


def _first_zipped(head: bytes) -> str:
    """The same by the first member's name, which is in its header."""
    length = int.from_bytes(head[26:28], "little")
    name = head[30 : 30 + length].rpartition(b"/")[2].decode("latin-1")
    if name in _PYTORCH_MEMBERS:
        return "a PyTorch file"
    return "a NumPy archive (.npz)" if name.endswith(".npy") else "a zip archive"


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    if size < 10 or head[8:9] != b"{" or not 2 <= length <= size - 8:
        return False
    with suppress(ValueError, RecursionError):
        header: Any = json.loads(head[8 : 8 + length]) if length <= len(head) - 8 else {}
        return isinstance(header, dict)
    return False


def _idx(head: bytes) -> str | None:
    if head[:2] != b"\x00\x00" or len(head) < 4 or head[2] not in _IDX_TYPES or not 1 <= head[3] <= 8:
        return None
    return f"an IDX file of {_IDX_TYPES[head[2]]}, {head[3]}-dimensional"


def _pickle(head: bytes) -> str | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        old = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of torch.save before version 1.6
        return "a PyTorch file of an old format" if old in head[:32] else "a Python pickle"
    return None


def _picture(head: bytes) -> str | None:
    """Pictures, and films, of which not only the first bytes tell."""
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "a BMP picture"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head.startswith(b"\x00\x00\x01\x00") and head[4:5] != b"\x00" and head[5:6] + head[9:10] == bytes(2):
        return "an ICO picture"
    if _PNM.match(head):
        return "a PNM picture"
    if head[4:8] != b"ftyp":
        return None
    brands = [head[at : at + 4] for at in range(8, min(len(head), int.from_bytes(head[:4], "big")), 4)]
    other = "a HEIC picture" if {b"mif1", b"msf1"} & {*brands} else "an MP4 film or the like"
    return next((_BRANDS[each] for each in brands if each in _BRANDS), other)


def _text(head: bytes, is_whole: bool) -> str | None:
    plain = head.removeprefix(b"\xef\xbb\xbf")
    begin = plain.lstrip()[:1024]
    if begin.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if re.match(rb"outs:\s*-\s*(md5|hash):", begin):
        return "a DVC pointer"
    if re.match(rb"(\.\./)*(\.git)?/annex/objects/", begin):
        return "a git-annex pointer"
    if markup := _markup(begin):
        return markup
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


def _markup(begin: bytes) -> str | None:
    prologue = _PROLOGUE.match(begin)
    root = begin[prologue.end() :] if prologue else begin
    if _HTML.match(root):
        return "an HTML page"
    if _SVG.match(root):
        return "an SVG picture"
    if re.match(rb"<Error>\s*<Code>", root) or (begin.startswith(b"<?xml") and root.startswith(b"<Error>")):
        return "an error from a cloud storage, in XML"
    return "an XML document" if begin.startswith(b"<?xml") else None


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
