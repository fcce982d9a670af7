"""A disk that runs full, or turns read-only: told with numbers, as soon as it can be known, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cost.space import Space, space
from harness.errors import UserError, of_the_disk
from harness.events import FailedEvent
from harness.journal.journal import Journal
from harness.journal.room import Room, sweep
from harness.suite.suite import load_suite
from harness.supervisor.seat import Seat
from harness.supervisor.trial import run_attempt
from harness.text import megabytes
from tests.helpers.event_helpers import event
from tests.helpers.run_helpers import HELPERS, write_suite
from tests.helpers.small_disk import needs_own_disk, play

NUMBERS = re.compile(r"no space left on (\S+/disk) \(([\d.,]+) MB needed, ([\d.,]+) MB free\)")


@needs_own_disk
def test_full_in_the_middle_ends_as_ctrl_c_does_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    found = play("full", tmp_path)
    first, again = found["first"], found["again"]
    assert first["code"] == 1
    assert NUMBERS.search(first["said"])
    assert "To go on: capsbench run " in first["said"] or "to go on: capsbench run " in first["said"]
    assert "impl error %" in first["said"]  # the table
    assert "epoch-0002.safetensors: No space left on device" in first["said"]
    assert "Traceback" not in first["said"]
    assert (found["left"], found["epochs"]) == ([], [1])
    assert again["code"] == 2
    assert again["said"].startswith("capsbench: no space left on ")
    assert float(NUMBERS.search(again["said"])[2]) > float(NUMBERS.search(again["said"])[3])  # type: ignore[index]
    assert (found["json"]["code"], "Traceback" in found["json"]["said"]) == (2, False)
    assert found["after"]["code"] == 0
    assert "started, resuming after epoch 1" in found["after"]["said"]
    assert found["all_epochs"] == [1, 2, 3, 4, 1, 2, 3, 4]


@needs_own_disk
def test_too_little_is_told_before_anything_starts_and_before_an_epoch_is_lost(tmp_path: Path) -> None:
    found = play("scarce", tmp_path)
    assert re.search(r"Disk: about \d+ MB needed in \S+, 2\.0 MB free", found["plan"]["said"])
    assert found["refused"]["code"] == 2
    assert NUMBERS.search(found["refused"]["said"])
    assert found["is_untouched"]
    assert found["ahead"]["code"] == 1
    assert found["epochs"] == [1]  # which is kept; epoch 2 was not begun for nothing
    document = json.loads(found["ahead"]["said"][found["ahead"]["said"].index('{ "suite"') :])
    assert NUMBERS.fullmatch(document["stopped"])
    assert {trial["status"] for trial in document["trials"]} == {"interrupted", "pending"}


@needs_own_disk
def test_a_disk_that_turns_read_only_ends_a_run_likewise(tmp_path: Path) -> None:
    found = play("read_only", tmp_path)
    assert found["first"]["code"] == 1
    assert "Stopped: " in found["first"]["said"]
    assert "Read-only file system" in found["first"]["said"]
    assert found["again"]["code"] in (1, 2)
    assert "Read-only file system" in found["again"]["said"]
    assert "Traceback" not in found["first"]["said"] + found["again"]["said"]
    assert found["left"] == []
    assert found["after"]["code"] == 0
    assert found["all_epochs"] == [1, 2, 3, 4]


@needs_own_disk
def test_what_a_full_disk_refuses_is_not_there_in_part(tmp_path: Path) -> None:
    found = play("journal", tmp_path)
    assert found["refused"] == ["No space left on device"] * 3
    assert (found["is_same"], found["left"], found["result"]["a"]) == (True, [], 1)
    assert found["kinds"] == ["attempt", "interrupted", "attempt"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_leaves_the_journal_as_it_was(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a disk cannot be had: what the system would say is put in its place."""

    def refuse(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with Journal(tmp_path / "run").open() as journal:
        journal.append("t1", event({"kind": "attempt"}))
        before = (journal.trial_dir("t1") / "events.jsonl").read_bytes()
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", refuse)
            for write in (
                lambda: journal.append("t1", event({"kind": "interrupted"})),
                lambda: journal.write_result("t1", {"a": 1}),
            ):
                with pytest.raises(OSError, match=os.strerror(number)):
                    write()
        assert [path.name for path in journal.trial_dir("t1").iterdir()] == ["events.jsonl"]
        assert (journal.trial_dir("t1") / "events.jsonl").read_bytes() == before
        journal.append("t1", event({"kind": "interrupted"}))
        assert [each.kind for each in journal.events("t1")] == ["attempt", "interrupted"]


# A worker


def attempt(tmp_path: Path, log: Path, **env: str) -> list[str]:
    """Kinds and causes of the last event of an attempt by `run_helpers:RaisingNet`, whose log is `log`."""
    suite = load_suite(write_suite(tmp_path, grid={"impl": ["run_helpers:RaisingNet"]}, parity={"gate": False}))
    (trial,) = suite.trials(0, lambda _: {})
    told: list[FailedEvent] = []
    job = {
        "trial": trial.model_dump(mode="json"), "attempt": 1, "resumed_epoch": 0, "recorded": None, "environ": env,
        "paths": [str(HELPERS)], "cwd": None, "pace": {}, "losses": 0,
    }  # fmt: skip
    seat = Seat((min(os.sched_getaffinity(0)),))
    run_attempt(job, seat, told.append, log, tmp_path, None, stop=threading.Event())  # type: ignore[arg-type]
    return [f"{each.kind}: {getattr(each, 'cause', '')}" for each in told][-1:]


def test_a_worker_s_last_word_arrives_though_its_log_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HELPERS))
    (tmp_path / "attempt-1.log").symlink_to("/dev/full")
    assert attempt(tmp_path, tmp_path / "attempt-1.log") == ["failed: RuntimeError: no [such] kernel"]


