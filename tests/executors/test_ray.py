"""The Ray executor on real Ray: a private instance with logical GPUs, killed drivers, a cluster that loses a node."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.errors import Noted, UserError
from harness.events import AttemptEvent, EpochEvent, TrialEvent
from harness.executors import reach, relay, servers
from harness.executors.base import Capacity, Lost
from harness.executors.listening import ray_instances
from harness.executors.ray import RayExecutor
from harness.machine.leases import local_cores
from harness.weights.whole import fingerprint
from tests.helpers.driver_helpers import driver
from tests.helpers.executor_helpers import FRAMEWORKS, Record, gone, tiny_job, tiny_trial, trained_epochs
from tests.helpers.gpu_helpers import put_gpus

pytest.importorskip("ray")
pytestmark = pytest.mark.usefixtures("all_cores")


@pytest.fixture(scope="module", autouse=True)
def own_leases() -> Iterator[None]:
    """Whatever else this host runs, these trials do not wait for it. A short path: Ray's sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="leases-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        yield


@pytest.fixture(scope="module")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where four MeetingNets meet. Set before Ray starts, whose workers inherit it."""
    folder = tmp_path_factory.mktemp("meeting")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPSBENCH_TEST_MEETING", f"{folder}:4")
        yield folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home in which there can be no ~/.ray, for root neither: Ray keeps a token there, if it is left to itself."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".ray").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def executor(meeting: Path, home: Path) -> Iterator[RayExecutor]:
    """One Ray for most of these tests, told of five CPUs and four GPUs."""
    before = dict(os.environ)
    executor = RayExecutor(num_cpus=5, num_gpus=4)
    yield executor
    executor.close()
    assert {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")} == {
        name: value for name, value in before.items() if name.startswith("RAY_AUTH")
    }


def supervisor_of(pid: int) -> psutil.Process:
    parent = psutil.Process(pid).parent()
    assert parent
    return parent


# Without Ray running


def test_capacity_and_refusals_need_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RayExecutor, "start", lambda _: pytest.fail("Ray was started"))
    executor = RayExecutor(num_cpus=2, num_gpus=1)
    assert executor.capacity() == Capacity(cpus=2, gpus=1, nodes=1)
    executor.check([tiny_trial(cpus=2, gpus=1)])
    with pytest.raises(UserError, match=r"asks for 1 CPUs and 2 GPUs.*-s resources\.gpus=1"):
        executor.check([tiny_trial(gpus=2)])
    with pytest.raises(UserError, match=r"-s resources\.cpus=2"):
        executor.check([tiny_trial(cpus=3)])


def test_logical_resources_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(tmp_path, monkeypatch, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert RayExecutor().capacity() == Capacity(len(local_cores()), 3, 1)
    monkeypatch.setenv("CAPSBENCH_RAY_CPUS", "16")
    monkeypatch.setenv("CAPSBENCH_RAY_GPUS", "0")
    assert RayExecutor().capacity() == Capacity(16, 0, 1)
    monkeypatch.setenv("CAPSBENCH_RAY_GPUS", "many")
    with pytest.raises(UserError, match='CAPSBENCH_RAY_GPUS is "many"'):
        RayExecutor()


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: Connection refused"),
        ("nowhere.invalid:6379", "nowhere.invalid:6379"),
        ("ray://head:10001", "Ray clients are not supported"),
        ("head", "expected host:port"),
    ],
)
def test_an_address_where_nothing_is_is_refused_at_once(address: str, cause: str) -> None:
    with pytest.raises(UserError, match=f"cannot connect to Ray at .*{re.escape(cause)}"):
        RayExecutor(address).capacity()


def test_an_address_of_something_else_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_ANSWER_S", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UserError, match="within 4 s: is it Ray"):
        RayExecutor(f"127.0.0.1:{server.getsockname()[1]}").capacity()


# On one private Ray


@dataclass
class Ordinary:
    """What was heard and seen during one run of trials of every kind."""

    run_dir: Path
    record: Record = field(default_factory=Record)
    checkpoints: list[int] = field(default_factory=list[int])  # of TinyNet, after each of its epochs
    supervisor: str = ""  # what is mapped into its memory

    def __call__(self, trial: str, event: TrialEvent) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.record(trial, event)
        if isinstance(event, AttemptEvent):
            self.supervisor = Path(f"/proc/{supervisor_of(event.pid).pid}/maps").read_text()
        if event.kind == "epoch" and trial == "TinyNet-0":
            threading.Event().wait(0.5)  # time enough for a worker that does not wait
            self.checkpoints.append(len(list((self.run_dir / "trials" / trial).glob("epoch-*.safetensors"))))


@pytest.fixture(scope="module")
def ordinary(executor: RayExecutor, tmp_path_factory: pytest.TempPathFactory) -> Ordinary:
    run_dir = tmp_path_factory.mktemp("ordinary")
    jobs = [tiny_job(run_dir, "MeetingNet", gpus=1, seed=seed) for seed in range(4)]
    jobs += [tiny_job(run_dir, impl) for impl in ("TellingNet", "KilledNet", "StarvedNet")]
    jobs += [tiny_job(run_dir, "TinyNet", cpus=5, epochs=3)]
    heard = Ordinary(run_dir)
    executor.run(jobs, heard)
    return heard


def test_four_gpu_trials_run_at_once_each_with_its_own(ordinary: Ordinary) -> None:
    trials = [f"MeetingNet-{seed}" for seed in range(4)]
    seen = [ordinary.record.of(trial, "attempt")[0]["cuda_visible_devices"] for trial in trials]
    assert sorted(seen) == ["0", "1", "2", "3"]
    assert [ordinary.record.kinds(trial)[-1] for trial in trials] == ["result"] * 4


def test_only_this_machine_and_this_driver_reach_a_private_ray(executor: RayExecutor, ordinary: Ordinary) -> None:
    driver = psutil.Process()
    listening: set[tuple[str, str, int]] = set()
    for process in [driver, *driver.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            listening |= {
                (process.name(), connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    assert {"gcs_server", "raylet"} <= {name for name, _, _ in listening}
    assert {address for _, address, _ in listening} == {"127.0.0.1"}, listening
    [told] = [each for each in ray_instances() if each.driver == os.getpid()]
    assert {(address, port) for address, port, _ in told.sockets} == {(address, port) for _, address, port in listening}
    assert told.is_private
    assert told.asks_for_token
    assert not told.exposed
    port = next(port for name, _, port in listening if name == "gcs_server")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_AUTH_TOKEN")
        with pytest.raises(UserError, match="it asks for a token, and there is none here"):
            reach.reach(f"127.0.0.1:{port}")


def test_a_cpu_trial_sees_no_gpu(ordinary: Ordinary) -> None:
    assert ordinary.record.of("TellingNet-0", "attempt")[0]["cuda_visible_devices"] == ""
    assert ordinary.record.kinds("TellingNet-0")[-1] == "result"


def test_a_killed_worker_fails_its_trial_alone(ordinary: Ordinary) -> None:
    failed = ordinary.record.of("KilledNet-0", "failed")
    assert [event["error"] for event in failed] == ["SIGKILL"]
    assert "worker was killed by SIGKILL" in failed[0]["cause"]
    assert failed[0]["cause"].endswith("; an attempt was lost before")
    (first,) = ordinary.record.of("KilledNet-0", "interrupted")
    assert (first["attempt"], first["error"], first["next_in_s"] > 0) == (1, "SIGKILL", True)
    assert [event["resumed_epoch"] for event in ordinary.record.of("KilledNet-0", "attempt")] == [0, 1]
    assert {event["attempt"] for event in ordinary.record.events if event["trial"] != "KilledNet-0"} == {1}
    assert ordinary.record.kinds("StarvedNet-0")[-1] == "failed"
    assert trained_epochs(ordinary.run_dir / "trials/TinyNet-0/weights.safetensors") == 3


def test_shared_cores_are_warned_of(ordinary: Ordinary) -> None:
    cores = local_cores()
    if len(cores) >= 5:
        pytest.skip("this machine has the five cores that Ray was told of")
    assert ordinary.record.of("TinyNet-0", "attempt")[0]["cores"] == list(cores)
    (warning,) = ordinary.record.of("TinyNet-0", "warning")
    assert warning["message"].startswith(f"Ray was told of 5 CPUs where there are {len(cores)}: trials share cores")


def test_the_next_epoch_begins_when_the_driver_has_the_last_one(ordinary: Ordinary) -> None:
    assert ordinary.checkpoints == [1, 2, 3]


def test_supervisors_load_no_framework(ordinary: Ordinary) -> None:
    assert "_raylet" in ordinary.supervisor
    assert not [name for name in FRAMEWORKS if f"/{name}/" in ordinary.supervisor]


def test_a_lost_supervisor_is_replaced_once(executor: RayExecutor, tmp_path: Path) -> None:
    record = Record()

    def emit(trial: str, event: TrialEvent) -> None:
        record(trial, event)
        once = trial == "SlowNet-0" and isinstance(event, EpochEvent) and event.epoch == 2
        always = trial == "EndlessNet-0" and event.kind == "ready"
        if once or always:
            supervisor_of(record.of(trial, "attempt")[-1]["pid"]).kill()

    executor.run([tiny_job(tmp_path, "SlowNet", epochs=4), tiny_job(tmp_path, "EndlessNet")], emit)
    first, second = record.of("SlowNet-0", "attempt")
    assert (first["attempt"], second["attempt"], second["resumed_epoch"]) == (1, 2, 2)
    assert gone([first["pid"]])
    assert [event["epoch"] for event in record.of("SlowNet-0", "epoch")] == [1, 2, 3, 4]
    assert [event["attempt"] for event in record.of("SlowNet-0", "interrupted")] == [1]
    assert record.kinds("SlowNet-0")[-1] == "result"
    assert trained_epochs(tmp_path / "trials/SlowNet-0/weights.safetensors") == 4
    assert [event["attempt"] for event in record.of("EndlessNet-0", "attempt")] == [1, 2]
    assert record.kinds("EndlessNet-0")[-1] == "failed"
    assert "its supervisor was lost" in record.of("EndlessNet-0", "failed")[0]["cause"]


def test_a_stopped_supervisor_is_replaced(
    executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "STOPPED_S", 1.0)
    record = Record()

    def emit(trial: str, event: TrialEvent) -> None:
        record(trial, event)
        if isinstance(event, EpochEvent) and (event.attempt, event.epoch) == (1, 1):
            supervisor_of(record.of(trial, "attempt")[0]["pid"]).suspend()

    executor.run([tiny_job(tmp_path, "SlowNet", epochs=3)], emit)
    first, second = record.of("SlowNet-0", "attempt")
    assert second["resumed_epoch"] >= 1
    assert [event["error"] for event in record.of("SlowNet-0", "interrupted")] == ["SupervisorLost"]
    assert [event["epoch"] for event in record.of("SlowNet-0", "epoch")] == [1, 2, 3]
    assert record.kinds("SlowNet-0")[-1] == "result"
    assert gone([first["pid"], second["pid"]])


def test_a_journal_that_cannot_be_written_ends_everything(executor: RayExecutor, tmp_path: Path) -> None:
    pids: list[int] = []

    def emit(_: str, event: TrialEvent) -> None:
        if isinstance(event, AttemptEvent):
            pids.append(event.pid)
        if isinstance(event, EpochEvent):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        executor.run([tiny_job(tmp_path, "EndlessNet", seed=seed) for seed in (0, 1)], emit)
    assert pids
    assert gone(pids, within_s=0)


# Drivers of their own


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_driver_ends_all_it_began(tmp_path: Path, number: signal.Signals) -> None:
    with driver("ray", tmp_path, "EndlessNet", "HoldingNet", "TinyNet") as started:
        started.until("epoch", 2)
        family = started.family()
        os.killpg(started.process.pid, number)  # as a terminal does: Ray's processes get it too
        assert started.rest() == ""  # and stdout was events alone
        assert started.process.returncode == 130
        assert gone(family)
        assert started.kinds("EndlessNet") == ["attempt", "ready", "epoch", "interrupted"]
        assert started.kinds("HoldingNet") == ["attempt", "ready", "epoch", "interrupted"]
        assert started.kinds("TinyNet") == []


def test_a_killed_driver_leaves_nothing_running(tmp_path: Path) -> None:
    with driver("ray", tmp_path, "EndlessNet", "HoldingNet") as started:
        started.until("epoch", 2)
        family = started.family()
        assert len(family) > 8  # Ray's, the supervisors, the workers
        started.process.kill()
        assert gone(family)


# A Ray that dies


def test_a_private_ray_that_dies_is_replaced(tmp_path: Path) -> None:
    killed = ["raylet", "gcs_server", "raylet"]
    family: set[int] = set()
    with driver("ray", tmp_path, "HeldUpNet") as started:
        for name in killed:
            started.until("epoch")
            family.update(started.family())
            alive = [
                each for each in psutil.Process(started.process.pid).children() if each.status() != psutil.STATUS_ZOMBIE
            ]
            (server,) = (each for each in alive if each.name() == name)
            server.kill()
        started.rest()
        assert started.process.returncode == 0
        assert gone(sorted(family))
        of = {
            kind: [event for event in started.events if event["kind"] == kind]
            for kind in ("epoch", "attempt", "interrupted")
        }
    assert [event["epoch"] for event in of["epoch"]] == [1, 2, 3, 4]
    assert [event["resumed_epoch"] for event in of["attempt"]] == [0, 1, 2, 3]
    assert [event["error"] for event in of["interrupted"]] == ["RayLost"] * 3
    assert [event["cause"].partition(" (process")[0] for event in of["interrupted"]] == [
        f"Ray was lost: its {name}" for name in killed
    ]
    assert started.events[-1]["kind"] == "result"


def test_a_private_ray_that_dies_when_it_is_asked_for_its_nodes_is_replaced(tmp_path: Path) -> None:
    """Ray's answer never comes then."""
    with driver("mute-ray", tmp_path, "TinyNet") as started:
        started.rest()
        assert started.process.returncode == 0
        assert started.kinds("TinyNet") == ["attempt", "ready", *["epoch"] * 4, "result"]


