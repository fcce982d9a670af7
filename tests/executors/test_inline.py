"""The inline executor, and what all executors share; drivers that get killed run in their own processes."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.executors.base import Capacity, check_fits
from harness.executors.inline import InlineExecutor
from harness.machine.leases import local_cores
from harness.supervisor.seat import interruptible
from tests.helpers.driver_helpers import ROOT, driver
from tests.helpers.executor_helpers import Record, gone, tiny_job, tiny_trial
from tests.helpers.gpu_helpers import put_gpus

pytestmark = pytest.mark.usefixtures("all_cores")


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this host runs, these trials do not wait for it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_one_trial_after_another_whatever_becomes_of_each(tmp_path: Path) -> None:
    record = Record()
    jobs = [tiny_job(tmp_path, impl) for impl in ("TinyNet", "KilledNet", "SlowNet")]
    InlineExecutor().run(jobs, record)
    assert record.kinds("TinyNet-0")[-1] == "result"
    once = ["attempt", "ready", "epoch"]
    assert record.kinds("KilledNet-0") == [*once, "warning", "interrupted", "attempt", "ready", "failed"]
    assert record.kinds("SlowNet-0")[-1] == "result"
    assert [event["trial"] for event in record.events] == sorted(
        (event["trial"] for event in record.events), key=["TinyNet-0", "KilledNet-0", "SlowNet-0"].index
    )


def test_a_trial_gets_as_many_cores_as_it_asks_for(tmp_path: Path) -> None:
    record = Record()
    InlineExecutor().run([tiny_job(tmp_path, cpus=len(local_cores()))], record)
    assert record.of("TinyNet-0", "attempt")[0]["cores"] == list(local_cores())


def test_gpus_left_visible_are_given_to_gpu_trials_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(tmp_path, monkeypatch, 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    executor, record = InlineExecutor(), Record()
    assert executor.capacity() == Capacity(len(local_cores()), 2, 1)
    executor.run([tiny_job(tmp_path, gpus=1), tiny_job(tmp_path, "SlowNet", gpus=0)], record)
    assert record.of("TinyNet-0", "attempt")[0]["cuda_visible_devices"] == "4"
    assert record.of("SlowNet-0", "attempt")[0]["cuda_visible_devices"] == ""


NODES = [Capacity(8, 0, 1), Capacity(2, 4, 1)]


@pytest.mark.parametrize(("cpus", "gpus"), [(8, 0), (2, 4), (1, 1)])
def test_what_fits_on_a_node_is_accepted(cpus: int, gpus: int) -> None:
    check_fits([tiny_trial(cpus=cpus, gpus=gpus)], NODES)


@pytest.mark.parametrize(
    ("cpus", "gpus", "change"),
    [
        (9, 0, "-s resources.cpus=8"),
        (1, 5, "-s resources.gpus=4"),
        (9, 5, "-s resources.cpus=8 -s resources.gpus=4"),
        (8, 1, "-s resources.gpus=0"),  # each is there, but not on one node
    ],
)
def test_what_fits_on_no_node_is_refused(cpus: int, gpus: int, change: str) -> None:
    with pytest.raises(UserError) as refused:
        check_fits([tiny_trial(), tiny_trial("SlowNet", cpus=cpus, gpus=gpus)], NODES)
    message = str(refused.value)
    assert f"SlowNet-0 (tests.helpers.executor_helpers:SlowNet) asks for {cpus} CPUs and {gpus} GPUs" in message
    assert "at most 8 CPUs and 4 GPUs" in message
    assert message.endswith(f"Ask for less: {change}")


def test_an_inline_executor_refuses_what_this_machine_lacks() -> None:
    with pytest.raises(UserError, match="Ask for less"):
        InlineExecutor().check([tiny_trial(cpus=len(local_cores()) + 1)])


def test_a_job_travels_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPSBENCH_DATA", "/data")
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.chdir(tmp_path)
    document = json.loads(json.dumps(tiny_job(Path("runs/tiny")).document()))
    assert document["folder"] == str(tmp_path / "runs/tiny/trials/TinyNet-0")
    assert document["environ"]["CAPSBENCH_DATA"] == "/data"
    assert "SECRET" not in document["environ"]
    assert str(ROOT) in document["environ"]["PYTHONPATH"].split(os.pathsep)
    assert not [path for path in document["environ"]["PYTHONPATH"].split(os.pathsep) if "site-packages" in path]


def test_signals_are_noted_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        with interruptible() as stop:
            assert not stop.is_set()
            signal.raise_signal(number)
            assert stop.is_set()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_driver_ends_its_trial_and_begins_no_other(tmp_path: Path, number: signal.Signals) -> None:
    with driver("inline", tmp_path, "EndlessNet", "TinyNet") as started:
        started.until("epoch")
        family = started.family()
        os.killpg(started.process.pid, number)  # as a terminal does
        assert started.rest() == ""
        assert started.process.returncode == 130
        assert started.kinds("EndlessNet") == ["attempt", "ready", "epoch", "interrupted"]
        assert started.kinds("TinyNet") == []
        assert gone(family)


@pytest.mark.parametrize("impl", ["EndlessNet", "HoldingNet"])
def test_a_killed_driver_takes_its_worker_along(tmp_path: Path, impl: str) -> None:
    with driver("inline", tmp_path, impl) as started:
        started.until("epoch")
        family = started.family()
        started.process.kill()
        assert gone(family)


def test_two_drivers_do_not_share_cores(tmp_path: Path) -> None:
    everything = f"EndlessNet*{len(local_cores())}"
    with driver("inline", tmp_path / "one", everything) as one:
        one.until("epoch")
        with driver("inline", tmp_path / "two", everything) as two:
            two.until("waiting")
            assert "in use by another trial on this host" in two.events[-1]["message"]
            one.process.send_signal(signal.SIGINT)
            one.rest()
            two.until("epoch")
            two.process.send_signal(signal.SIGINT)
            two.rest()
            assert two.kinds("EndlessNet") == ["attempt", "ready", "epoch", "interrupted"]


def test_a_driver_that_waits_can_be_interrupted(tmp_path: Path) -> None:
    everything = f"EndlessNet*{len(local_cores())}"
    with driver("inline", tmp_path / "one", everything) as one:
        one.until("epoch")
        with driver("inline", tmp_path / "two", everything) as two:
            two.until("waiting")
            two.process.send_signal(signal.SIGINT)
            assert two.rest() == ""
            assert two.process.returncode == 130
