"""Published data sets in their original form: gzipped IDX, MATLAB files, zip archives; intact, damaged, hostile."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import data
from harness.data import affnist, fashion_mnist, kmnist, svhn
from harness.data.archive import entries
from harness.data.base import Info, Source
from harness.data.files import CorruptFile, FileSet, MissingFiles
from harness.data.idx import IdxSource
from harness.errors import UserError
from tests.data.test_data import idx_bytes
from tests.helpers.data_helpers import mat, serving, tree, zipped

NOISE = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def info(name: str, image: tuple[int, int, int], train: int, validation: int, test: int) -> Info:
    return Info(name, image, 10, train, validation, test, embedded=False, source="s", licence="l", citation="c")


# --- Fashion-MNIST and Kuzushiji-MNIST: hashes of the .gz files ---

IDX_FILES = {
    "train-images-idx3-ubyte.gz": gzip.compress(idx_bytes(NOISE.integers(0, 256, (8, 5, 5), np.uint8))),
    "train-labels-idx1-ubyte.gz": gzip.compress(idx_bytes(np.arange(8, dtype=np.uint8))),
    "t10k-images-idx3-ubyte.gz": gzip.compress(idx_bytes(NOISE.integers(0, 256, (4, 5, 5), np.uint8))),
    "t10k-labels-idx1-ubyte.gz": gzip.compress(idx_bytes(np.arange(4, dtype=np.uint8))),
}


def idx_source(*mirrors: str) -> IdxSource:
    hashes = {name: sha256(content) for name, content in IDX_FILES.items()}
    return IdxSource(info("tiny", (5, 5, 1), 6, 2, 4), FileSet("tiny", hashes, mirrors, exact=True))


@pytest.mark.parametrize("source", [fashion_mnist.SOURCE, kmnist.SOURCE])
def test_sets_in_the_format_of_mnist(source: IdxSource) -> None:
    assert list(source.files.sha256) == list(IDX_FILES)
    assert source.files.exact
    assert "verified as they are" in source.info.source
    assert (source.info.image, source.info.train + source.info.validation) == ((28, 28, 1), 60_000)
    assert len(set(source.info.class_names)) == source.info.classes
    mnist_shape = data.info("mnist").image
    assert source.info.image == mnist_shape
    assert all(len(value or "") == 64 for value in source.info.files.values())


@pytest.mark.parametrize("behaviour", ["good", "cut"])
def test_gzipped_files_are_kept_as_published(behaviour: str, tmp_path: Path) -> None:
    with serving(IDX_FILES) as served:
        idx_source(served.url(behaviour)).ensure(tmp_path, progress=False)
    assert tree(tmp_path / "tiny") == IDX_FILES
    training, test = idx_source().read(tmp_path)
    assert training.labels.tolist() == list(range(8))
    assert test.images.shape == (4, 5, 5, 1)


def test_the_files_of_another_set_are_not_taken_for_these(tmp_path: Path) -> None:
    """MNIST's have the same names and may lie in the data folder itself."""
    for name in IDX_FILES:
        (tmp_path / name).write_bytes(b"another set's")
    with pytest.raises(MissingFiles, match="4 of 4 files are missing"):
        idx_source().read(tmp_path)