# What is needed


SPACE = Space(weights=10, checkpoint=40, end=25, kept=65, peak=120, rest=1000)


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_the_space_of_a_trial(tmp_path: Path, epochs: int) -> None:
    (trial,) = load_suite(write_suite(tmp_path, train={"epochs": epochs, "keep_every": 2})).trials(0, lambda _: {})
    found = space(trial)
    assert found.checkpoint == 4 * found.weights
    assert found.kept == found.checkpoint + found.end + epochs // 2 * found.weights
    assert found.peak >= found.kept
    assert found.passing == {1: 0, 2: 40, 5: 80}[epochs] * found.weights // 10 - (found.end if epochs == 5 else 0)
    assert space(trial, figures=False, track=False).rest < found.rest


def test_what_is_there_is_not_needed_again(tmp_path: Path) -> None:
    room = Room(tmp_path, {"a": SPACE, "b": SPACE}, together=2)
    assert room.least() == 2 * 65 + 55
    assert room.about() == 2 * 65 + 2 * 55 + 2 * 1000
    (tmp_path / "trials" / "a").mkdir(parents=True)
    (tmp_path / "trials" / "a" / "epoch-0001.safetensors").write_bytes(bytes(40))
    assert room.least() == 25 + 65 + 55
    room.ended("b")
    assert room.least() == 25 + 55


def test_more_than_any_disk_has_is_refused_with_numbers(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no space left on .* \([\d,]+ MB needed, [\d,]+ MB free\): the unfinished trial"
    ):
        Room(tmp_path, {"a": Space(10**20, 10**20, 10**20, 10**20, 10**20, 0)}).require()
    assert "little room" in (Room(tmp_path, {"a": Space(1, 1, 1, 1, 1, 10**20)}).require() or "")
    assert Room(tmp_path, {}).require() is None


@pytest.mark.parametrize(
    ("error", "path", "is_ours"),
    [
        ("ENOSPC", "trials/a/epoch-0001.safetensors", True),
        ("EROFS", "trials/a/attempt-1.log", True),
        ("ENOSPC", "/tmp/elsewhere", False),  # on another disk, or another node: the trial's own trouble
        ("ENOSPC", None, False),
        ("RuntimeError", None, False),
    ],
)
def test_whose_disk_it_is(tmp_path: Path, error: str, path: str | None, is_ours: bool) -> None:
    where = path and str(tmp_path / "run" / path)
    failed = FailedEvent(cause="", error=error, hint=None, path=where)
    assert Room(tmp_path / "run", {"a": SPACE}).is_ours(failed) == is_ours


@pytest.mark.parametrize(
    ("count", "down", "up"),
    [(0, "0.0 MB", "0.0 MB"), (49_999, "0.0 MB", "0.1 MB"), (1_250_000, "1.2 MB", "1.3 MB"), (2**31, "2,147 MB", "2,148 MB")],
)  # fmt: skip
def test_megabytes(count: int, down: str, up: str) -> None:
    assert (megabytes(count), megabytes(count, up=True)) == (down, up)


@pytest.mark.parametrize(
    "raised",
    [
        lambda: (_ for _ in ()).throw(RuntimeError("Error while serializing: I/O error: ? (os error 28)")),
        lambda: (_ for _ in ()).throw(RuntimeError("RESOURCE_EXHAUSTED: /tmp/x; No space left on device")),
        lambda: Path("/dev/full").write_bytes(b"a"),
    ],
)
def test_a_full_disk_is_known_whoever_says_so(raised: Callable[[], object]) -> None:
    with pytest.raises((OSError, RuntimeError)) as caught:
        raised()
    found = of_the_disk(caught.value)
    assert found is not None
    assert found.errno == errno.ENOSPC
    assert of_the_disk(ValueError("resource exhausted")) is None


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "a"
    folder.mkdir(parents=True)
    left = [".epoch-0002.safetensors.partial", ".tmpYu7AmR", ".result.json.4242", ".events.jsonl.4242"]
    for name in [*left, "epoch-0001.safetensors", ".mine"]:
        (folder / name).touch()
    sweep(tmp_path, ["a", "b"])
    assert sorted(path.name for path in folder.iterdir()) == [".mine", "epoch-0001.safetensors"]
