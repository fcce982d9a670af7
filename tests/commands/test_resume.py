"""A run killed in any way and resumed by the same command gives the result of an uninterrupted run, to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers.executor_helpers import gone
from tests.helpers.run_helpers import capsbench, contents, events_of, repeatable, started, wait_for, write_suite

HELD = "run_helpers:HeldNet"
RUN_DIR = Path("runs/small")


def command(suite: Path, executor: str) -> list[object]:
    return ["run", suite, "--executor", executor, "--no-mlflow"]


def final(run_dir: Path, impl: str) -> dict[str, Any]:
    """The trial's result, as far as it must be the same, and its weights."""
    for path in run_dir.glob("trials/*/result.json"):
        result = json.loads(path.read_text())
        if result["impl"] == impl:
            files = {name: (path.parent / name).read_bytes() for name in ("weights.safetensors", "best.safetensors")}
            best = {key: result[key] for key in ("best_epoch", "best_test_err_pct", "epochs_trained")}
            return {**repeatable(result), **best, **files}
    raise AssertionError(f"no result of {impl}")


def kinds(run_dir: Path) -> list[str]:
    return [event["kind"] for event in events_of(run_dir, HELD)]


def held(run_dir: Path, epoch: int) -> bool:
    """Whether HeldNet is in the middle of this epoch, and the other trial is through."""
    logs = [path.read_text() for path in run_dir.glob("trials/*/attempt-*.log")]
    through = any(event["kind"] == "result" for event in events_of(run_dir, "numpy"))
    return through and any(f"held in epoch {epoch}\n" in log for log in logs)


def family(process: subprocess.Popen[str], run_dir: Path) -> list[int]:
    """The driver, the worker of HeldNet, and every other process they have started."""
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    return [process.pid, worker_pid(run_dir), *children]


def worker_pid(run_dir: Path) -> int:
    return next(event["pid"] for event in reversed(events_of(run_dir, HELD)) if event["kind"] == "attempt")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = capsbench(folder, *command(suite_in(folder), "inline"))
    assert done.returncode == 0, done.stderr
    result = final(folder / RUN_DIR, HELD)
    assert len(result["epochs"]) == 4
    return result


