"""Leases, held by threads and processes that really compete for them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.machine import leases
from harness.machine.claims import PLACE, holder
from harness.machine.environment import gpu_ids
from harness.machine.leases import lease, local_cores, local_gpus, scratch_folder, stale_gpus
from tests.helpers.gpu_helpers import put_gpus

HOLD = """
import sys, time
from harness.machine.leases import lease, scratch_folder
with lease("core", [0, 1], int(sys.argv[1])), scratch_folder() as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leases of this test's own, here and in the processes it starts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv(PLACE, f"{os.getpid()}-{tmp_path.name}")
    return tmp_path / f"capsbench-{os.getuid()}"


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver with two GPUs, one of them in parts."""
    return put_gpus(tmp_path, monkeypatch, 2, parts="MIG-2e11")


def test_leases_are_disjoint_and_given_back() -> None:
    with lease("core", [4, 5, 7], 1) as first, lease("core", [4, 5, 7], 2) as second:
        assert sorted(first + second) == [4, 5, 7]
    with lease("core", [4, 5, 7], 3) as again:
        assert sorted(again) == [4, 5, 7]


def test_kinds_do_not_compete_and_ids_may_be_anything() -> None:
    with lease("core", [0], 1), lease("gpu", ["0", "GPU-8a/b"], 2) as gpus:
        assert gpus == ("0", "GPU-8a/b")


def test_nothing_asked_is_nothing_held() -> None:
    with lease("gpu", [], 0) as none:
        assert none == ()


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="asked for 3 x core, but this node has 2"), lease("core", [0, 1], 3):
        pass


def test_waits_for_its_turn_and_says_so_once() -> None:
    told: list[str] = []
    waits, got = threading.Event(), threading.Event()

    def want() -> None:
        def waiting(message: str) -> None:
            told.append(message)
            waits.set()

        with lease("core", [0, 1], 2, waiting=waiting):
            got.set()

    thread = threading.Thread(target=want)
    with lease("core", [0, 1], 1, holder="runs/mnist"):
        thread.start()
        assert waits.wait(30)
        assert not got.is_set()
    thread.join(30)
    assert got.is_set()
    [line] = told
    assert line.startswith("waiting for 2 x core: in use by another trial on this host: ")
    assert re.search(rf": process {os.getpid()} \(runs/mnist\), since \d\d:\d\d$", line)


def test_those_that_want_all_do_not_block_each_other() -> None:
    passes: list[int] = []

    def want() -> None:
        for _ in range(3):
            with lease("core", [0, 1], 2) as cores:
                passes.append(len(cores))

    threads = [threading.Thread(target=want) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert passes == [2] * 9


def test_stop_ends_the_waiting_and_leaves_the_turn_to_others() -> None:
    stop = threading.Event()
    with lease("core", [0, 1], 1) as (held,):
        with (
            pytest.raises(KeyboardInterrupt),
            lease("core", [0, 1], 2, waiting=lambda _: stop.set(), stop=stop),
        ):
            pass
        with lease("core", [0, 1], 1) as (other,):
            assert {held, other} == {0, 1}


def test_a_killed_process_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, "2"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        left_behind = Path(process.stdout.readline().strip())
        assert left_behind.is_dir()
        waited: list[str] = []

        def kill(message: str) -> None:
            waited.append(message)
            process.send_signal(signal.SIGKILL)

        with lease("core", [0, 1], 1, waiting=kill) as (core,):
            assert core in (0, 1)
        assert waited
        process.wait()
    with scratch_folder() as mine:
        assert mine.is_dir()
        assert not left_behind.exists()
    assert not mine.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets need Linux")
def test_another_folder_for_temporary_files_is_the_same_machine(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = {**os.environ, "TMPDIR": str(tmp_path / "other")}
    with subprocess.Popen([sys.executable, "-c", HOLD, "2"], stdout=subprocess.PIPE, text=True, env=other) as process:
        assert process.stdout
        process.stdout.readline()
        told: list[str] = []

        def kill(message: str) -> None:
            told.append(message)
            process.kill()

        with lease("core", [0, 1], 1, waiting=kill):
            pass
    assert f"process {process.pid} ({sys.executable} -c" in told[0]


SQUAT = """
import os, socket, sys, time
os.setuid(12345)
held = [socket.socket(socket.AF_UNIX) for _ in sys.argv[1:]]
for each, name in zip(held, sys.argv[1:]):
    each.bind("\\0" + name)
    each.listen()
