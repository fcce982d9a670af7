"""The run directory under crashes, second drivers, and folders that cannot be written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.errors import UserError
from harness.events import EpochEvent
from harness.journal.journal import Journal
from harness.spec import ModelSpec
from harness.spec.trial import DataConfig, ParityConfig, RuntimeConfig, TrainConfig, Trial
from tests.helpers.event_helpers import event
from tests.helpers.event_helpers import events as read


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "runs" / "quickstart").open() as journal:
        yield journal


def make_trial(trial_id: str = "t1") -> Trial:
    return Trial(
        id=trial_id, suite="quickstart", impl="torch", seed=0, params={"model.routing": 3},
        data=DataConfig(name="digits", train=100), model=ModelSpec(image=(28, 28, 1), classes=10),
        train=TrainConfig(epochs=3), runtime=RuntimeConfig(), parity=ParityConfig(), cpus=2, gpus=0,
    )  # fmt: skip


def plan_of(*trials: Trial) -> dict:
    return {"suite": "quickstart", "quick": False, "trials": [trial.model_dump(mode="json") for trial in trials]}


def finish_epoch(journal: Journal, epoch: int, **more) -> Path:
    path = journal.trial_dir("t1") / f"epoch-{epoch:04}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"conv1.w": np.full((2, 2), epoch, np.float32)}, path)
    journal.append("t1", event({"kind": "epoch", "epoch": epoch, "checkpoint": path.name, **more}))
    return path


def writer(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that writes journals, as the driver does; it can be killed for real."""
    command = [
        sys.executable,
        "-c",
        "import sys\nfrom harness.journal.journal import Journal\n"
        f"from tests.helpers.event_helpers import event\n{code}",
        *map(str, arguments),
    ]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_events_come_back_in_order(journal: Journal) -> None:
    events = read([{"kind": "attempt", "attempt": 1}, {"kind": "warning", "message": "naïve"}, {"kind": "interrupted"}])
    for each in events:
        journal.append("t1", each)
    assert journal.events("t1") == events
    assert journal.events("never began") == []


def test_numbers_that_are_not_finite_become_null(journal: Journal) -> None:
    more = {"train_loss": float("nan"), "more": [float("-inf"), (1.5,)]}
    journal.append("t1", event({"kind": "epoch", "epoch": 1, **more}))
    journal.write_result("t1", {"test_loss": float("inf")})
    assert journal.events("t1") == [event({"kind": "epoch", "epoch": 1, "train_loss": None, "more": [None, [1.5]]})]
    assert (journal.result("t1") or {"test_loss": 0})["test_loss"] is None


@pytest.mark.parametrize("torn", [b'{"kind": "epo', b'{"kind": "epoch", "epoch": 2}', b"\0\0\0\0"])
def test_a_torn_last_line_is_dropped_and_cut_off_before_the_next(journal: Journal, torn: bytes) -> None:
    journal.append("t1", event({"kind": "attempt"}))
    with (journal.trial_dir("t1") / "events.jsonl").open("ab") as file:
        file.write(torn)
    assert journal.events("t1") == read([{"kind": "attempt"}])
    journal.append("t1", event({"kind": "interrupted"}))
    assert journal.events("t1") == read([{"kind": "attempt"}, {"kind": "interrupted"}])


