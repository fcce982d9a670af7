"""Nodes that differ: one without capsbench, one without the data, one with a GPU of another type."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.data import resolved
from harness.errors import UserError
from harness.executors.base import Capacity, check_fits
from harness.executors.parcels import Parcel, Piece, delivered, packed
from harness.machine.gpu_type import gpu_type
from harness.machine.whole_node import node_lease
from harness.spec.trial import DataConfig, Trial
from tests.helpers import node_helpers
from tests.helpers.executor_helpers import Record, tiny_job, tiny_trial


def a_type(trial: Trial, name: str) -> Trial:
    return trial.model_copy(update={"gpu_type": name})


# What fits where


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA A100-SXM4-40GB", "A100"), ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA H200", "H200"), ("Tesla T4", "T4"), ("NVIDIA RTX PRO 6000 Blackwell", "RTX-PRO-6000"),
        ("NVIDIA GeForce RTX 5090", "GeForce-RTX-5090"), ("", None),
    ],
)  # fmt: skip
def test_types_are_called_what_ray_calls_them(product: str, expected: str | None) -> None:
    assert gpu_type(product) == expected
    nvidia = pytest.importorskip("ray._private.accelerators.nvidia_gpu")
    assert nvidia.NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(product) == expected


def test_a_trial_fits_where_its_type_of_gpu_is() -> None:
    nodes = [Capacity(8, 2, 1, ("A100",)), Capacity(2, 1, 1, ("H100",)), Capacity(8, 0, 1)]
    check_fits([a_type(tiny_trial(gpus=1), "H100"), a_type(tiny_trial(cpus=8), "H100")], nodes)
    with pytest.raises(UserError, match=r'asks for a GPU of type h100.*did you mean "H100"\? Valid: A100, H100'):
        check_fits([a_type(tiny_trial(gpus=1), "h100")], nodes)
    with pytest.raises(UserError, match="no node says of which type its GPUs are"):
        check_fits([a_type(tiny_trial(gpus=1), "H100")], [Capacity(8, 4, 1)])
    with pytest.raises(
        UserError, match="asks for 4 CPUs and 1 GPUs, more than a node has: at most 2 CPUs and 1 GPUs on one of 1"
    ):
        check_fits([a_type(tiny_trial(gpus=1, cpus=4), "H100")], nodes)


# A node for one trial alone


@pytest.fixture
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machine.whole_node.own_folder", lambda: tmp_path)


@pytest.mark.usefixtures("own_leases")
def test_a_node_is_had_by_many_or_by_one_and_nobody_overtakes() -> None:
    order: list[str] = []
    told: list[str] = []

    def trial(name: str, is_exclusive: bool) -> None:
        with node_lease(is_exclusive, waiting=told.append):
            order.append(name)

    with node_lease(False), node_lease(False):
        alone = threading.Thread(target=trial, args=("alone", True))
        alone.start()
        until(lambda: len(told) == 1)
        later = threading.Thread(target=trial, args=("later", False))
        later.start()
        until(lambda: len(told) == 2)
        assert order == []
    alone.join(10)
    later.join(10)
    assert order == ["alone", "later"]
    assert "wants it alone" in told[0]
    stop = threading.Event()
    stop.set()
    with node_lease(True), pytest.raises(KeyboardInterrupt), node_lease(False, stop=stop):
        pass


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Data


def pictures(folder: Path) -> Path:
    path = folder / "pictures.npz"
    images = np.random.default_rng(0).integers(0, 255, (60, 28, 28), np.uint8)
    np.savez(path, images=images, labels=np.arange(60) % 10)
    return path


class Reading:
    """The driver's files, as read from a node."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: str, start: int, size: int) -> bytes:
        self.count += 1
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(size)


