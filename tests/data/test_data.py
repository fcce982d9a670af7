"""Data sets: splits, files, and fetching them from a real HTTP server."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from harness import data, progress
from harness.data import digits, idx, mnist
from harness.data.base import Dataset, Info, Split
from harness.data.divide import select
from harness.data.files import CorruptFile, FileSet, MissingFiles, read_all
from harness.data.net import download
from harness.errors import UserError
from harness.progress import Task
from harness.spec.trial import DataConfig

# --- A small data set in IDX files: 12 + 4 images of 3x5 whose first two pixels number them. ---

INFO = Info("tiny", (3, 5, 1), 4, train=9, validation=3, test=4, embedded=False, source="s", licence="l", citation="c")


def idx_bytes(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def numbered(count: int, start: int = 0) -> Split:
    images = np.zeros((count, 3, 5, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(np.arange(start, start + count), 256)
    return Split(images, np.arange(count) % 4)


def numbers(split: Split) -> list[int]:
    return (split.images[:, 0, 0, 0].astype(int) * 256 + split.images[:, 0, 1, 0]).tolist()


def tiny_contents() -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for part, split in (("train", numbered(12)), ("t10k", numbered(4, 100))):
        # Incompressible padding of the images' other pixels makes the transfer long enough to be cut.
        noise = np.random.default_rng(0).integers(0, 256, split.images.shape, np.uint8)
        noise[:, 0, :2] = split.images[:, 0, :2]
        contents[f"{part}-images"] = idx_bytes(noise[..., 0])
        contents[f"{part}-labels"] = idx_bytes(split.labels.astype(np.uint8))
    return contents


CONTENTS = tiny_contents()
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}


def file_set(*mirrors: str) -> FileSet:
    return FileSet("tiny", SHA256, mirrors)


def put(folder: Path, *names: str, zipped: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or CONTENTS:
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(CONTENTS[name]))
        else:
            (folder / name).write_bytes(CONTENTS[name])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- The server: the first folder of the path says how it behaves. ---


class Mirrors(ThreadingHTTPServer):
    """Serves CONTENTS gzipped.

    `requests` lists (path, Range header); `released` ends the answers of /silent/; while /flaky/ is `sick`, it sends
    those bytes, breaks off, and continues nothing.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()
        self.sick: bytes | None = None

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/"


class Handler(BaseHTTPRequestHandler):
    server: Mirrors

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.requests.append((self.path, wanted))
        _, behaviour, file = self.path.split("/")
        content = CONTENTS[file.removesuffix(".gz")]
        body = gzip.compress(content, mtime=0)
        match behaviour:
            case "gone":
                self.send_error(404)
            case "silent":
                self.server.released.wait()
            case "corrupt":
                self.answer(200, gzip.compress(content[:-1] + b"?"))
            case "truncated":
                self.answer(200, body[:-20])
            case "plain":
                self.answer(200, content)
            case "portal":
                self.answer(200, b"<html>please log in</html>")
            case "flaky" if self.server.sick is not None and wanted:
                self.send_error(503)
            case "flaky" if self.server.sick is not None:
                self.answer(200, self.server.sick + b"more", send=len(self.server.sick))
            case "cut" if not wanted:  # breaks off half way, and can continue
                self.answer(200, body, send=len(body) // 2)
            case "unranged" if len(self.server.requests) == 1:  # breaks off, and starts anew whatever is asked for
                self.answer(200, body, send=len(body) // 2)
            case "cut" | "flaky" if wanted:
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
                self.answer(206 if start < len(body) else 416, body[start:])
            case _:
                self.answer(200, body)

    def answer(self, status: int, body: bytes, send: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:send])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Mirrors()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def mnist_dir() -> str:
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    for place in (os.environ.get("CAPSBENCH_DATA"), str(shared)):
        if place and (Path(place) / "mnist").is_dir():
            return place
    pytest.skip("MNIST is neither in CAPSBENCH_DATA nor beside the project")


def fetched(directory: Path) -> bool:
    read_all(file_set(), directory)
    left = {path.name for path in (directory / "tiny").iterdir()} - {".lock"}
    return left == set(CONTENTS)


# --- Names, places, sizes ---


def test_info_is_known_without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPSBENCH_DATA", "/nowhere")
    assert {"digits", "mnist"} <= set(data.NAMES)
    found = data.info("mnist")
    assert (found.image, found.classes) == ((28, 28, 1), 10)
    assert (found.train, found.validation, found.test) == (55_000, 5_000, 10_000)
    assert found.files == mnist.FILES.sha256
    assert data.info("digits").embedded
    assert not found.embedded


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r'unknown data set "minst"; did you mean "mnist"\? Valid: affnist, .*, mnist, '
    ):
        data.info("minst")


