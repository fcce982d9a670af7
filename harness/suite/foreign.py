"""What a file is that was given for a suite and is none, by its first bytes."""

from __future__ import annotations

import re

_SIGNS = {
    "UTF-16 text": rb"\xff\xfe|\xfe\xff|(?:[^\x00]\x00){4}|(?:\x00[^\x00]){4}",
    "an HTML page": rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b",
    "an XML document": rb"(?:\xef\xbb\xbf)?\s*<\?xml",
    "a Git LFS pointer": rb"version https://git-lfs",
    "a zip archive": rb"PK\x03\x04",
    "a gzip file": rb"\x1f\x8b",
    "a picture": rb"\x89PNG|\xff\xd8\xff|GIF8|II\*\x00|MM\x00\*",
    "an HDF5 file": rb"\x89HDF",
    "a NumPy array (.npy)": rb"\x93NUMPY",
    "an SQLite database": rb"SQLite format 3",
    "a PDF document": rb"%PDF",
    "a program": rb"\x7fELF",
    "a Python pickle": rb"\x80[\x02-\x05]",
    "a safetensors file": rb".{5}\x00{3}\{",
}
_REMEDIES = {
    "UTF-16 text": "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    "an HTML page": "download it again: the server sent a page instead of the file",
    "a Git LFS pointer": "fetch the file itself: git lfs pull",
    "a gzip file": "uncompress it first (gunzip)",
}


def what_are(head: bytes) -> str:
    """The first bytes of a file in a few words, such as "an HTML page"; "text" for what may be a suite."""
    for name, sign in _SIGNS.items():
        if re.match(sign, head, re.DOTALL | re.IGNORECASE):
            return name
    return "binary data of an unknown kind" if b"\x00" in head else "text"


def remedy(found: str) -> str | None:
    """What to do about it; None if that is not known."""
    return _REMEDIES.get(found)