print(flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root can be another user")
def test_another_user_cannot_block_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"capsbench/{os.environ[PLACE]}/{name}" for name in ("core.turn", "core-0")]
    monkeypatch.setattr(leases, "_FOREIGN_S", 0.5)
    monkeypatch.setattr(leases, "_IDLE", 1e3)  # whatever else runs there
    with subprocess.Popen([sys.executable, "-c", SQUAT, *names], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        told: list[str] = []
        with lease("core", [0], 1, waiting=told.append) as cores:
            assert cores == (0,)
            found = holder("core-0")
            assert found
            assert found.pid == process.pid
        process.kill()
    assert "of user 12345" in told[0]
    assert "core-0 is claimed by process" in told[-1]
    assert "used all the same" in told[-1]


def test_a_scratch_folder_in_use_is_left_alone(own_leases: Path) -> None:
    with scratch_folder() as first:
        (first / "weights").touch()
        with scratch_folder() as second:
            assert (first / "weights").exists()
            assert second != first
    assert not list(own_leases.glob("scratch-*"))


def test_a_folder_that_cannot_be_used_is_named(own_leases: Path) -> None:
    own_leases.touch()
    with pytest.raises(UserError, match=f"{own_leases}.*set TMPDIR"), lease("core", [0], 1):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_somebody_elses_folder_is_refused(own_leases: Path) -> None:
    own_leases.mkdir()
    os.chown(own_leases, 12345, 12345)
    with pytest.raises(UserError, match="belongs to another user"), lease("core", [0], 1):
        pass


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_only_the_cores_left_to_this_process_count() -> None:
    core = max(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); "
    code += "from harness.machine.leases import local_cores; print(local_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"({core},)"
    assert core in local_cores()


@pytest.mark.parametrize(
    ("visible", "gpus", "absent"),
    [
        ("", (), ()),
        ("-1", (), ()),
        ("0", ("0",), ()),
        ("1, 0", ("1", "0"), ()),
        ("0,-1,1", ("0",), ()),
        ("GPU-1f", ("GPU-1f",), ()),
        ("MIG-2e", ("MIG-2e",), ()),
        ("7", (), ("7",)),
        ("0,7,GPU-ff", ("0",), ("7", "GPU-ff")),
    ],
)
def test_gpus_are_those_left_visible_of_those_that_are_there(
    visible: str, gpus: tuple[str, ...], absent: tuple[str, ...], two_gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local_gpus() == gpus
    said = stale_gpus()
    assert (said is None) == (not absent)
    if said:
        assert said.startswith(f"CUDA_VISIBLE_DEVICES names {', '.join(absent)}, but the driver shows no such GPU")
        assert ("trials use the CPU" in said) == (not gpus)


def test_a_variable_makes_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local_gpus() == ()
    assert "0, but the driver shows no such GPU: trials use the CPU" in str(stale_gpus())


def test_the_driver_is_asked_where_its_tools_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for address, uuid in (("0000:3b:00.0", "GPU-1fab"), ("0000:af:00.0", "GPU-22cd")):
        folder = tmp_path / "driver" / "nvidia" / "gpus" / address
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_ids(tmp_path) == (("0", "1"), ())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-1fab,2")
    assert gpu_ids(tmp_path) == (("1", "GPU-1fab"), ("2",))


def test_gpus_are_asked_of_nvidia_smi(two_gpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local_gpus() == ("0", "1")
    tool = two_gpus
    tool.write_text("#!/bin/sh\necho 'Driver/library version mismatch'\nexit 18\n")
    assert local_gpus() == ()