def test_directory_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CAPSBENCH_DATA", "")
    assert data.data_dir(None).name == "capsbench"
    monkeypatch.setenv("CAPSBENCH_DATA", "/from/environment")
    assert data.data_dir(None) == Path("/from/environment")
    assert data.data_dir("/from/suite") == Path("/from/suite")
    assert data.data_dir("~/x") == Path.home() / "x"


@pytest.mark.skipif(not Path("/proc").exists(), reason="the XDG cache is Linux's")
def test_default_directory_respects_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CAPSBENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.data_dir(None) == tmp_path / "capsbench"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (55_000, 5_000, 10_000)),
        ({"validation": 0}, (60_000, 0, 10_000)),
        ({"validation": 10_000}, (50_000, 10_000, 10_000)),
        ({"train": 100}, (100, 5_000, 10_000)),
        ({"train": 58_000, "validation": 2_000, "test": 1}, (58_000, 2_000, 1)),
    ],
)
def test_sizes(asked: dict[str, Any], expected: tuple[int, int, int]) -> None:
    assert data.sizes(DataConfig(name="mnist", **asked)) == expected


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"test": 10_001}, ["data.test", "10,001", "10,000"]),
        ({"validation": 60_000}, ["data.validation", "60,000", "59,999"]),
        ({"train": 60_001}, ["data.train", "60,001", "60,000", "data.validation=5000 (the default)", "55,000"]),
        ({"train": 60_000}, ["data.train", "55,000", "data.validation: 0"]),
        ({"train": 59_999, "validation": 2}, ["data.train", "59,999", "data.validation=2 ", "59,998"]),
    ],
)
def test_more_than_there_is(asked: dict[str, Any], words: list[str]) -> None:
    for refuses in (data.sizes, data.load, lambda config: data.ensure(config, progress=False)):
        with pytest.raises(UserError) as error:
            refuses(DataConfig(name="mnist", dir="/nowhere", **asked))
        for word in words:
            assert word in str(error.value)


# --- Splits ---


def tiny(**asked: Any) -> Dataset:
    return select(INFO, DataConfig(name="tiny", **asked), numbered(12), numbered(4, 100))


def test_default_split_is_the_order_of_the_file() -> None:
    whole = tiny()
    assert numbers(whole.train) == list(range(9))
    assert numbers(whole.validation) == [9, 10, 11]
    assert numbers(whole.test) == [100, 101, 102, 103]
    assert whole.train.labels.tolist() == [number % 4 for number in range(9)]
    assert "9 of 12 training images" in whole.provenance


def test_images_in_the_middle_of_a_canvas() -> None:
    config = DataConfig(name="digits", train=5, validation=2, test=3)
    plain = data.load(config)
    for side in (28, 36, 40, 41):
        wider = config.model_copy(update={"canvas": side})
        assert data.shape(wider) == (side, side, 1)
        there = data.load(wider)
        margin = (side - 28) // 2
        for name, count in (("train", 5), ("validation", 2), ("test", 3)):
            images, before = getattr(there, name).images, getattr(plain, name).images
            assert (images.shape, images.dtype) == ((count, side, side, 1), np.uint8)
            inside = images[:, margin : margin + 28, margin : margin + 28]
            assert np.array_equal(inside, before)
            assert images.sum(dtype=int) == before.sum(dtype=int) > 0  # black around them
            assert np.array_equal(getattr(there, name).labels, getattr(plain, name).labels)
        assert (there.sha256 == plain.sha256) is (side == 28)
        assert f"centred on {side}x{side} pixels" in there.provenance
    assert data.shape(config) == (28, 28, 1)
    assert "centred" not in plain.provenance


def test_a_canvas_smaller_than_the_images() -> None:
    small = DataConfig(name="mnist", canvas=27)
    with pytest.raises(
        UserError, match=r"^data\.canvas: 27 pixels a side, but .* mnist are 28x28: at least 28, or leave"
    ):
        data.shape(small)