def suite_in(folder: Path) -> Path:
    return write_suite(folder, train={"epochs": 4}, runtime={"retries": 0}, grid={"impl": ["numpy", HELD]})


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_killed_thrice(executor: str, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    run_dir = tmp_path / RUN_DIR
    again = command(suite_in(tmp_path), executor)

    # the worker, by the kernel, in its second epoch
    with started(tmp_path, *again, CAPSBENCH_TEST_HOLD="2") as process:
        wait_for(lambda: held(run_dir, 2), "second epoch", process)
        processes = family(process, run_dir)
        os.kill(worker_pid(run_dir), signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert "Traceback" not in stderr
    assert f"{HELD} seed 0 failed: worker was killed by SIGKILL" in stdout
    assert kinds(run_dir) == ["attempt", "parity", "ready", "epoch", "failed"]
    assert gone(processes)
    finished = contents(run_dir, f"trials/{trial_id(run_dir, 'numpy')}/*")

    # Ctrl-C, which a terminal sends to every process of the foreground group, in the third
    with started(tmp_path, *again, CAPSBENCH_TEST_HOLD="3") as process:
        wait_for(lambda: held(run_dir, 3), "third epoch", process)
        processes = family(process, run_dir)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert f"To go on: capsbench run {tmp_path / 'small.yaml'} --executor {executor} --no-mlflow" in stdout
    assert kinds(run_dir)[5:] == ["attempt", "parity", "ready", "epoch", "interrupted"]
    assert gone(processes)

    # the driver, by the kernel, in the fourth
    with started(tmp_path, *again, CAPSBENCH_TEST_HOLD="4") as process:
        wait_for(lambda: held(run_dir, 4), "fourth epoch", process)
        processes = family(process, run_dir)
        process.kill()
        assert gone(processes)
    assert kinds(run_dir)[10:] == ["attempt", "parity", "ready", "epoch"]

    done = capsbench(tmp_path, *again)
    assert done.returncode == 0, done.stderr
    assert "started, resuming after epoch 3" in done.stdout
    attempts = [event for event in events_of(run_dir, HELD) if event["kind"] == "attempt"]
    assert [event["resumed_epoch"] for event in attempts] == [0, 1, 2, 3]
    assert final(run_dir, HELD) == undisturbed
    assert contents(run_dir, f"trials/{trial_id(run_dir, 'numpy')}/*") == finished


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def test_a_damaged_checkpoint_costs_an_epoch_and_no_more(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    run_dir = tmp_path / RUN_DIR
    again = command(suite_in(tmp_path), "inline")
    with started(tmp_path, *again, CAPSBENCH_TEST_HOLD="4") as process:
        wait_for(lambda: held(run_dir, 4), "fourth epoch", process)
        processes = family(process, run_dir)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert gone(processes)
    folder = run_dir / "trials" / trial_id(run_dir, HELD)
    second, third = (folder / f"epoch-000{epoch}.safetensors" for epoch in (2, 3))
    flip(third)

    # back to the second epoch, and broken off again in the third
    with started(tmp_path, *again, CAPSBENCH_TEST_HOLD="3") as process:
        wait_for(lambda: held(run_dir, 3), "third epoch", process)
        processes = family(process, run_dir)
        os.killpg(process.pid, signal.SIGINT)
        stdout, _ = process.communicate(timeout=60)
    assert gone(processes)
    went_on = "training goes on after epoch 2, from epoch-0002.safetensors, the last whole checkpoint"
    assert f"warning: {third.relative_to(tmp_path)} is damaged: its SHA-256 begins with " in stdout
    assert f"; {went_on}\n" in stdout
    assert "started, resuming after epoch 2" in stdout

    flip(second)
    done = capsbench(tmp_path, *again)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    afresh = "there is no whole checkpoint: training starts from the beginning"
    assert f"warning: {second.relative_to(tmp_path)} is damaged: its SHA-256 begins with " in done.stdout
    assert f"; {afresh}\n" in done.stdout
    attempts = [event for event in events_of(run_dir, HELD) if event["kind"] == "attempt"]
    assert [event["resumed_epoch"] for event in attempts] == [0, 2, 0]
    result = json.loads((folder / "result.json").read_text())
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1, 2, 3, 4]
    assert [each.rpartition("; ")[2] for each in result["warnings"][:2]] == [went_on, afresh]
    assert final(run_dir, HELD) == undisturbed


def trial_id(run_dir: Path, impl: str) -> str:
    return next(event["trial"] for event in events_of(run_dir, impl))


def test_a_framework_goes_on_exactly(tmp_path: Path) -> None:
    """Adam's moments, the learning rate and the order of the images: nothing of torch's is lost with its process."""
    suite = write_suite(
        tmp_path,
        data={"train": 320},
        train={"epochs": 5, "lr_decay": {"steps": 20}},
        runtime={"retries": 0},
        parity={"gate": False},
        grid={"impl": ["torch"]},
    )
    reference = tmp_path / "reference"
    done = capsbench(tmp_path, *command(suite, "inline"), "--out", reference)
    assert done.returncode == 0, done.stderr

    def second_epoch() -> bool:
        events = events_of(tmp_path / RUN_DIR, "torch")
        return bool(events) and events[-1]["kind"] == "epoch"

    with started(tmp_path, *command(suite, "inline")) as process:
        wait_for(second_epoch, "second epoch", process)
        os.kill(events_of(tmp_path / RUN_DIR, "torch")[0]["pid"], signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == 1
    events = events_of(tmp_path / RUN_DIR, "torch")
    assert (events[-1]["kind"], events[-1]["error"]) == ("failed", "SIGKILL")
    assert 1 <= sum(event["kind"] == "epoch" for event in events) < 5
    done = capsbench(tmp_path, *command(suite, "inline"))
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch" in done.stdout
    assert final(tmp_path / RUN_DIR, "torch") == final(reference / "small", "torch")


def test_one_driver_at_a_time(tmp_path: Path) -> None:
    run_dir = tmp_path / RUN_DIR
    suite = suite_in(tmp_path)
    with started(tmp_path, *command(suite, "inline"), CAPSBENCH_TEST_HOLD="1") as process:
        wait_for(lambda: held(run_dir, 1), "first epoch", process)
        plan = json.loads(capsbench(tmp_path, "plan", suite, "--json").stdout)
        assert {trial["impl"]: trial["state"] for trial in plan["trials"]} == {"numpy": "finished", HELD: "running"}
        before = contents(run_dir, "**/*.json*")
        second = capsbench(tmp_path, *command(suite, "inline"))
        assert second.returncode == 2
        assert f"runs/small is in use by process {process.pid}" in second.stderr
        assert contents(run_dir, "**/*.json*") == before
        processes = family(process, run_dir)
    assert gone(processes)
    after = json.loads(capsbench(tmp_path, "plan", suite, "--json").stdout)
    assert [trial["state"] for trial in after["trials"]] == ["finished", "interrupted"]
