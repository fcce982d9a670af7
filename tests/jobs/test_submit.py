"""A suite on a real Ray head with tokens, from outside: killed, attached to, left, stopped, resumed, brought home."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.executors.reach import Reached, reach
from harness.jobs import home
from harness.jobs.client import Jobs
from harness.journal.journal import Journal
from tests.helpers.head_helpers import HAS_JOBS, Head, head
from tests.helpers.run_helpers import capsbench, events_of, repeatable, started, wait_for, write_suite

pytestmark = pytest.mark.skipif(not HAS_JOBS, reason='needs pip install "capsbench[cluster]"')

TOKEN = "a-token-of-this-test-0123456789abcdef"
_WAITING = """
import time
from gate import GATE
from impls.numpy import NumpyImpl

class Waiting(NumpyImpl):
    def train(self, plan):
        while self.moments.step >= 4 and not GATE.exists():  # after the first epoch
            time.sleep(0.05)
        return super().train(plan)
"""


_NO_GATE = {"gate": False, "audit": False, "steps": 0}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as folder, head(Path(folder), TOKEN) as found:
        yield found


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


@pytest.mark.usefixtures("token")
def test_the_right_token_by_host_and_port(cluster: Head) -> None:
    assert reach(cluster.address) == Reached(cluster.address, TOKEN, is_local=True)
    assert Jobs(cluster.dashboard).info("none") is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "it asks for a token, and there is none here. Put the cluster's token into RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": "wrong"}, "it does not accept the token of RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN_PATH": "named"}, "it does not accept the token of RAY_AUTH_TOKEN_PATH (named)"),
    ],
)
@pytest.mark.usefixtures("token")
def test_a_token_that_is_missing_or_wrong(
    given: dict[str, str], told: str, cluster: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("named").write_text("of-another-cluster\n")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as by_port:
        reach(cluster.address)
    with pytest.raises(UserError) as by_jobs:
        Jobs(cluster.dashboard)
    for error in (by_port, by_jobs):
        assert told in str(error.value)
        assert "wrong" not in str(error.value).replace("does not accept", "")


@pytest.mark.usefixtures("token")
def test_from_outside(cluster: Head, tmp_path: Path) -> None:
    """All in one: jobs take seconds to start."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "own").mkdir(parents=True)
    gate = tmp_path / "open"
    (here / "own" / "waiting.py").write_text(_WAITING)
    (here / "own" / "gate.py").write_text(f"from pathlib import Path\n\nGATE = Path({str(gate)!r})\n")
    (here / "json.py").write_text("raise SystemExit('a file of the suite passes for a library')\n")
    write_suite(here, grid={"impl": ["own/waiting.py:Waiting"]}, train={"epochs": 3}, parity=_NO_GATE)
    where = ("--ray-address", cluster.dashboard, "--cluster-out", there, "--no-mlflow", "--no-figures")
    again = ("submit", "small.yaml", *where)
    run_dir, remote = here / "runs" / "small", there / "small"
    impl = "own/waiting.py:Waiting"

    with started(here, *again) as client:
        wait_for(lambda: any(e["kind"] == "epoch" for e in events_of(remote, impl)), "epoch", client, within_s=180)
        client.kill()
    id = json.loads((run_dir / "job.json").read_text())["id"]

    changed = capsbench(here, *again, "train.lr=0.5")
    assert changed.returncode == 2
    assert f"job {id} of this run is still at work, for another suite, code or options" in changed.stderr

    with started(here, *again) as client:
        assert client.stdout
        while "epoch 1/3" not in client.stdout.readline():
            assert client.poll() is None
        client.send_signal(signal.SIGINT)
        _, stderr = client.communicate(timeout=30)
    assert client.returncode == 130
    assert f"attached to {id}" in stderr
    assert f"{id} goes on without this command. To follow it: capsbench submit small.yaml" in stderr
    assert Jobs(cluster.dashboard).info(id)["status"] == "RUNNING"  # pyright: ignore[reportOptionalSubscript]

    stopped = capsbench(here, *again, "--stop")
    assert stopped.returncode == 130, stopped
    assert [event["kind"] for event in events_of(run_dir, impl)][-1] == "interrupted"
    assert sum(event["kind"] == "epoch" for event in events_of(run_dir, impl)) == 1

    gate.touch()
    ended = capsbench(here, *again, "--json")
    assert ended.returncode == 0, ended
    document = json.loads(ended.stdout)
    assert document["job"] != id
    assert [trial["status"] for trial in document["trials"]] == ["finished"]
    assert [event["resumed_epoch"] for event in events_of(run_dir, impl) if event["kind"] == "attempt"] == [0, 1]
    [trial] = Journal(run_dir).trial_ids()
    assert repeatable(Journal(run_dir).result(trial) or {})["epochs"][-1]["epoch"] == 3
    for path in remote.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            assert (run_dir / path.relative_to(remote)).read_bytes() == path.read_bytes()

    jobs = Jobs(cluster.dashboard)
    node = (jobs.info(document["job"]) or {})["driver_node_id"]
    listed = home.listing(jobs, document["job"], node)
    assert listed
    (run_dir / "trials" / trial / "weights.safetensors").write_bytes(b"cut off")
    assert home.fetch(jobs, document["job"], node, listed, run_dir, {}, print) == 1
    assert (run_dir / "trials" / trial / "weights.safetensors").stat().st_size > 1000
    (run_dir / "trials" / trial / "events.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="has events that the run on the cluster has not"):
        home.fetch(jobs, document["job"], node, listed, run_dir, {}, print)


def test_a_machine_without_ray_or_a_token_says_so(tmp_path: Path) -> None:
    """Nothing listens on that port; and no Ray is needed here."""
    write_suite(tmp_path)
    done = capsbench(tmp_path, "submit", "small.yaml", "--ray-address", "http://127.0.0.1:1", hide="ray")
    assert done.returncode == 2
    assert done.stderr.startswith("capsbench: cannot reach Ray's jobs at http://127.0.0.1:1: Connection refused.")
    assert not (tmp_path / "runs").exists()