@pytest.mark.parametrize("validation", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("train", [None, 1, 4])
def test_splits_never_overlap(validation: int, train: int | None) -> None:
    part = select(INFO, DataConfig(name="tiny", train=train, validation=validation), numbered(12), numbered(4, 100))
    chosen, held_out = numbers(part.train), numbers(part.validation)
    assert len(set(chosen) | set(held_out)) == len(chosen) + len(held_out)
    assert len(held_out) == validation
    assert len(chosen) == (train or 12 - validation)
    if validation <= INFO.validation:
        assert set(held_out) <= {9, 10, 11}
    else:
        assert held_out == list(range(12 - validation, 12))


def test_a_smaller_subset_lies_within_a_larger_one() -> None:
    subsets = [numbers(tiny(train=count).train) for count in range(1, 10)]
    for smaller, larger in itertools.pairwise(subsets):
        assert set(smaller) < set(larger)
        assert larger == sorted(larger)
    assert subsets[3] != [0, 1, 2, 3]  # drawn, not cut off


def test_subsets_are_the_same_everywhere() -> None:
    assert numbers(tiny(train=4, test=2).train) == [2, 4, 6, 7]
    assert numbers(tiny(train=4, test=2).test) == [102, 103]
    info = dataclasses.replace(INFO, train=5, validation=7)
    part = select(info, DataConfig(name="tiny", validation=3), numbered(12), numbered(4, 100))
    assert numbers(part.validation) == [7, 9, 11]  # of the default 5..11


def test_hash_is_of_the_images_used() -> None:
    assert tiny().sha256 == tiny().sha256
    variants = [tiny(), tiny(train=8), tiny(test=3), tiny(validation=2), tiny(validation=0)]
    changed = numbered(12)
    changed.labels[0] += 1
    variants.append(select(INFO, DataConfig(name="tiny"), changed, numbered(4, 100)))
    assert len({variant.sha256 for variant in variants}) == len(variants)


# --- digits ---


def test_digits() -> None:
    found = data.load(DataConfig(name="digits"))
    splits = (found.train, found.validation, found.test)
    assert [len(split) for split in splits] == [1257, 180, 360]
    for split in splits:
        assert split.images.shape[1:] == (28, 28, 1)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
        per_class = np.bincount(split.labels, minlength=10)
        assert per_class.max() - per_class.min() <= 0.01 * 1797  # stratified
        assert not split.images[:, [0, 1, -2, -1]].any()
    assert set(found.train.labels[:50]) == set(range(10))
    assert found.sha256 == "073a7b519426b7f826d719838b6e9c9fe9c8acf3db3512e5227bf9fefccacb81"


def test_digits_are_scikit_learns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    straight = digits.SOURCE.read(tmp_path)
    monkeypatch.setattr(digits, "_scikit_learn", lambda: tmp_path)  # the file is no longer where it used to be
    for ours, theirs in zip(straight, digits.SOURCE.read(tmp_path), strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert sum(len(split) for split in straight) == 1797


def test_digits_are_enlarged_bilinearly() -> None:
    small = np.random.default_rng(0).integers(0, 17, (5, 8, 8), np.uint8)
    centres = (np.arange(24) + 0.5) / 3 - 0.5

    def stretch(row: np.ndarray) -> np.ndarray:
        return np.interp(centres, np.arange(8), row)  # holds the edge beyond it

    exact = np.apply_along_axis(stretch, 2, np.apply_along_axis(stretch, 1, small)) * 255 / 16
    large = digits.enlarge(small)
    assert large.dtype == np.uint8
    np.testing.assert_allclose(large[:, 2:-2, 2:-2], exact, atol=0.5 + 1e-9)
    np.testing.assert_array_equal(large[:, 3:-2:3, 3:-2:3], np.floor(small * 255.0 / 16 + 0.5))  # the centres
    assert digits.enlarge(np.full((1, 8, 8), 16, np.uint8)).max() == 255


# --- MNIST ---


def test_mnist(mnist_dir: str) -> None:
    whole = data.load(DataConfig(name="mnist", dir=mnist_dir))
    assert [len(split) for split in (whole.train, whole.validation, whole.test)] == [55_000, 5_000, 10_000]
    assert whole.train.images.shape == (55_000, 28, 28, 1)
    assert whole.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert whole.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert whole.sha256 == "3ef6f5455b6c41604b8580fb0ae9a10b7f77f69fc10d94cd256f23238c298ba0"
    joined = data.load(DataConfig(name="mnist", dir=mnist_dir, validation=0, test=1))
    assert len(joined.validation) == 0
    np.testing.assert_array_equal(joined.train.images[55_000:], whole.validation.images)
    np.testing.assert_array_equal(joined.train.labels[:55_000], whole.train.labels)


def test_ensure_writes_nothing_where_all_is_there(mnist_dir: str, tmp_path: Path) -> None:
    for file in (Path(mnist_dir) / "mnist").glob("*-ubyte*"):
        (tmp_path / file.name).symlink_to(file)
    before = sorted(tmp_path.iterdir())
    tmp_path.chmod(0o555)
    data.ensure(DataConfig(name="mnist", dir=str(tmp_path)), progress=False)
    assert sorted(tmp_path.iterdir()) == before


def test_list(mnist_dir: str, tmp_path: Path) -> None:
    rows = {row["name"]: row for row in data.list_datasets(mnist_dir)}
    assert rows["digits"]["state"] == "embedded"
    assert rows["mnist"]["state"] == "cached"
    assert rows["mnist"]["path"] == mnist_dir
    assert (rows["mnist"]["train"], rows["mnist"]["image"]) == (55_000, [28, 28, 1])
    absent = data.list_datasets(str(tmp_path))[1]
    assert absent["state"] == "absent"
    assert "4 of 4 files" in absent["detail"]
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"junk")
    corrupt = data.list_datasets(str(tmp_path))[1]
    assert corrupt["state"] == "corrupt"
    assert "t10k-labels-idx1-ubyte.gz" in corrupt["detail"]


def test_fetch_of_what_is_there(mnist_dir: str) -> None:
    assert data.fetch("mnist", mnist_dir, progress=False)["state"] == "cached"
    assert data.fetch("digits", progress=False)["state"] == "embedded"
    with pytest.raises(UserError, match="minst"):
        data.fetch("minst")


# --- IDX ---


def test_parse() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(idx.parse(idx_bytes(array), "x"), array)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: b"", "not an IDX file"),
        (lambda content: b"\x01" + content[1:], "starts with 0x01000802"),
        (lambda content: content[:2] + b"\x0d" + content[3:], "starts with 0x00000d02"),  # float32
        (lambda content: content[:10], "header ends after 10 bytes; it needs 12"),
        (lambda content: content[:-1], "6 bytes expected .* found 5"),
        (lambda content: content + b"?", "6 bytes expected .* found 7"),
    ],
)
def test_parse_refuses(spoil: Callable[[bytes], bytes], words: str) -> None:
    with pytest.raises(CorruptFile, match=f"a-file: .*{words}"):
        idx.parse(spoil(idx_bytes(np.zeros((2, 3), np.uint8))), "a-file")


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (dataclasses.replace(INFO, train=8), r"training part: images \(11, 3, 5\) and labels \(11,\) expected"),
        (dataclasses.replace(INFO, test=5), r"test part: .* found \(4, 3, 5\)"),
        (dataclasses.replace(INFO, image=(5, 3, 1)), r"\(12, 5, 3\)"),
        (dataclasses.replace(INFO, classes=3), "a label of 3; 3 classes"),
    ],
)
def test_contents_must_agree_with_the_info(info: Info, words: str, tmp_path: Path) -> None:
    put(tmp_path)
    with pytest.raises(CorruptFile, match=words):
        idx.IdxSource(info, file_set()).read(tmp_path)


