"""Warm workers: forks that end as processes of their own do, and keep nothing from each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from harness.events import AttemptEvent, EpochEvent, FailedEvent, InterruptedEvent, ResultEvent, TrialEvent
from harness.executors.base import Job
from harness.machine.leases import local_cores
from harness.spec.trial import Trial
from harness.supervisor import warm
from harness.supervisor.seat import Seat
from harness.supervisor.trial import run_attempt
from tests.helpers.executor_helpers import tiny_trial

pytestmark = pytest.mark.skipif(not warm.IS_POSSIBLE, reason="forks of a warm worker need Linux")
FAULTY = '''
import os, random
import numpy as np
from impls.numpy import NumpyImpl

seen = []

class Faulty(NumpyImpl):
    """Spoils its process as its seed says, after its first epoch."""

    def train(self, plan):
        assert not seen and "SPOILT" not in os.environ, "another trial's state"
        totals = super().train(plan)
        seen.append(random.random())
        os.environ["SPOILT"] = "1"
        np.random.seed(0)
        how = int(open("how").read())
        if how == 1:
            raise RuntimeError("on purpose")
        if how == 2:
            os.kill(os.getpid(), 11)
        if how == 3:
            os._exit(7)
        seen.clear()
        del os.environ["SPOILT"]
        return totals
'''


@pytest.fixture(autouse=True)
def no_worker_left() -> Generator[None]:  # pyright: ignore[reportUnusedFunction]
    yield
    warm.close()


def attempt(trial: Trial, run_dir: Path, *, is_warm: bool, emit: Any = None, **options: Any) -> list[TrialEvent]:
    """The events of an attempt."""
    job = Job(trial, run_dir, warm=is_warm)
    job.folder.mkdir(parents=True)
    events: list[TrialEvent] = []

    def tell(event: TrialEvent) -> None:
        events.append(event)
        if emit:
            emit(event)

    run_attempt(job.document(), Seat(local_cores()[:1]), tell, job.log_path, job.folder, None, **options)
    return events


def facts(events: list[TrialEvent]) -> list[dict[str, Any]]:
    """What the events say of the result, without times and places."""
    kept = (
        "train_loss",
        "val_loss",
        "val_err_pct",
        "plan_sha256",
        "files",
        "test_loss",
        "test_err_pct",
        "weights_sha256",
    )
    return [{name: value for name, value in event.to_json().items() if name in kept} for event in events]


def test_the_same_bits_as_in_a_process_of_its_own(tmp_path: Path) -> None:
    runs = [
        attempt(
            tiny_trial(seed=seed, validation=8).model_copy(update={"impl": "numpy"}),
            tmp_path / f"{seed}-{is_warm}",
            is_warm=is_warm,
        )
        for seed in (0, 1)
        for is_warm in (True, False)
    ]
    for forked, own in zip(runs[::2], runs[1::2], strict=True):
        assert facts(forked) == facts(own)
        assert isinstance(forked[-1], ResultEvent)
    first, second = (next(each for each in run if isinstance(each, AttemptEvent)) for run in runs[:2])
    assert first.warm
    assert not second.warm
    assert first.pid != second.pid
    assert "weights.safetensors" in str(facts(runs[0]))  # their SHA-256 was compared


def test_a_fork_takes_what_an_earlier_one_has_compiled(tmp_path: Path) -> None:
    trial = tiny_trial(validation=8).model_copy(update={"impl": "jax"})
    compiled: list[set[str]] = []
    runs: list[list[TrialEvent]] = []
    for each in ("first", "second"):
        runs.append(attempt(trial, tmp_path / each, is_warm=True))
        worker = warm._kept  # pyright: ignore[reportPrivateUsage]
        assert worker is not None
        compiled.append({path.name for path in Path(worker.compiled).iterdir() if path.name.endswith("-cache")})
    warm.close()
    assert not Path(worker.compiled).exists()
    assert compiled[0] == compiled[1] != set()
    assert facts(runs[0]) == facts(runs[1]) == facts(attempt(trial, tmp_path / "own", is_warm=False))


def test_what_one_trial_does_no_other_one_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spoiling_impl.py").write_text(FAULTY)
    trial = tiny_trial().model_copy(update={"impl": "spoiling_impl:Faulty"})
    causes = ["RuntimeError: on purpose", "killed by SIGSEGV", "exited with code 7"]
    workers: list[object] = []
    for how, cause in enumerate(causes, 1):
        Path("how").write_text(str(how))
        failed = attempt(trial, tmp_path / str(how), is_warm=True)[-1]
        assert isinstance(failed, FailedEvent)
        assert cause in failed.cause
        workers.append(warm._kept)  # pyright: ignore[reportPrivateUsage]
    Path("how").write_text("0")
    after = attempt(trial, tmp_path / "after", is_warm=True)
    assert isinstance(after[0], AttemptEvent)
    assert after[0].warm
    assert isinstance(after[-1], ResultEvent)
    assert {*workers} == {warm._kept} != {None}  # pyright: ignore[reportPrivateUsage] (one worker forked them all)


def test_a_killed_worker_takes_one_trial_with_it_and_is_replaced(tmp_path: Path) -> None:
    def kill(event: TrialEvent) -> None:
        if isinstance(event, EpochEvent):
            worker = warm._kept  # pyright: ignore[reportPrivateUsage]
            assert worker is not None
            os.kill(worker._process.pid, signal.SIGKILL)  # pyright: ignore[reportPrivateUsage]
            time.sleep(0.1)

    events = attempt(tiny_trial(epochs=50), tmp_path / "killed", is_warm=True, emit=kill)
    assert isinstance(events[-1], FailedEvent)
    assert "SIGKILL" in events[-1].cause
    events = attempt(tiny_trial(), tmp_path / "next", is_warm=True)
    assert isinstance(events[-1], ResultEvent)
    assert isinstance(events[0], AttemptEvent)
    assert events[0].warm


def test_stop_ends_the_fork(tmp_path: Path) -> None:
    stop = threading.Event()
    pids: list[int] = []

    def halt(event: TrialEvent) -> None:
        pids.extend([event.pid] if isinstance(event, AttemptEvent) else [])
        if isinstance(event, EpochEvent):
            stop.set()

    events = attempt(tiny_trial(epochs=1000), tmp_path / "a", is_warm=True, emit=halt, stop=stop)
    assert isinstance(events[-1], InterruptedEvent)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_timed_trial_ends_the_warm_worker(tmp_path: Path) -> None:
    attempt(tiny_trial(), tmp_path / "warm", is_warm=True)
    attempt(tiny_trial(), tmp_path / "own", is_warm=False)
    assert warm._kept is None  # pyright: ignore[reportPrivateUsage]


def test_code_that_starts_threads_gets_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("threaded_impl.py").write_text(
        "import threading\nfrom impls.numpy import NumpyImpl\n\nclass Threaded(NumpyImpl):\n    pass\n\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    events = attempt(tiny_trial().model_copy(update={"impl": "threaded_impl:Threaded"}), tmp_path / "a", is_warm=True)
    assert isinstance(events[0], AttemptEvent)
    assert not events[0].warm
    assert isinstance(events[-1], ResultEvent)


def test_the_end_of_the_supervisor_ends_the_worker(tmp_path: Path) -> None:
    code = (
        "import sys, os\nfrom pathlib import Path\nfrom tests.supervisor.test_warm import attempt, tiny_trial, warm\n"
        f"attempt(tiny_trial(), Path({str(tmp_path / 'a')!r}), is_warm=True)\n"
        "print(warm._kept._process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and Path(f"/proc/{pid}/cmdline").exists():
        if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists()