def test_nothing_is_left_of_a_line_that_did_not_fit(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there is room again at once: a buffered file would write the rest of the line when it is closed."""
    journal.append("t1", event({"kind": "attempt"}))
    path = journal.trial_dir("t1") / "events.jsonl"
    before, truncate = path.read_bytes(), os.ftruncate
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def make_room(file: int, size: int) -> None:
        truncate(file, size)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(os, "ftruncate", make_room)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append("t1", event({"kind": "interrupted"}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    journal.append("t1", event({"kind": "interrupted"}))
    assert journal.events("t1") == read([{"kind": "attempt"}, {"kind": "interrupted"}])


def checkpoints(journal: Journal) -> list[str]:
    return sorted(path.name for path in journal.trial_dir("t1").glob("epoch-*"))


def test_an_epoch_leaves_its_checkpoint_and_the_one_before(journal: Journal) -> None:
    for epoch in (9_998, 9_999, 10_000):  # names of other lengths
        finish_epoch(journal, epoch)
    assert checkpoints(journal) == ["epoch-10000.safetensors", "epoch-9999.safetensors"]


def test_checkpoints_after_the_epoch_fallen_back_to_do_not_outlive_the_next(journal: Journal) -> None:
    finish_epoch(journal, 1)
    journal.append("t1", event({"kind": "epoch", "epoch": 2, "checkpoint": "epoch-0002.safetensors"}))  # not there
    assert checkpoints(journal) == ["epoch-0001.safetensors"]
    finish_epoch(journal, 2)
    finish_epoch(journal, 3)
    assert checkpoints(journal) == ["epoch-0002.safetensors", "epoch-0003.safetensors"]
    finish_epoch(journal, 1)
    assert checkpoints(journal) == ["epoch-0001.safetensors"]


def test_a_finished_trial_keeps_its_last_checkpoint_alone(journal: Journal) -> None:
    for epoch in (1, 2, 3):
        finish_epoch(journal, epoch)
    journal.append("t1", event({"kind": "result"}))
    assert checkpoints(journal) == ["epoch-0003.safetensors"]


def test_the_checkpoint_is_on_the_disk_before_the_epoch_counts(journal: Journal, monkeypatch) -> None:
    order: list[str] = []
    fsync = os.fsync
    lines = journal.trial_dir("t1") / "events.jsonl"

    def spy(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        order.append(f"{path.name}, {lines.stat().st_size if lines.exists() else 0} bytes of events")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    finish_epoch(journal, 1)
    size = lines.stat().st_size
    before = [f"{name}, 0 bytes of events" for name in ("epoch-0001.safetensors", "t1")]
    assert order == [*before, *(f"{name}, {size} bytes of events" for name in ("events.jsonl", "t1"))]


def test_a_killed_driver_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    process = writer(
        "journal = Journal(sys.argv[1]).open()\n"
        "for number in range(10**6):\n"
        "    journal.append('t1', event({'kind': 'epoch', 'epoch': number}))\n"
        "    journal.write_result('t1', {'epochs': [number] * 1000})\n"
        "    print(number, flush=True)\n",
        tmp_path / "run",
    )
    assert process.stdout
    acknowledged = [int(process.stdout.readline()) for _ in range(30)][-1]
    process.kill()
    acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    process.wait()
    journal = Journal(tmp_path / "run")
    epochs = [each.epoch for each in journal.events("t1") if isinstance(each, EpochEvent)]
    assert epochs[: acknowledged + 1] == list(range(acknowledged + 1))
    result = journal.result("t1")
    assert result is not None
    assert len(set(result["epochs"])) == 1
    assert len(result["epochs"]) == 1000
    journal.open().close()  # the lock went with its owner


def test_a_second_driver_is_refused_and_may_still_read(tmp_path: Path) -> None:
    process = writer(
        "journal = Journal(sys.argv[1]).open()\n"
        "journal.append('t1', event({'kind': 'attempt'}))\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n",
        tmp_path / "run",
    )
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    journal = Journal(tmp_path / "run")
    try:
        with pytest.raises(UserError, match=f"in use by process {process.pid} on {socket.gethostname()}"):
            journal.open()
        assert journal.is_live()
        assert journal.events("t1") == read([{"kind": "attempt"}])
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not journal.is_live()
    journal.open().close()


def test_writing_needs_the_lock(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    for write in (
        lambda: journal.append("t1", event({"kind": "attempt"})),
        lambda: journal.write_result("t1", {}),
        lambda: journal.write_environment({}),
    ):
        with pytest.raises(RuntimeError, match="open for reading only"):
            write()
    assert not (tmp_path / "run").exists()
    assert not journal.is_live()


def test_a_read_only_folder_is_refused_by_name() -> None:
    folder = Path(tempfile.mkdtemp())  # not tmp_path: its parents are closed to others
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)  # permissions mean nothing to root
        with pytest.raises(UserError, match=rf"cannot write .*{folder}/runs.*Permission denied.*--out"):
            Journal(folder / "runs").open()
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_a_file_in_the_way_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"cannot write the run directory .*runs/quickstart"):
        Journal(tmp_path / "runs" / "quickstart").open()


def test_the_plan_and_its_trials_come_back(journal: Journal) -> None:
    first, second = make_trial("b"), make_trial("a")
    journal.write_plan(plan_of(first), "name: quickstart\n")
    run_id = journal.plan()["run_id"]
    journal.write_plan(plan_of(second), "name: quickstart\n")
    assert journal.plan()["run_id"] == run_id
    assert journal.plan()["trials"] == [second.model_dump(mode="json")]
    assert journal.trial("b") == first
    assert journal.trial("a") == second
    assert journal.trial_ids() == ["a", "b"]  # the latest plan's first
    assert (journal.run_dir / "suite.yaml").read_text() == "name: quickstart\n"
    with pytest.raises(UserError, match=r"no usable trial in .*c/trial\.json"):
        journal.trial("c")


def test_an_empty_directory_reads_as_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert (journal.plan(), journal.environment(), journal.trial_ids(), journal.result("t1")) == ({}, {}, [], None)


def test_documents_are_replaced_whole(journal: Journal) -> None:
    journal.write_environment({"host": "a"})
    journal.write_environment({"host": "b", "gpus": []})
    assert journal.environment() == {"host": "b", "gpus": []}
    left = [path.name for path in journal.run_dir.iterdir()]
    assert sorted(left) == [".lock", "environment.json", "trials"]
    json.loads((journal.run_dir / "environment.json").read_text())


def test_attempts_are_numbered_on_from_logs_and_events(journal: Journal) -> None:
    assert journal.next_attempt("t1") == 1
    journal.append("t1", event({"kind": "attempt", "attempt": 1}))
    assert journal.next_attempt("t1") == 2
    (journal.trial_dir("t1") / "attempt-9.log").write_text("")
    (journal.trial_dir("t1") / "attempt-x.log").write_text("")
    assert journal.next_attempt("t1") == 10