# --- Files ---


@pytest.mark.parametrize("folder", [".", "tiny"])
@pytest.mark.parametrize("zipped", [False, True])
def test_files_are_found(folder: str, zipped: bool, tmp_path: Path) -> None:
    put(tmp_path / folder, zipped=zipped)
    training_part, test_part = idx.IdxSource(INFO, file_set()).read(tmp_path)
    assert numbers(training_part) == list(range(12))
    assert numbers(test_part) == [100, 101, 102, 103]


def test_missing_files_are_named_with_their_hashes(tmp_path: Path) -> None:
    put(tmp_path, "train-images", "t10k-images")
    with pytest.raises(MissingFiles) as error:
        read_all(file_set(), tmp_path)
    message = str(error.value)
    for name in ("train-labels", "t10k-labels"):
        assert f"{name}  SHA-256 {SHA256[name]}" in message
    assert SHA256["train-images"] not in message
    for words in ("2 of 4", str(tmp_path / "tiny"), "CAPSBENCH_DATA", "data.dir", "data.name=digits"):
        assert words in message


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("t10k-labels", b"junk", f"expected {SHA256['t10k-labels']}, found {hashlib.sha256(b'junk').hexdigest()}"),
        ("t10k-labels.gz", gzip.compress(CONTENTS["t10k-labels"])[:-9], "truncated gzip"),
        ("t10k-labels.gz", gzip.compress(CONTENTS["t10k-labels"])[:-8] + b"12345678", "corrupt gzip"),
        ("t10k-labels.gz", gzip.compress(b"other"), f"found {hashlib.sha256(b'other').hexdigest()}"),
    ],
    ids=["junk", "truncated", "bad checksum", "another file"],
)
def test_corrupt_files_are_refused_by_name_and_kept(
    file: str, content: bytes, words: str, tmp_path: Path, mirrors: Mirrors
) -> None:
    put(tmp_path / "tiny", "train-images", "train-labels")  # t10k-images is missing: corruption is told first
    (tmp_path / "tiny" / file).write_bytes(content)
    before = tree(tmp_path)
    source = idx.IdxSource(INFO, file_set(mirrors.url("good")))
    with pytest.raises(CorruptFile) as error:
        source.ensure(tmp_path, progress=False)
    assert str(tmp_path / "tiny" / file) in str(error.value)
    assert words in str(error.value)
    assert "train-images" not in str(error.value)
    assert tree(tmp_path) == before
    assert mirrors.requests == []