@pytest.mark.parametrize("behaviour", ["short", "portal"])
def test_a_damaged_download_does_not_take_the_place_of_a_good_one(behaviour: str, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    names = list(IDX_FILES)
    (folder / names[0]).write_bytes(IDX_FILES[names[0]])
    with serving(IDX_FILES) as served, pytest.raises(UserError) as error:
        idx_source(served.url(behaviour)).ensure(tmp_path, progress=False)
    assert f"{names[1]} could not be fetched" in str(error.value)
    assert f"expected {sha256(IDX_FILES[names[1]])}, found" in str(error.value)
    assert tree(folder) == {names[0]: IDX_FILES[names[0]]}


def test_a_gzipped_file_repacked_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, content in IDX_FILES.items():
        (folder / name).write_bytes(gzip.compress(gzip.decompress(content), 1, mtime=1))
    with pytest.raises(CorruptFile, match=r"train-images-idx3-ubyte\.gz: corrupt; SHA-256 expected"):
        idx_source().read(tmp_path)


# --- SVHN ---

COLOURED = NOISE.integers(0, 256, (6, 4, 5, 3), np.uint8)  # N H W C


def svhn_files(**changes: object) -> dict[str, bytes]:
    training = {"X": np.moveaxis(COLOURED, 0, -1), "y": np.array([[1], [10], [9], [2], [5], [10]])} | changes
    test = {"X": np.moveaxis(COLOURED[:2], 0, -1), "y": np.array([[10], [3]])}
    return {"train.mat": mat(**training), "test.mat": mat(**test)}


def svhn_source(files: dict[str, bytes], folder: Path, *mirrors: str) -> svhn.MatSource:
    """With `files` in place, unless there are mirrors to get them from."""
    if not mirrors:
        (folder / "tiny").mkdir()
        for name, content in files.items():
            (folder / "tiny" / name).write_bytes(content)
    hashes = {name: sha256(content) for name, content in files.items()}
    return svhn.MatSource(info("tiny", (4, 5, 3), 4, 2, 2), FileSet("tiny", hashes, mirrors, exact=True))


def test_svhn(tmp_path: Path) -> None:
    with serving(svhn_files()) as served:
        source = svhn_source(svhn_files(), tmp_path, served.url())
        source.ensure(tmp_path, progress=False)
    training, test = source.read(tmp_path)
    np.testing.assert_array_equal(training.images, COLOURED)
    assert training.labels.tolist() == [1, 0, 9, 2, 5, 0]  # 10 is zero
    assert test.labels.tolist() == [0, 3]
    found = data.info("svhn")
    assert (found.image, found.train + found.validation, found.test) == ((32, 32, 3), 73_257, 26_032)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.array([[0], [1], [1], [1], [1], [1]])}, "a label of 0; expected 1 to 10"),
        ({"y": np.array([[11], [1], [1], [1], [1], [1]])}, "a label of 11; expected 0 to 9"),
        ({"y": np.array([[1], [2]])}, r"and as many labels expected, found uint8 \(6, 4, 5, 3\) and \(2,\)"),
        ({"X": np.moveaxis(COLOURED[:5], 0, -1)}, r"6 images along the last of 4 axes expected, found \(4, 5, 3, 5\)"),
        ({"X": COLOURED}, "images along the last of 4 axes"),
        ({"X": np.moveaxis(COLOURED[:, :3], 0, -1)}, r"\('N', 4, 5, 3\) .*found uint8 \(6, 3, 5, 3\)"),
        ({"X": np.moveaxis(COLOURED, 0, -1) / 255}, "found float64"),
    ],
    ids=["label 0", "label 11", "labels lacking", "image lacking", "axes", "height", "type"],
)
def test_svhn_of_another_shape(change: dict[str, object], words: str, tmp_path: Path) -> None:
    source = svhn_source(svhn_files(**change), tmp_path)
    with pytest.raises(CorruptFile, match=rf"train\.mat: .*{words}"):
        source.read(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [lambda content: content[: len(content) // 2], lambda content: content[:100], lambda _: b"", lambda _: b"?" * 4000],
    ids=["half", "header", "empty", "junk"],
)
def test_a_damaged_matlab_file(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    files = svhn_files()
    files["test.mat"] = spoil(files["test.mat"])
    with pytest.raises(CorruptFile, match=r"test\.mat: (truncated, corrupt or not a MATLAB file|no variable X)"):
        svhn_source(files, tmp_path).read(tmp_path)


def test_a_matlab_file_without_the_images(tmp_path: Path) -> None:
    files = svhn_files() | {"train.mat": mat(Z=1, y=np.ones((6, 1)))}
    with pytest.raises(CorruptFile, match=r"train\.mat: no variable X in it; y found"):
        svhn_source(files, tmp_path).read(tmp_path)


# --- affNIST ---

UPRIGHT = np.zeros((12, 4, 5, 1), np.uint8)  # an L: a stroke down the left, a foot along the bottom, a number
UPRIGHT[:, :, 0], UPRIGHT[:, 3, :] = 200, 100
UPRIGHT[:, 0, 4, 0] = np.arange(12)
LABELS = np.arange(12) % 10


def aff(chosen: slice, **changes: object) -> bytes:
    """A file as it is published: each image a column, row after row; a struct with more fields than are needed."""
    fields = {
        "image": UPRIGHT[chosen].reshape(-1, 20).T,
        "label_int": LABELS[chosen][np.newaxis].astype(np.uint8),
        "label_one_of_n": np.eye(10)[LABELS[chosen]].T,
    }
    return mat(affNISTdata={**fields, **changes})


def aff_files() -> dict[str, bytes]:
    return {
        # 10.mat comes after 2.mat.
        "training.zip": zipped(**{"10.mat": aff(slice(4, 6)), "2.mat": aff(slice(2, 4)), "1.mat": aff(slice(0, 2))}),
        "validation.zip": zipped(**{"__MACOSX/._v.mat": b"?", "v/validation.mat": aff(slice(6, 9)), "readme": b""}),
        "test.zip": zipped(**{"test.mat": aff(slice(9, 12))}),
    }


def aff_source(*mirrors: str) -> affnist.AffNist:
    about = dataclasses.replace(info("aff", (4, 5, 1), 6, 3, 3), apart="copies")
    return affnist.AffNist(about, {"training.zip": 6, "validation.zip": 3}, {"test.zip": 3}, mirrors)


def put(folder: Path, files: dict[str, bytes]) -> Path:
    (folder / "aff").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / "aff" / name).write_bytes(content)
    return folder


def test_affnist(tmp_path: Path) -> None:
    with serving(aff_files()) as served:
        source = aff_source(served.url())
        source.ensure_test(tmp_path, progress=False)
        assert served.requests == ["/good/test.zip"]
        np.testing.assert_array_equal(source.read_test(tmp_path).images, UPRIGHT[9:])
        with pytest.raises(MissingFiles, match=r"aff: its training part is not in .*data fetch aff"):
            source.read(tmp_path)
        source.ensure(tmp_path, progress=False)
        source.ensure(tmp_path, progress=False)
        assert len(served.requests) == 3
    training, test = source.read(tmp_path)
    np.testing.assert_array_equal(training.images, UPRIGHT[:9])  # upright, not transposed; 1, 2, 10, then validation
    assert training.labels.tolist() == LABELS[:9].tolist()
    assert test.labels.tolist() == [9, 0, 1]
    assert isinstance(source, data.PartialSource)
    assert isinstance(source, Source)


def test_affnist_as_published() -> None:
    found = data.info("affnist")
    assert (found.train, found.validation, found.test) == (1_600_000, 320_000, 320_000)
    assert sum(affnist.SOURCE.training.values()) == found.train + found.validation
    assert sum(affnist.SOURCE.test.values()) == found.test
    assert "published" in found.source
    assert "not the published" in data.info("affnist-gen").source


@pytest.mark.parametrize("behaviour", ["short", "portal", "gone"])
def test_an_archive_that_cannot_be_had(behaviour: str, tmp_path: Path) -> None:
    with serving(aff_files()) as served:
        aff_source(served.url()).ensure_test(tmp_path, progress=False)
        before = tree(tmp_path)
        with pytest.raises(UserError) as error:
            aff_source(served.url(behaviour)).ensure(tmp_path, progress=False)
    reason = "HTTP 404" if behaviour == "gone" else "truncated or corrupt zip archive"
    for words in ("training.zip could not be fetched", reason, "affnist-gen", str(tmp_path / "aff")):
        assert words in str(error.value)
    assert tree(tmp_path) == before  # the test part is still there, and nothing else


HOSTILE = ["../outside.mat", "a/../../outside.mat", "/etc/outside.mat", "..\\outside.mat", "C:/outside.mat"]


@pytest.mark.parametrize("name", HOSTILE)
def test_an_entry_that_points_outside(name: str, tmp_path: Path) -> None:
    files = {"test.zip": zipped(**{"test.mat": aff(slice(9, 12)), name: aff(slice(0, 2))})}
    before = tree(put(tmp_path, files))
    with pytest.raises(CorruptFile, match=r"test\.zip: its entry .* points outside of its folder; refused"):
        aff_source().ensure_test(tmp_path, progress=False)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped(**{"test.mat": aff(slice(9, 12))})[:-30], "truncated or corrupt zip archive"),
        (zipped(**{"test.mat": aff(slice(9, 12))[:-40]}), "test.mat: truncated, corrupt or not a MATLAB file"),
        (zipped(readme=b"x"), "there is no .mat file in it"),
        (zipped(**{"test.mat": aff(slice(9, 11))}), "3 images expected, found 2"),
        (zipped(**{"test.mat": aff(slice(8, 12))}), "3 images expected, found 4"),
        (zipped(**{"test.mat": mat(other=1)}), "no variable affNISTdata in it"),
        (zipped(**{"test.mat": mat(affNISTdata=np.ones((2, 2)))}), "one struct with the fields image and label_int"),
        (zipped(**{"test.mat": aff(slice(9, 12), image=np.ones((21, 3), np.uint8))}), "20 rows each expected"),
        (zipped(**{"test.mat": aff(slice(9, 12), image=np.ones((20, 3)))}), "found float64"),
        (zipped(**{"test.mat": aff(slice(9, 12), label_int=np.array([[1, 2, 10]]))}), "a label of 10; expected 0 to 9"),
        (zipped(**{"test.mat": aff(slice(9, 12), label_int=np.array([[1, 2]]))}), "as many labels expected"),
    ],
    ids=["zip", "mat", "empty", "few", "many", "variable", "struct", "rows", "type", "label", "labels"],
)
def test_an_archive_with_something_else(content: bytes, words: str, tmp_path: Path) -> None:
    before = tree(put(tmp_path, {"test.zip": content}))
    with pytest.raises(CorruptFile) as error:
        aff_source().ensure_test(tmp_path, progress=False)
    assert words in str(error.value)
    assert "test.zip" in str(error.value) or "aff" in str(error.value)
    assert tree(tmp_path) == before


def test_a_flipped_bit_in_an_archive(tmp_path: Path) -> None:
    content = bytearray(zipped(**{"a.mat": b"0123456789" * 3}))
    content[40] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(CorruptFile, match=r"a\.zip: truncated or corrupt"):
        list(entries(tmp_path / "a.zip"))
