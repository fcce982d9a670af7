"""What a file really is: real files of each kind, made here by the libraries that make them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from safetensors.numpy import save_file

from harness.sniff import UNKNOWN, remedy, what_are, what_is, with_remedy

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def as_zip(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"content")

    return write


def as_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table t (x)")


def as_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def as_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def as_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a"))


def as_picture(form: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        Image.new("RGB", (16, 16), "red").save(path, form)

    return write


def of(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def cut(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def write_less(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[:-9])

    return write_less


MADE: dict[str, Callable[[Path], None]] = {
    "an empty file": of(b""),
    "nothing but zero bytes, as a broken download or a full disk leaves": of(bytes(100_000)),
    "an HTML page": of(b"\n<!DOCTYPE html><html><head><title>404</title>"),
    "an error from a cloud storage, in XML": of(b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'),
    "an XML document": of(b'<?xml version="1.0"?>\n<plist></plist>'),
    "an SVG picture": of(b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg></svg>'),
    "a Git LFS pointer": of(LFS),
    "a DVC pointer": of(b"outs:\n- md5: a304afb96060aad90176268345e10355\n  path: weights.safetensors\n"),
    "a git-annex pointer": of(b"/annex/objects/SHA256E-s1234--0a1b2c.png\n"),
    "UTF-32 text": of("name: x\n".encode("utf-32")),
    "UTF-16 text": of("name: x\n".encode("utf-16")),
    "a gzip file": of(gzip.compress(b"a")),
    "a bzip2 file": of(bz2.compress(b"a")),
    "an xz file": of(lzma.compress(b"a")),
    "a zstandard file": of(bytes.fromhex("28b52ffd0401090000") + b"a"),
    "a tar archive": as_tar,
    "a zip archive": as_zip("a.txt", "b.txt"),
    "a PyTorch file": as_zip("archive/data.pkl", "archive/data/0", "archive/version"),
    "a Keras model (.keras)": as_zip("config.json", "metadata.json", "model.weights.h5"),
    "a NumPy archive (.npz)": as_npz,
    "a NumPy array (.npy)": as_npy,
    "a zip archive that is cut short or damaged": of(b"PK\x03\x04" * 40),
    "a PyTorch file that is cut short or damaged": cut(as_zip("archive/data.pkl")),
    "an HDF5 file, as Keras and h5py write them": of(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "an SQLite database": as_database,
    "a Python pickle": of(pickle.dumps({"a": [1, 2]})),
    "a safetensors file": lambda path: save_file({f"layer{n}.w": np.zeros(2) for n in range(200)}, path),
    "a MATLAB file of version 5": lambda path: scipy.io.savemat(path, {"x": np.zeros(2)}, appendmat=False),
    "a MATLAB file of version 7.3": of(b"MATLAB 7.3 MAT-file, Platform: GLNXA64"),
    **{f"a {form} picture": as_picture(form) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF")},
    "a PNM picture": as_picture("PPM"),
    "a WebP picture": as_picture("WEBP"),
    "an AVIF picture": as_picture("AVIF"),
    "a JPEG 2000 picture": as_picture("JPEG2000"),
    "an ICO picture": as_picture("ICO"),
    "a HEIC picture": of(b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic"),
    "an MP4 film or the like": of(b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp42"),
    "a PDF document": of(b"%PDF-1.4\n"),
    "an IDX file of float32, 1-dimensional": of(bytes([0, 0, 13, 1, 0, 0, 0, 0])),
    "an IDX file of uint8, 3-dimensional": of(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7])),
    "a JSON document": of(json.dumps({"key": ["value"] * 2000}).encode()),
    "a JSON document, cut short or damaged": of(b'{"key": ["val'),
    "lines of JSON": of(b'{"kind": "a"}\n{"kind": "b"}\n'),
    "text": of("a letter, grüße\n".encode()),
    "binary data of an unknown kind": of(bytes(range(256))),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_file_is_told_by_its_content(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    MADE[kind](path)
    assert what_is(path) == kind


@pytest.mark.parametrize("kind", MADE)
def test_bytes_are_told_as_files_are(kind: str, tmp_path: Path) -> None:
    """But of a zip archive only the first member is known."""
    MADE[kind](tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert what_are(content) == (
        "a zip archive" if "Keras model" in kind else kind.removesuffix(" that is cut short or damaged")
    )


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0"><html>', "an HTML page"),
        (b"<!-- a --><!-- b -->\n<script>location = '/consent'</script>", "an HTML page"),
        (b"<Error><Code>NoSuchKey</Code></Error>", "an error from a cloud storage, in XML"),
        (b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1'>", "an SVG picture"),
        (b"../../.git/annex/objects/x1/2y/MD5E-s1--a/MD5E-s1--a", "a git-annex pointer"),
        (b"\x00\x00\x00\x20ftypmif1\x00\x00\x00\x00mif1avifmiaf", "an AVIF picture"),
        (bytes(5000) + b"x", UNKNOWN),
        (b"\x00\x00\x01\x00\x00\x00\x00\x00" + b'{"a":' + b" " * 65_600, "a safetensors file"),  # begins as an ICO file
        (b"P1 is the first\n", "text"),
        (b"GIF8 is no picture\n", "text"),
    ],
)  # fmt: skip
def test_what_looks_like_something_else(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert what_is(tmp_path / "file") == what_are(content) == what_are(content[:4096], len(content)) == kind


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    found = {name: what_is(tmp_path / name) for name in (".", "link", "pipe", "absent")}
    assert found == {
        ".": "a folder", "link": "a link to gone, which does not exist", "pipe": "a named pipe",
        "absent": "nothing (there is no such file)",
    }  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(0)
    assert what_is(tmp_path / "secret") == "a file that cannot be read (Permission denied)"


def test_text_that_is_cut_within_a_character_is_text() -> None:
    assert what_are(("x" * 4095 + "ü").encode()[:4096], 5000) == "text"
    assert {what_are("grüße ohne Marke\n".encode(f"utf-16-{order}")) for order in ("le", "be")} == {"UTF-16 text"}
    assert what_are(b"BMW, BMC\n") == "text"


def test_real_files_of_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(2)}, tmp_path / "new.pt")
    torch.save({"w": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert what_is(tmp_path / "new.pt") == "a PyTorch file"
    assert what_is(tmp_path / "old.pt") == "a PyTorch file of an old format"


def test_what_to_do_is_said_where_it_does_not_depend_on_what_was_expected() -> None:
    assert remedy("a Git LFS pointer") == "fetch the file itself: git lfs pull"
    assert all(remedy(each) for each in MADE if each.startswith(("an HTML", "an empty", "UTF-16", "a DVC")))
    assert remedy("text") is None
    assert with_remedy("text") == "text"
    assert remedy("a PyTorch file that is cut short or damaged") == "download or copy it again"
    assert with_remedy("a DVC pointer") == "a DVC pointer (fetch the file itself: dvc pull)"


def test_a_link_of_git_annex_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(".git/annex/objects/x1/2y/MD5E-s1--a/MD5E-s1--a")
    assert remedy(what_is(tmp_path / "link")) == "fetch the file itself: git annex get"
