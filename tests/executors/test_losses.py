"""What follows a loss: another attempt from the last epoch, or none where it would only happen again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from harness.executors import losses
from harness.executors.inline import InlineExecutor
from harness.executors.losses import pause_s
from harness.supervisor import watch
from tests.helpers.executor_helpers import Record, tiny_job, trained_epochs

pytestmark = pytest.mark.usefixtures("all_cores")


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(losses, "_FIRST_PAUSE_S", 0.01)


def test_a_killed_worker_is_tried_again_from_its_last_epoch(tmp_path: Path) -> None:
    record = Record()
    InlineExecutor().run([tiny_job(tmp_path, "LostNet", epochs=3)], record)
    assert [event["resumed_epoch"] for event in record.of("LostNet-0", "attempt")] == [0, 1]
    assert [event["epoch"] for event in record.of("LostNet-0", "epoch")] == [1, 2, 3]
    (lost,) = record.of("LostNet-0", "interrupted")
    assert (lost["attempt"], lost["error"], lost["next_in_s"]) == (1, "SIGKILL", 0.01)
    (warning,) = record.of("LostNet-0", "warning")
    assert warning["message"] == f"attempt 1 was lost: {lost['cause']}; the trial went on after epoch 1"
    assert trained_epochs(tmp_path / "trials/LostNet-0/weights.safetensors") == 3
    assert sorted(path.name for path in (tmp_path / "trials/LostNet-0").glob("*.log")) == [
        "attempt-1.log",
        "attempt-2.log",
    ]


def test_a_hung_worker_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_STILL_S", 2.0)
    record = Record()
    InlineExecutor().run([tiny_job(tmp_path, "HeldNet", epochs=3)], record)
    assert [event["resumed_epoch"] for event in record.of("HeldNet-0", "attempt")] == [0, 2]
    assert [event["error"] for event in record.of("HeldNet-0", "interrupted")] == ["Hang"]
    assert record.kinds("HeldNet-0")[-1] == "result"


def test_nothing_is_tried_again_where_it_would_happen_again(tmp_path: Path) -> None:
    """Nor where the suite says so; and the trial after these runs all the same."""
    record = Record()
    impls = ["StarvedNet", "ExitingNet"]
    jobs = [tiny_job(tmp_path, impl, retries=3) for impl in impls]
    InlineExecutor().run([*jobs, tiny_job(tmp_path, "LostNet", retries=0), tiny_job(tmp_path)], record)
    for impl in (*impls, "LostNet"):
        assert len(record.of(f"{impl}-0", "attempt")) == 1, impl
        assert record.kinds(f"{impl}-0")[-1] == "failed"
    assert record.kinds("TinyNet-0")[-1] == "result"


def test_pauses_double_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_FIRST_PAUSE_S", 2.0)
    assert [pause_s(count) for count in (0, 1, 2, 3, 9)] == [2, 2, 4, 8, 60]
