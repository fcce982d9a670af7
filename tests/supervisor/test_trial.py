"""The worker and its supervisor: every attempt here is a real process that trains a very small model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.events import TrialEvent
from harness.executors.base import Job
from harness.machine.environment import cpu_flags
from harness.machine.leases import local_cores
from harness.supervisor import trial as attempt
from harness.supervisor.seat import Seat, worker_environment
from harness.supervisor.trial import run_attempt
from harness.worker.channel import explain
from tests.helpers.executor_helpers import FRAMEWORKS, gone, tiny_job, tiny_trial, trained_epochs

SEAT = Seat(local_cores()[:1])


def run(job: Job, seat: Seat = SEAT, emit: Any = None, stop: threading.Event | None = None) -> list[dict[str, Any]]:
    """Runs one attempt; returns its events."""
    events: list[dict[str, Any]] = []

    def keep(event: TrialEvent) -> None:
        events.append(event.to_json())
        if emit:
            emit(events[-1])

    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        run_attempt(job.document(), seat, keep, job.log_path, job.folder, job.checkpoint, stop=stop)
    finally:
        assert gone([event["pid"] for event in events if event["kind"] == "attempt"], within_s=0)
    return events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in events]


def test_an_attempt_from_its_first_event_to_its_last(tmp_path: Path) -> None:
    job = tiny_job(tmp_path)
    events = run(job)
    assert kinds(events) == ["attempt", "ready", "epoch", "epoch", "result"]
    assert {(event["trial"], event["attempt"]) for event in events} == {("TinyNet-0", 1)}
    times = [event["time"] for event in events]
    assert times == sorted(times)
    first = events[0]
    assert first["cores"] == list(SEAT.cores)
    assert first["cuda_visible_devices"] == ""
    assert first["resumed_epoch"] == 0
    assert first["python"] == sys.version.split()[0]
    assert {"numpy", "capsbench"} <= set(first["versions"])
    assert trained_epochs(job.folder / events[-1]["weights"]) == 2
    assert (job.folder / events[-2]["checkpoint"]).exists()


def test_an_attempt_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    first = tiny_job(tmp_path, epochs=2)
    checkpoint = first.folder / run(first)[-2]["checkpoint"]
    second = Job(tiny_trial(epochs=4), tmp_path, attempt=2, resumed_epoch=2, checkpoint=checkpoint)
    events = run(second)
    assert [event["epoch"] for event in events if event["kind"] == "epoch"] == [3, 4]
    assert events[0]["resumed_epoch"] == 2
    assert {event["attempt"] for event in events} == {2}
    assert trained_epochs(second.folder / "weights.safetensors") == 4
    assert first.log_path.exists()
    assert second.log_path.exists()


def test_the_next_epoch_begins_when_the_last_one_is_safe(tmp_path: Path) -> None:
    safe: list[float] = []

    def emit(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            time.sleep(0.2)
            safe.append(time.time())

    events = run(tiny_job(tmp_path, epochs=3), emit=emit)
    assert [event["time"] > at for event, at in zip(events[3:], safe, strict=True)] == [True, True, True]


def test_a_worker_is_on_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    job = tiny_job(tmp_path, "TellingNet")
    events = run(job)
    told = json.loads(job.log_path.read_text().splitlines()[0])
    assert kinds(events)[-1] == "result"
    assert told["frameworks"] == []
    assert told["session"] == told["pid"] == events[0]["pid"]
    assert told["env"]["OMP_NUM_THREADS"] == "1"
    assert told["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert told["env"]["JAX_PLATFORMS"] == "cpu"
    assert not [name for name in told["env"] if name.startswith(("RAY_", "MLFLOW_"))]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is nowhere to go")
def test_a_process_that_a_library_has_moved_is_put_back_and_told_of(tmp_path: Path) -> None:
    events = run(tiny_job(tmp_path, "MovingNet"))
    [warning, *_] = [event["message"] for event in events if event["kind"] == "warning"]
    assert warning.startswith(f"before training, the process was moved from its cores ({SEAT.cores[0]}) to ")
    assert kinds(events)[-1] == "result"


def test_a_gpu_trial_sees_its_own_gpus(tmp_path: Path) -> None:
    events = run(tiny_job(tmp_path, gpus=2), Seat(SEAT.cores, ("3", "GPU-5")))
    assert events[0]["cuda_visible_devices"] == "3,GPU-5"


def test_the_environment_follows_the_trial() -> None:
    base = {
        "PATH": "/bin",
        "JAX_PLATFORMS": "cpu",
        "RAY_JOB_ID": "1",
        "TUNE_X": "1",
        "MLFLOW_RUN_ID": "1",
        "PYTHONPATH": "/a",
    }
    trial = tiny_trial(cpus=3, gpus=1)
    env = worker_environment(trial, Seat((0, 1, 2), ("7",)), base)
    assert env["PATH"] == "/bin"
    assert env["CUDA_VISIBLE_DEVICES"] == "7"
    assert "JAX_PLATFORMS" not in env
    assert {env[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"3"}
    assert env["JAX_ENABLE_X64"] == "0"
    assert env["NVIDIA_TF32_OVERRIDE"] == "0"
    assert env["PYTHONPATH"].endswith(":/a")
    assert not [name for name in env if name.startswith(("RAY_", "TUNE_", "MLFLOW_"))]
    fast = trial.model_copy(update={"runtime": trial.runtime.model_copy(update={"precision": "tf32"})})
    assert "NVIDIA_TF32_OVERRIDE" not in worker_environment(fast, SEAT, {**base, "NVIDIA_TF32_OVERRIDE": "0"})
    double = trial.model_copy(update={"runtime": trial.runtime.model_copy(update={"precision": "fp64"})})
    assert worker_environment(double, SEAT, base)["JAX_ENABLE_X64"] == "1"


@pytest.mark.parametrize(
    ("impl", "error", "cause", "hint"),
    [
        ("KilledNet", "SIGKILL", "worker was killed by SIGKILL, by hand or for memory (reached 0.", "train.batch=4"),
        ("AbortingNet", "SIGABRT", "out of memory: worker was killed by SIGABRT (reached 0.", "train.batch=4"),
        ("GluttonNet", "MemoryError", "out of memory: MemoryError: Unable to allocate 64.0 MiB", "train.batch=4"),
        ("ExitingNet", "SystemExit", "worker exited with code 3 and no result; last line of its log: last words", None),
        ("StarvedNet", "RuntimeError", "out of memory: RuntimeError: CUDA out of memory. Tried to", "train.batch=4"),
        ("RefusingNet", "UserError", "no such thing; do the other", None),
        ("MissingNet", "UserError", "has no class MissingNet", None),
    ],
)
def test_a_failure_is_an_event_with_its_cause(
    tmp_path: Path, impl: str, error: str, cause: str, hint: str | None
) -> None:
    events = run(tiny_job(tmp_path, impl))
    assert kinds(events).count("failed") == 1
    failed = events[-1]
    assert failed["kind"] == "failed"
    assert failed["error"] == error
    assert cause in failed["cause"]
    assert "\n" not in failed["cause"]
    assert (hint in failed["hint"]) if hint else failed["hint"] is None


def test_the_peak_of_a_starved_worker_is_what_it_had_taken(tmp_path: Path) -> None:
    cause = run(tiny_job(tmp_path, "GluttonNet"))[-1]["cause"]
    reached, limit = (float(size) for size in re.findall(r"([\d.]+) GB", cause))
    assert 0.3 < reached < limit  # some 0.4 GB of its own on top of what Python and NumPy had


def test_a_worker_killed_when_it_had_nearly_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "memory_bytes", lambda: 50_000_000)  # less than Python with NumPy takes
    failed = run(tiny_job(tmp_path, "KilledNet"))[-1]
    assert failed["error"] == "SIGKILL"
    assert re.fullmatch(
        r"out of memory: worker was killed by SIGKILL \(reached 0\.\d\d GB of 0\.05 GB\)", failed["cause"]
    )
    assert "train.batch=4" in failed["hint"]


def test_a_worker_killed_while_the_kernel_was_killing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([7, 8])
    monkeypatch.setattr(attempt, "out_of_memory_kills", lambda: next(counts))
    assert run(tiny_job(tmp_path, "KilledNet"))[-1]["cause"].startswith("out of memory: worker was killed by SIGKILL")


def test_a_trial_that_cannot_run_on_this_node_ends_before_it_starts(tmp_path: Path) -> None:
    trial = tiny_trial()
    fine = trial.model_copy(update={"runtime": trial.runtime.model_copy(update={"precision": "tf32"})})
    events = run(Job(fine, tmp_path))
    assert kinds(events) == ["attempt", "failed"]
    assert events[-1]["error"] == "Unavailable"
    assert events[-1]["cause"].startswith("tf32 needs an NVIDIA GPU")
    assert "runtime.precision=fp32" in events[-1]["hint"]


def test_bf16_says_where_it_is_emulated(tmp_path: Path) -> None:
    trial = tiny_trial()
    half = trial.model_copy(update={"runtime": trial.runtime.model_copy(update={"precision": "bf16"})})
    events = run(Job(half, tmp_path))
    assert events[-1]["kind"] == "result"
    said = [event["message"] for event in events if event["kind"] == "warning"]
    has_units = cpu_flags() & {"amx_bf16", "avx512_bf16", "bf16"}
    assert [message.startswith("bf16 is emulated here") for message in said] == ([] if has_units else [True])


def test_the_traceback_is_in_the_log_alone(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, "StarvedNet")
    events = run(job)
    assert "Traceback" in job.log_path.read_text()
    assert "Traceback" not in json.dumps(events)


def test_what_a_worker_has_started_dies_with_it(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, "OrphaningNet")
    assert run(job)[-1]["error"] == "SIGKILL"
    assert gone([int(job.log_path.read_text())])


def test_timing_warnings_are_events_once_each(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, "WarningNet")
    messages = [event["message"] for event in run(job) if event["kind"] == "warning"]
    assert messages == ["clock is slow", "clock is fast"]
    assert "not about timing" in job.log_path.read_text()


def test_a_stopped_attempt_is_interrupted_mid_epoch(tmp_path: Path) -> None:
    stop = threading.Event()
    events = run(tiny_job(tmp_path, "EndlessNet"), emit=lambda e: e["kind"] == "epoch" and stop.set(), stop=stop)
    assert kinds(events) == ["attempt", "ready", "epoch", "interrupted"]


def test_a_worker_that_cannot_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "GRACE_S", 0.5)
    stop = threading.Event()
    events = run(tiny_job(tmp_path, "HoldingNet"), emit=lambda e: e["kind"] == "epoch" and stop.set(), stop=stop)
    assert kinds(events) == ["attempt", "ready", "epoch", "interrupted"]


def test_an_interrupt_in_the_middle_of_things_ends_the_worker(tmp_path: Path) -> None:
    seen: list[str] = []

    def emit(event: dict[str, Any]) -> None:
        seen.append(event["kind"])
        if event["kind"] == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny_job(tmp_path, "EndlessNet"), emit=emit)
    assert seen == ["attempt", "ready", "epoch", "interrupted"]


def test_a_journal_that_cannot_be_written_ends_the_worker(tmp_path: Path) -> None:
    def emit(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(tiny_job(tmp_path, "EndlessNet"), emit=emit)


@pytest.mark.parametrize(
    ("error", "starved"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: OOM when allocating tensor"), True),
        (ValueError("Unable to allocate 8.00 GiB for an array"), True),
        (RuntimeError("no room for a zoom"), False),
        (UserError("do this"), False),
    ],
)
def test_memory_has_a_hint(error: Exception, starved: bool) -> None:
    told = explain(error)
    assert (told.hint is not None) == starved
    assert told.error == type(error).__name__


def test_a_cause_is_one_short_line() -> None:
    told = explain(ValueError("first\n  second\n" + "x" * 10_000))
    assert told.cause.startswith("ValueError: first second x")
    assert len(told.cause) < 600
    assert explain(KeyboardInterrupt()).cause == "KeyboardInterrupt"


def test_supervisors_import_no_framework() -> None:
    pytest.importorskip("ray")
    code = (
        "import sys, harness.supervisor.trial, harness.executors.base, harness.machine.leases;"
        "import harness.executors.ray, harness.executors.tune;"
        f"print([name for name in {FRAMEWORKS} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_without_a_job_ends() -> None:
    command = [sys.executable, "-m", "harness.worker.trial", "--events-fd", "1"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    assert done.stdout == b""