def test_every_corrupt_file_is_named(tmp_path: Path) -> None:
    put(tmp_path)
    for name in ("train-labels", "t10k-images"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CorruptFile, match=r"(?s)train-labels: corrupt.*t10k-images: corrupt"):
        read_all(file_set(), tmp_path)


# --- Download ---


def test_ensure_fetches_only_what_is_missing(tmp_path: Path, mirrors: Mirrors) -> None:
    put(tmp_path / "tiny", "train-images", "t10k-images")
    source = idx.IdxSource(INFO, file_set(mirrors.url("good")))
    source.ensure(tmp_path, progress=False)
    assert [path for path, _ in mirrors.requests] == ["/good/train-labels.gz", "/good/t10k-labels.gz"]
    assert fetched(tmp_path)
    source.ensure(tmp_path, progress=False)
    assert len(mirrors.requests) == 2


@pytest.mark.parametrize("bad", ["gone", "corrupt", "truncated", "portal", "silent", "closed"])
def test_the_next_mirror_is_tried(bad: str, tmp_path: Path, mirrors: Mirrors) -> None:
    first = closed_port() if bad == "closed" else mirrors.url(bad)
    download.fetch(file_set(first, mirrors.url("good")), tmp_path, progress=False, timeout_s=(2.0, 0.2))
    assert fetched(tmp_path)
    paths = [path for path, _ in mirrors.requests]
    # Once a mirror has served a file it is asked first.
    assert paths == [f"/{bad}/train-images.gz"] * (bad != "closed") + [f"/good/{name}.gz" for name in CONTENTS]


def test_a_server_may_decompress_on_the_way(tmp_path: Path, mirrors: Mirrors) -> None:
    download.fetch(file_set(mirrors.url("plain")), tmp_path, progress=False)
    assert fetched(tmp_path)


def test_a_transfer_cut_off_is_resumed(tmp_path: Path, mirrors: Mirrors) -> None:
    download.fetch(file_set(mirrors.url("cut")), tmp_path, progress=False)
    assert fetched(tmp_path)
    for name, content in CONTENTS.items():
        half = len(gzip.compress(content, mtime=0)) // 2
        ranges = [wanted for path, wanted in mirrors.requests if path == f"/cut/{name}.gz"]
        assert ranges == [None, f"bytes={half}-"]


def test_a_server_that_cannot_resume_starts_anew(tmp_path: Path, mirrors: Mirrors) -> None:
    download.fetch(file_set(mirrors.url("unranged")), tmp_path, progress=False)
    assert fetched(tmp_path)
    assert mirrors.requests[1] == ("/unranged/train-images.gz", mirrors.requests[1][1])
    assert mirrors.requests[1][1] is not None


