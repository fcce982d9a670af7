"""What is said of a file that is another; other layouts of published files; CIFAR-10, from an archive like theirs."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from harness import data
from harness.data import affnist, cifar10, idx, matfile, mnist, svhn
from harness.data.archive import entries
from harness.data.base import Info
from harness.data.files import CorruptFile, FileSet, MissingFiles, instructions, locate, read_all
from harness.data.idx_header import wrong_length
from tests.data.test_data import idx_bytes
from tests.helpers.data_helpers import zipped


def test_how_much_too_long_or_short() -> None:
    whole = idx_bytes(np.zeros((2, 3, 3), np.uint8))
    assert wrong_length(whole) is None
    assert wrong_length(whole + b"xy") == "2 bytes too long: 36 instead of 34"
    assert wrong_length(whole + b"x") == "1 byte too long: 35 instead of 34"
    assert wrong_length(whole[:-4]) == "truncated: 30 of 34 bytes"
    assert wrong_length(whole[:9]) == "truncated in its header, after 9 of 16 bytes"
    assert wrong_length(b"<html>") is None


def test_readers_say_what_they_found_instead(tmp_path: Path) -> None:
    page = b"<!doctype html><html>Consent"
    with pytest.raises(CorruptFile, match=r"not an IDX file of uint8 .*; it is an HTML page"):
        idx.parse(page, "f")
    with pytest.raises(CorruptFile, match="the file is 2 bytes too long"):
        idx.parse(idx_bytes(np.zeros((2, 3, 3), np.uint8)) + b"xy", "f")
    with pytest.raises(CorruptFile, match=r"not a MATLAB file of version 5 .it is a zip archive"):
        matfile.variables(zipped(x=b""), "f", "X")
    with pytest.raises(CorruptFile, match=r"it is a MATLAB file of version 7\.3.*save it with -v7"):
        matfile.variables(b"MATLAB 7.3 MAT-file" + bytes(600), "f", "X")
    path = tmp_path / "a.zip"
    path.write_bytes(page)
    with pytest.raises(CorruptFile, match=r"zip archive .it is an HTML page.; download it again"):
        list(entries(path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>Sign in</html>", "corrupt; it is an HTML page (download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "corrupt; it is a Git LFS pointer (fetch the file itself: git lfs",
        ),
        (
            bytes([0, 0, 12, 1, 0, 0, 0, 1, 0, 0, 0, 7]),
            "corrupt; it is an IDX file of int32, 1-dimensional; uncompressed",
        ),
        (idx_bytes(np.zeros(3, np.uint8)) + b"xy", "corrupt; 2 bytes too long: 13 instead of 11"),
        (idx_bytes(np.zeros((3, 1, 1), np.uint8)), "corrupt; uncompressed SHA-256 expected"),
        (idx_bytes(np.zeros(3, np.uint8)), "corrupt; it is an IDX file of uint8, 1-dimensional; uncompressed"),
        (zipped(x=b""), "corrupt; it is a zip archive"),
    ],
)
def test_a_published_file_that_is_something_else(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(CorruptFile) as error:
        read_all(mnist.FILES, tmp_path)
    assert said in str(error.value)


# Other people's layouts


def test_torchvisions_folders_and_dotted_names_are_found(tmp_path: Path) -> None:
    names = list(mnist.FILES.sha256)
    places = [
        tmp_path / "MNIST" / "raw" / names[0], tmp_path / "mnist" / names[1].replace("-idx", ".idx"),
        tmp_path / f"{names[2]}.gz", tmp_path / "mnist" / f"{names[3].replace('-idx', '.idx')}.gz",
    ]  # fmt: skip
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    assert list(locate(mnist.FILES, tmp_path).values()) == places
    (tmp_path / "SVHN").mkdir()
    (tmp_path / "SVHN" / "test_32x32.mat").touch()
    assert list(locate(svhn.FILES, tmp_path)) == ["test_32x32.mat"]


def test_a_file_that_is_missing_by_its_name_only_is_named(tmp_path: Path) -> None:
    files = FileSet("set", {"a.gz": "1", "b": "2", "c": "3"}, exact=True)
    (tmp_path / "set").mkdir()
    for name in ("a", "b (1)", "c.zip"):
        (tmp_path / "set" / name).touch()
    said = instructions(files, tmp_path)
    assert f"{tmp_path / 'set' / 'a'} is there: it was unpacked, and only a.gz as published can be verified." in said
    assert "b (1) is there: if it is the published file, rename it to b." in said
    assert "c.zip is there: a zip archive; unpack it" in said


def test_unpacked_affnist_files_are_read(tmp_path: Path) -> None:
    def content(labels: np.ndarray) -> bytes:
        images = np.tile(labels.astype(np.uint8), (16, 1))
        out = io.BytesIO()
        scipy.io.savemat(out, {"affNISTdata": {"image": images, "label_int": labels.astype(np.uint8)}})
        return out.getvalue()

    top = tmp_path / "affnist"
    (top / "training_batches").mkdir(parents=True)
    for number in range(1, 12):
        (top / "training_batches" / f"{number}.mat").write_bytes(content(np.array([number % 10])))
    (top / "validation.mat").write_bytes(content(np.array([7, 8])))
    (top / "test.mat").write_bytes(content(np.array([3])))
    info = dataclasses.replace(affnist.SOURCE.info, image=(4, 4, 1), train=11, validation=2, test=1)
    source = affnist.AffNist(
        info, {"training_batches.zip": 11, "validation.mat.zip": 2}, {"test.mat.zip": 1}, mirrors=()
    )
    source.ensure(tmp_path, progress=False)
    training, test = source.read(tmp_path)
    assert training.labels.tolist() == [*range(1, 10), 0, 1, 7, 8]
    assert test.labels.tolist() == [3]


# CIFAR-10

LABELS = np.arange(12, dtype=np.uint8) % 10


def _record(label: int) -> bytes:
    planes = np.zeros((3, 32, 32), np.uint8)
    planes[0, 0, :] = 10 + label  # red in the first row
    planes[1, :, 0] = 20 + label  # green in the first column
    planes[2] = 30 + label
    return bytes([label]) + planes.tobytes()


def _archive(path: Path, **changed: bytes) -> str:
    """Writes an archive like the published one, two images a file; its SHA-256."""
    names = [*cifar10.SOURCE.training, *cifar10.SOURCE.test]
    with tarfile.open(path, "w:gz") as archive:
        for number, name in enumerate(names):
            content = b"".join(_record(int(label)) for label in LABELS[2 * number : 2 * number + 2])
            content = changed.get(name.removesuffix(".bin"), content)
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _source(sha256: str) -> cifar10.BinarySource:
    info: Info = dataclasses.replace(cifar10.SOURCE.info, train=8, validation=2, test=2)
    files = dataclasses.replace(cifar10.FILES, sha256={"cifar-10-binary.tar.gz": sha256})
    return dataclasses.replace(cifar10.SOURCE, info=info, files=files)


def test_cifar10_records_become_upright_pictures_in_colour(tmp_path: Path) -> None:
    sha256 = _archive(tmp_path / "cifar-10-binary.tar.gz")
    training, test = _source(sha256).read(tmp_path)
    assert training.labels.tolist() == LABELS[:10].tolist()
    assert test.labels.tolist() == LABELS[10:].tolist()
    assert training.images.shape == (10, 32, 32, 3)
    np.testing.assert_array_equal(training.images[4, 0, 5], [14, 0, 34])
    np.testing.assert_array_equal(training.images[4, 5, 0], [0, 24, 34])


def test_cifar10_that_is_not_as_published_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    for changed, said in {
        b"": "training part: 30,730 bytes expected, found 24,584",
        _record(3) + bytes([10]) + bytes(3072): "training part: a label of 10; 10 classes",
    }.items():
        sha256 = _archive(path, data_batch_5=changed)
        with pytest.raises(CorruptFile, match=said):
            _source(sha256).read(tmp_path)
    with pytest.raises(CorruptFile, match="SHA-256 expected c4a38c50"):
        cifar10.SOURCE.read(tmp_path)
    path.unlink()
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(MissingFiles, match="has the Python version: pickles, which can run any code and are not read"):
        cifar10.SOURCE.read(tmp_path)


def test_cifar10_is_a_built_in_set() -> None:
    info = data.info("cifar10")
    assert (info.image, info.classes, info.train + info.validation, info.test) == ((32, 32, 3), 10, 50_000, 10_000)
    assert cifar10.FILES.served_as("cifar-10-binary.tar.gz") == "cifar-10-binary.tar.gz"