# A cluster


def test_a_cluster_whose_head_dies_ends_the_run_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(servers, "_KNOCK_S", 0.5)
    monkeypatch.setattr(servers, "_UNREACHABLE_S", 2.0)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    executor, record = RayExecutor(cluster.address), Record()

    def emit(trial: str, event: TrialEvent) -> None:
        record(trial, event)
        if isinstance(event, EpochEvent):
            head: Any = cluster.head_node
            head.kill_gcs_server()

    try:
        with pytest.raises(Lost, match=r"^Ray was lost: its server at [\d.]+:\d+ has not answered for "):
            executor.run([tiny_job(tmp_path, "EndlessNet")], emit)
    finally:
        executor.close()
        cluster.shutdown()
    assert record.kinds("EndlessNet-0") == ["attempt", "ready", "epoch", "interrupted"]
    assert record.of("EndlessNet-0", "interrupted")[0]["error"] == "RayLost"
    assert gone([record.of("EndlessNet-0", "attempt")[0]["pid"]])


def test_a_cluster_brings_files_home_and_survives_the_loss_of_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1)]
    executor = RayExecutor(cluster.address)
    record = Record()
    doomed = {("HeldNet-0", 2), ("HeldUpNet-0", 1), ("HeldUpNet-0", 2)}

    def emit(trial: str, event: TrialEvent) -> None:
        record(trial, event)
        folder = tmp_path / "trials" / trial
        for name in event.names().values():
            assert fingerprint(folder / name) == event.to_json()["files"][name]
        if isinstance(event, EpochEvent) and (trial, event.epoch) in doomed:  # then it waits for its end
            doomed.remove((trial, event.epoch))
            nodes.append(cluster.add_node(num_cpus=1))
            cluster.remove_node(nodes[-2], allow_graceful=False)

    try:
        monkeypatch.setenv("RAY_AUTH_TOKEN", "of-another-cluster")
        with pytest.warns(Noted, match="asks for no token: RAY_AUTH_TOKEN is not used"):
            assert executor.capacity() == Capacity(cpus=1, gpus=0, nodes=2)
        with pytest.raises(UserError, match=r"at most 1 CPUs and 0 GPUs on one of 2"):
            executor.check([tiny_trial(cpus=2)])
        keeping = tiny_job(tmp_path, "HeldNet", epochs=4, validation=16, keep_every=2, retries=0)
        twice = tiny_job(tmp_path, "HeldUpNet", epochs=3, retries=0)
        executor.run([keeping, tiny_job(tmp_path, "StarvedNet"), twice], emit)
    finally:
        executor.close()
        cluster.shutdown()
    attempts = record.of("HeldNet-0", "attempt")
    assert [event["resumed_epoch"] for event in attempts] == [0, 2]
    assert [event["resumed_epoch"] for event in record.of("HeldUpNet-0", "attempt")] == [0, 1, 2]
    assert record.kinds("HeldUpNet-0")[-1] == "result"
    assert gone([event["pid"] for event in attempts])
    assert [event["epoch"] for event in record.of("HeldNet-0", "epoch")] == [1, 2, 3, 4]
    assert record.kinds("HeldNet-0")[-1] == "result"
    folder = tmp_path / "trials/HeldNet-0"
    kept = {path.name: trained_epochs(path) for path in folder.glob("weights*")}
    assert kept == {"weights.safetensors": 4, "weights-0002.safetensors": 2, "weights-0004.safetensors": 4}
    (result,) = record.of("HeldNet-0", "result")
    assert trained_epochs(folder / "best.safetensors") == result["best_epoch"] <= 2  # found on the node that was lost
    assert "Traceback" in (tmp_path / "trials/StarvedNet-0/attempt-1.log").read_text()