@pytest.mark.parametrize("kept", [0.5, 1.0])
def test_a_later_call_resumes(kept: float, tmp_path: Path, mirrors: Mirrors) -> None:
    """What one call left behind, a part or all of it, is continued by the next."""
    files = file_set(mirrors.url("flaky"))
    body = gzip.compress(CONTENTS["train-images"], mtime=0)
    start = int(len(body) * kept)
    mirrors.sick = body[:start]
    with pytest.raises(UserError, match="HTTP 503"):
        download.fetch(files, tmp_path, progress=False)
    mirrors.sick = None
    mirrors.requests.clear()
    download.fetch(files, tmp_path, progress=False)
    assert fetched(tmp_path)
    assert mirrors.requests[0] == ("/flaky/train-images.gz", f"bytes={start}-")


def test_a_corrupt_part_is_discarded(tmp_path: Path, mirrors: Mirrors) -> None:
    files = file_set(mirrors.url("flaky"))
    mirrors.sick = b"\x1f\x8b junk"
    with pytest.raises(UserError, match="HTTP 503"):
        download.fetch(files, tmp_path, progress=False)
    mirrors.sick = None
    with pytest.raises(UserError, match="corrupt gzip"):
        download.fetch(files, tmp_path, progress=False)
    download.fetch(files, tmp_path, progress=False)
    assert fetched(tmp_path)


def test_offline(tmp_path: Path, mirrors: Mirrors) -> None:
    dead, gone, corrupt = closed_port(), mirrors.url("gone"), mirrors.url("corrupt")
    source = idx.IdxSource(INFO, file_set(dead, gone, corrupt))
    with pytest.raises(UserError) as error:
        source.ensure(tmp_path, progress=False)
    message = str(error.value)
    assert re.search(rf"{dead}: .*Connection refused", message)
    assert f"{gone}: HTTP 404 Not Found" in message
    assert re.search(rf"{corrupt}: corrupt; .*expected {SHA256['train-images']}, found [0-9a-f]{{64}}", message)
    for name, sha256 in SHA256.items():
        assert f"{name}  SHA-256 {sha256}" in message
    for words in (str(tmp_path / "tiny"), "NAME.gz", "CAPSBENCH_DATA", "data.dir", "data.name=digits"):
        assert words in message
    assert list(tree(tmp_path)) in ([], ["tiny/.lock"])  # nothing corrupt is left behind


def test_timeout_is_told(tmp_path: Path, mirrors: Mirrors) -> None:
    with pytest.raises(UserError, match="silent/: Read timed out"):
        download.fetch(file_set(mirrors.url("silent")), tmp_path, progress=False, timeout_s=(2.0, 0.2))


def test_an_unwritable_directory(tmp_path: Path, mirrors: Mirrors) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"(?s)file/tiny cannot be written: Not a directory.*CAPSBENCH_DATA"):
        download.fetch(file_set(mirrors.url("good")), tmp_path / "file", progress=False)
    assert mirrors.requests == []


def test_waiting_for_another_process(tmp_path: Path, mirrors: Mirrors, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    files = file_set(mirrors.url("good"))
    waiting = threading.Thread(target=download.fetch, args=(files, tmp_path), kwargs={"progress": True})
    with FileLock(folder / ".lock"):
        waiting.start()
        told = ""
        while "Waiting for another process" not in told and waiting.is_alive():
            told += capfd.readouterr().err
        assert waiting.is_alive()
        assert mirrors.requests == []
        put(folder)
    waiting.join()
    assert mirrors.requests == []  # the other one has fetched everything


def test_four_fetch_once(tmp_path: Path, mirrors: Mirrors) -> None:
    errors: list[BaseException] = []

    def fetch() -> None:
        try:
            download.fetch(file_set(mirrors.url("good")), tmp_path, progress=False)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert fetched(tmp_path)
    assert len(mirrors.requests) == len(CONTENTS)


class Seen:
    """A display that remembers tasks."""

    def __init__(self) -> None:
        self.ended_tasks: list[Task] = []

    def begun(self, task: Task) -> None:
        assert task.unit == "B"

    def ended(self, task: Task) -> None:
        self.ended_tasks.append(task)


@pytest.mark.parametrize("is_told", [True, False])
def test_progress_is_told_byte_by_byte(is_told: bool, tmp_path: Path, mirrors: Mirrors) -> None:
    seen = Seen()
    progress.shown_by(lambda: seen)
    try:
        download.fetch(file_set(mirrors.url("good")), tmp_path, progress=is_told)
    finally:
        progress.shown_by(None)
    assert [task.title for task in seen.ended_tasks] == [f"fetching {name}" for name in CONTENTS if is_told]
    assert all(task.done == task.total for task in seen.ended_tasks)


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"
