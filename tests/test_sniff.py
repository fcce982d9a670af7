"""What a file really is: real files of each kind, made here by the libraries that make them."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.sniff import remedy, what_are, what_is

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


def of(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


MADE: dict[str, Callable[[Path], None]] = {
    "an empty file": of(b""),
    "nothing but zero bytes, as a broken download or a full disk leaves": of(bytes(100_000)),
    "an HTML page": of(b"\n<!DOCTYPE html><html><head><title>404</title>"),
    "an error from a cloud storage, in XML": of(b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'),
    "an XML document": of(b'<?xml version="1.0"?>\n<svg></svg>'),
    "a Git LFS pointer": of(LFS),
    "a DVC pointer": of(b"outs:\n- md5: a304afb96060aad90176268345e10355\n  path: weights.safetensors\n"),
    "UTF-16 text": of("name: x\n".encode("utf-16")),
    "a gzip file": of(gzip.compress(b"a")),
    "a zip archive": as_zip("a.txt", "b.txt"),
    "a PyTorch file": as_zip("archive/data.pkl", "archive/data/0", "archive/version"),
    "a Keras model (.keras)": as_zip("config.json", "metadata.json", "model.weights.h5"),
    "a NumPy archive (.npz)": as_npz,
    "a NumPy array (.npy)": as_npy,
    "a zip archive that is cut short or damaged": of(b"PK\x03\x04" * 40),
    "an HDF5 file, as Keras and h5py write them": of(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "an SQLite database": as_database,
    "a Python pickle": of(pickle.dumps({"a": [1, 2]})),
    "a safetensors file": lambda path: save_file({f"layer{n}.w": np.zeros(2) for n in range(200)}, path),
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
    assert what_are("grüße ohne Marke\n".encode("utf-16-le")) == "UTF-16 text"
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