def test_data_travel_once_and_what_is_not_what_was_packed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "driver"
    there.mkdir()
    config = resolved(DataConfig(name="npz", path=str(pictures(tmp_path)), dir=str(there)))
    parcel = packed(config)
    assert {piece.place.rpartition("/")[2] for piece in parcel.pieces} >= {"facts.json", "training-images.npy"}
    reading, told = Reading(), list[str]()
    assert delivered(parcel, config, {}, reading, told.append) is None  # it has them

    moved = Parcel(tuple(Piece(p.place, p.path.replace("driver", "away"), p.sha256, p.bytes) for p in parcel.pieces))
    there.rename(tmp_path / "away")
    elsewhere = Parcel(tuple(Piece(p.place, p.path + "?", p.sha256, p.bytes) for p in moved.pieces))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read = lambda path, start, size: reading(path.rstrip("?"), start, size)  # noqa: E731
    folder = delivered(elsewhere, config, {}, read, told.append)
    assert folder
    assert told[0].startswith("fetching 0 MB")
    assert {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.*")} == {
        p.place for p in parcel.pieces
    }
    count = reading.count
    assert delivered(elsewhere, config, {}, read, told.append) == folder
    assert reading.count == count  # once

    damaged = Path(folder, parcel.pieces[-1].place)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert delivered(elsewhere, config, {}, read, told.append) == folder
    assert reading.count == 2 * count
    assert Path(folder, parcel.pieces[-1].place).read_bytes()[-1:] != b"?"

    source = Path(moved.pieces[0].path)
    source.write_bytes(source.read_bytes()[:-1] + b"?")
    damaged.unlink()
    with pytest.raises(UserError, match="changed on the driver's node"):
        delivered(elsewhere, config, {}, read, told.append)
    assert not list(Path(folder).parent.glob(".*"))


def test_published_files_are_packed_where_they_are_looked_for(mnist_dir: Path) -> None:
    for name in ("mnist", "mnist-expanded", "multimnist"):
        parcel = packed(DataConfig(name=name, dir=str(mnist_dir)))
        assert sorted(piece.place.partition("/")[0] for piece in parcel.pieces) == ["mnist"] * 4
    assert packed(DataConfig(name="digits")).pieces == ()


# A cluster


@pytest.mark.skipif(not node_helpers.is_possible(), reason="needs the right to make namespaces")
def test_nodes_that_lack_something_are_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    for limit in ("nodes.ANSWER_S", "reach._ANSWER_S", "reach._CONNECT_S"):  # however busy this machine is
        monkeypatch.setattr(f"harness.executors.{limit}", 120.0)
    from harness.executors.ray import RayExecutor

    hidden = tmp_path / "driver"
    hidden.mkdir()
    config = resolved(DataConfig(name="npz", path=str(pictures(hidden)), dir=str(hidden), train=16, validation=0))
    jobs = [tiny_job(tmp_path / "run", "TinyNet", seed=seed) for seed in range(2)]
    jobs[0] = jobs[0].__class__(jobs[0].trial.model_copy(update={"data": config, "exclusive": "node"}), jobs[0].run_dir)
    record = Record()
    with node_helpers.cluster(tmp_path / "nodes") as nodes:
        nodes.add("bare", hide="harness", cpus=4)
        nodes.add("empty", empty=hidden, GPU=1, accelerator_type__T4=1)
        nodes.wait()
        executor = RayExecutor(nodes.address)
        try:
            with pytest.raises(UserError, match=r"asks for a GPU of type H100.*Valid: T4"):
                executor.check([a_type(tiny_trial(gpus=1), "H100")])
            with pytest.raises(UserError, match=r"can run on no node.*node bare \(.*\): capsbench is not installed"):
                executor.check([tiny_trial(cpus=4)])
            executor.check([job.trial for job in jobs])
            (note,) = executor.notes()
            assert "no trial runs on node bare" in note
            executor.run(jobs, record)
        finally:
            executor.close()
    for seed in range(2):
        assert record.kinds(f"TinyNet-{seed}")[-1] == "result", record.of(f"TinyNet-{seed}")
        assert record.of(f"TinyNet-{seed}", "attempt")[0]["host"] == "empty"
    assert [each["message"] for each in record.of("TinyNet-0", "waiting") if "fetching" in each["message"]]
