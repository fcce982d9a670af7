"""Storage on a real S3-compatible server and in a shared folder: sent, brought back, damaged, cut off, claimed by others."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from harness.commands import storing
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.storage import mirror as mirrors
from harness.storage.mirror import Mirror
from harness.storage.place import place, without_secrets
from harness.weights.whole import fingerprint
from tests.helpers.event_helpers import event
from tests.helpers.run_helpers import capsbench, contents, repeatable, started, wait_for, write_suite

pytest.importorskip("fsspec")
SECRET = "not-to-be-printed-by-anyone"
TRIAL = "0123456789ab"


# Addresses


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("results", r"expected an address, such as s3://bucket/path.*for this folder: file:///.*/results"),
        ("https://host/path", "nothing can be kept at https://"),
        ("memory://x", "nothing can be kept at memory://"),
        ("file://results", "three slashes: file:///results"),
        ("s3://", "names no bucket"),
        ("file:///", "names no folder"),
        ("s3://user:hunter22@host/x", r"s3://user:\*\*\*@host/x: a password in an address"),
        ("s3://bucket/a/../b", r"without \.\."),
        ("s3://bucket/a?sig=hunter22", "plain address"),
        ("S3 ://bucket", "is no protocol"),
    ],
)
def test_an_address_that_cannot_be_used_is_told(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        place(given)
    assert "hunter22" not in str(told.value)


def test_secrets_of_this_process_are_in_no_message() -> None:
    environ = {"AWS_SECRET_ACCESS_KEY": "/bcdefgh", "MY_TOKEN": "1", "HOME": "/root"}
    assert without_secrets("key /bcdefgh of 1 at /root", environ) == "key *** of 1 at /root"


@pytest.mark.parametrize("folder", ["runs", "runs/small", "runs/small/trials"])
def test_storage_is_not_the_run_itself(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UserError, match="that is where the run itself is"):
        storing.opened(f"file://{tmp_path}/{folder}", tmp_path / "runs" / "small")
    assert not list(tmp_path.iterdir())


# A run directory in a folder


def say_nothing(_: str) -> None:
    pass


def opened(url: str, run_dir: Path, say: Callable[[str], None] = say_nothing) -> Mirror:
    mirror = Mirror(place(url) / "tiny", run_dir, say)
    mirror.open()
    return mirror


def train(journal: Journal, first: int, last: int) -> None:
    """Epochs, each with a checkpoint, as a driver records them."""
    for epoch in range(first, last + 1):
        path = journal.trial_dir(TRIAL) / f"epoch-{epoch:04d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(np.random.default_rng(epoch).bytes(4000))
        document = {
            "kind": "epoch",
            "epoch": epoch,
            "checkpoint": path.name,
            "files": {path.name: dict(fingerprint(path))},
        }
        journal.append(TRIAL, event({**document, "trial": TRIAL, "attempt": 1}))


def send(mirror: Mirror) -> str | None:
    mirror.begin()
    for folder in ("", f"trials/{TRIAL}"):
        mirror.changed(folder)
    return mirror.close(30)


def brought(url: str, run_dir: Path) -> tuple[int, list[str]]:
    mirror = opened(url, run_dir)
    try:
        with Journal(run_dir).open():
            return mirror.bring()
    finally:
        mirror.close(0)


def epochs(run_dir: Path) -> list[int]:
    return [each.epoch for each in Journal(run_dir).events(TRIAL) if each.kind == "epoch"]  # pyright: ignore


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


def test_a_run_comes_back_as_it_was_and_goes_on_in_both_directions(tmp_path: Path, url: str) -> None:
    a, b, c = (tmp_path / name / "tiny" for name in "abc")
    with Journal(a).open() as journal:
        train(journal, 1, 4)
        assert send(opened(url, a)) is None
    assert brought(url, b) == (3, [])
    assert epochs(b) == [1, 2, 3, 4]
    assert {path.name for path in b.glob("trials/*/epoch*")} == {"epoch-0003.safetensors", "epoch-0004.safetensors"}
    with Journal(b).open() as journal:
        train(journal, 5, 6)
        assert send(opened(url, b)) is None
    assert sorted(path.name for path in tmp_path.glob("store/tiny/trials/*/epoch*")) == [
        "epoch-0005.safetensors", "epoch-0006.safetensors",
    ]  # fmt: skip
    assert brought(url, a) == (3, [])  # behind: catches up
    assert epochs(a) == [1, 2, 3, 4, 5, 6]
    with Journal(a).open() as journal:  # ahead: stays
        train(journal, 7, 7)
    assert brought(url, a) == (0, [])
    (a / f"trials/{TRIAL}/epoch-0006.safetensors").write_bytes(b"damaged")
    assert brought(url, a) == (1, [])  # what is damaged here is whole there
    train_differently = Journal(c).open()
    with train_differently as journal:
        train(journal, 2, 3)
    with pytest.raises(UserError, match=r"another journal of trials/0123456789ab.*move .* elsewhere"):
        brought(url, c)
    assert epochs(c) == [2, 3]
    assert not list(a.glob(".storage"))


@pytest.mark.parametrize("how", ["changed", "cut short", "gone", "no index"])
def test_what_is_not_what_was_sent_is_not_believed(tmp_path: Path, url: str, how: str) -> None:
    a, b = tmp_path / "a" / "tiny", tmp_path / "b" / "tiny"
    with Journal(a).open() as journal:
        train(journal, 1, 2)
        send(opened(url, a))
    folder = tmp_path / "store/tiny/trials" / TRIAL
    path = folder / ("stored.json" if how == "no index" else "epoch-0002.safetensors")
    content = path.read_bytes()
    if how == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2])
    count, doubted = brought(url, b)
    if how == "no index":
        assert (count, doubted) == (0, [])
        assert epochs(b) == []
    else:
        assert (count, doubted) == (2, [f"trials/{TRIAL}/epoch-0002.safetensors"])
        assert epochs(b) == [1, 2]
        assert not (b / f"trials/{TRIAL}/epoch-0002.safetensors").exists()
    if how == "gone":
        with Journal(a).open():
            send(opened(url, a))
        assert path.exists()  # what is lost there is sent again


def test_an_interrupted_replacement_leaves_what_was_there_believed(tmp_path: Path, url: str) -> None:
    a, b = tmp_path / "a" / "tiny", tmp_path / "b" / "tiny"
    with Journal(a).open() as journal:
        train(journal, 1, 2)
        send(opened(url, a))
        folder = tmp_path / "store/tiny/trials" / TRIAL
        before = contents(folder, "epoch*", "events.jsonl")
        train(journal, 3, 4)
        send(opened(url, a))
    for path in folder.glob("e*"):
        path.unlink()
    for name, content in before.items():  # only the index had been replaced, which comes first
        Path(name).write_bytes(content)
    index = json.loads((folder / "stored.json").read_bytes())
    index["objects"]["events.jsonl"]["sha256"].append(
        next(each for each in _sums(before) if each[0] == "events.jsonl")[1]
    )
    for name, sha256, size in _sums(before):
        if name.startswith("epoch"):
            index["objects"][name] = {"sha256": [sha256], "bytes": size}
    (folder / "stored.json").write_text(json.dumps(index))
    brought(url, b)
    assert epochs(b) == [1, 2]
    assert (b / f"trials/{TRIAL}/epoch-0002.safetensors").exists()


def _sums(found: dict[str, bytes]) -> list[tuple[str, str, int]]:
    import hashlib

    return [(Path(name).name, hashlib.sha256(each).hexdigest(), len(each)) for name, each in found.items()]


def test_one_driver_at_a_time(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(url, tmp_path / "a" / "tiny")
    try:
        with pytest.raises(UserError, match=rf"in use by process {os.getpid()} on {socket.gethostname()}"):
            opened(url, tmp_path / "b" / "tiny")
    finally:
        first.close(0)
    left = opened(url, tmp_path / "a" / "tiny")
    assert left._process
    os.killpg(left._process.pid, signal.SIGKILL)  # its claim stays behind
    left._process.wait()
    opened(url, tmp_path / "b" / "tiny").close(0)
    assert not list(tmp_path.glob("store/tiny/driver.json"))


# A real S3-compatible server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which s3:// is a server on this machine, with a bucket called bench."""
    for package in ("moto", "flask_cors", "s3fs"):
        pytest.importorskip(package)
    log = (tmp_path_factory.mktemp("s3") / "log").open("w+")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
    )
    env = {
        "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.put(f"http://127.0.0.1:{port}/bench", timeout=5).raise_for_status()
                break
            except requests.ConnectionError:
                assert server.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield env
    finally:
        server.kill()
        server.wait()
        log.close()


ARGUMENTS = ("--executor", "inline", "--no-mlflow", "--storage", "s3://bench/runs")


def test_a_killed_run_goes_on_from_s3_on_a_fresh_machine(tmp_path: Path, s3: dict[str, Any]) -> None:
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    for folder in (whole, first, second):
        folder.mkdir()
        write_suite(folder, train={"epochs": 3}, grid={"impl": ["run_helpers:HeldNet"]})
    undisturbed = json.loads(capsbench(whole, "run", "small.yaml", "--json", *ARGUMENTS[:3]).stdout)
    with started(first, "run", "small.yaml", *ARGUMENTS, CAPSBENCH_TEST_HOLD="3", **s3) as process:
        seen: Any = pytest.importorskip("s3fs").S3FileSystem(
            key="bench", secret=SECRET, endpoint_url=s3["AWS_ENDPOINT_URL"], use_listings_cache=False
        )

        def stored() -> bool:
            return any(b'"epoch": 2' in seen.cat(path) for path in seen.glob("bench/runs/small/trials/*/events.jsonl"))

        wait_for(stored, "second epoch in storage", process)
        os.killpg(process.pid, signal.SIGKILL)
    again = capsbench(second, "run", "small.yaml", "--json", *ARGUMENTS, **s3)
    assert again.returncode == 0, again.stderr
    assert "brought back from s3://bench/runs/small" in again.stderr
    assert "resuming after epoch 2" in again.stderr
    document = json.loads(again.stdout)
    assert document["storage"] == "s3://bench/runs/small"
    assert [repeatable(each) for each in document["trials"]] == [repeatable(each) for each in undisturbed["trials"]]
    assert SECRET not in again.stderr + again.stdout


@pytest.mark.parametrize(
    ("url", "endpoint", "said"),
    [
        ("s3://nowhere/x", None, "bucket does not exist"),
        ("s3://bench/x", "http://127.0.0.1:1", "Could not connect"),
        ("s3://bench/x", "black hole", "no answer within"),
        ("gs://bench/x", None, "gs:// needs a package that is not installed"),
        ("nonsense://bench/x", None, "nonsense"),
    ],
)
def test_storage_that_does_not_work_is_told_before_anything_starts(
    tmp_path: Path, s3: dict[str, str], url: str, endpoint: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "OPEN_S", 4.0 if endpoint == "black hole" else mirrors.OPEN_S)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        there = f"http://127.0.0.1:{hole.getsockname()[1]}" if endpoint == "black hole" else endpoint
        environ: dict[str, Any] = {**os.environ, **s3, **({"AWS_ENDPOINT_URL": there} if there else {})}
        mirror = Mirror(place(url), tmp_path / "run", say_nothing, environ)
        with pytest.raises(UserError, match=said) as told:
            mirror.open()
    assert SECRET not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_while_storage_is_away_and_catches_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "_BACK_OFF_S", (0.2,))
    said: list[str] = []
    a, store = tmp_path / "a" / "tiny", tmp_path / "store"
    mirror = opened(f"file://{store}", a, said.append)
    with Journal(a).open() as journal:
        train(journal, 1, 1)
        mirror.begin()
        mirror.changed(f"trials/{TRIAL}")
        until(lambda: (store / f"tiny/trials/{TRIAL}/events.jsonl").exists())
        store.rename(tmp_path / "away")
        store.write_text("a file, so that nothing can be made below it")
        train(journal, 2, 3)
        mirror.changed(f"trials/{TRIAL}")
        until(lambda: bool(said))
        assert f"storage: cannot write file://{store}/tiny: " in said[0]
        store.unlink()  # and comes back empty
        until(lambda: len(said) == 2)
        assert said[1].endswith("has caught up")
        train(journal, 4, 4)
        mirror.changed(f"trials/{TRIAL}")
        assert mirror.close(30) is None
    assert brought(f"file://{store}", tmp_path / "b" / "tiny")[1] == []
    assert epochs(tmp_path / "b" / "tiny") == [1, 2, 3, 4]


def test_what_was_not_sent_is_told_at_the_end(tmp_path: Path) -> None:
    a, store = tmp_path / "a" / "tiny", tmp_path / "store"
    mirror = opened(f"file://{store}", a)
    store.rename(tmp_path / "away")
    store.write_text("")
    with Journal(a).open() as journal:
        train(journal, 1, 1)
        told = send(mirror)
    assert told
    assert f"2 folders of the run are not up to date in file://{store}/tiny" in told
    assert "the same command sends the rest" in told


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
