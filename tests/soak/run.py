"""A suite under random faults: `python -m tests.soak.run --minutes 60 --seed 0`, or `make soak`.

The bench runs small suites, in turns without Ray, on a Ray of its own and on a cluster of three nodes, with MLflow over
PostgreSQL where that is installed. Workers, drivers, nodes and servers are killed and stopped, the disk fills up, clocks are
wrong. Whenever the bench ends, the same command goes on. Counted are epochs that were acknowledged and then lost or doubled,
in the journal and in MLflow, and trials that end otherwise than undisturbed. Exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from examples.mlflow_server.serve import Postgres
from harness.errors import UserError
from tests.soak.faults import FAULTS, Scene, heal
from tests.soak.ledger import Ledger
from tests.soak.scene import Disk, Driver, Server, ThreeNodes, mlflow_server, wrong_clock

SCENES = ("inline", "ray", "cluster")
EPOCHS, SEEDS = 12, 4
SUITE = {
    "name": "soak",
    "data": {"name": "digits", "train": 512, "validation": 64, "test": 64, "augment": {"shift": 1}},
    "model": {
        "conv_channels": 8, "primary_types": 4, "primary_dim": 4, "digit_dim": 8, "decoder_units": [16, 32], "routing": 3,
    },
    "train": {"epochs": EPOCHS, "batch": 32},
    "runtime": {"compile": False, "hang_s": 30},
    "grid": {"impl": ["numpy"], "seed": list(range(SEEDS))},
    "parity": {"gate": False},
    "resources": {"cpus": 1, "gpus": 0},
}  # fmt: skip
FAULTS_A_ROUND = 5
MEAN_S = 8.0  # between two faults
STUCK_S = 300.0  # without a new event, or an end: an endless wait
HEAL_S = (3.0, 20.0)


class Endless(Exception):
    """The bench waited for ever."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scene", choices=SCENES, action="append", help="only this; may be repeated")
    parser.add_argument("--fault", choices=sorted(FAULTS), action="append", help="only this; may be repeated")
    parser.add_argument("--keep", action="store_true", help="leave the folder for a look")
    options = parser.parse_args(arguments)
    base = Path(tempfile.mkdtemp(prefix="soak-"))
    told = Tally()
    try:
        with ExitStack() as stack:
            soak = Soak(base, options.seed, options.fault or sorted(FAULTS), stack)
            deadline = time.monotonic() + 60 * options.minutes
            rounds = 0
            while time.monotonic() < deadline or not rounds:
                scenes = options.scene or SCENES
                soak.round(rounds, scenes[rounds % len(scenes)], told)
                rounds += 1
    finally:
        if options.keep or told.is_bad:
            print(f"files: {base}")
        else:
            shutil.rmtree(base, ignore_errors=True)
        told.show()
    return int(told.is_bad)


class Tally:
    """What was counted over all rounds."""

    def __init__(self) -> None:
        self.rounds = self.acknowledged = self.in_mlflow = self.starts = 0
        self.faults = collections.Counter[str]()
        self.wrong: dict[str, list[str]] = {
            "lost": [], "doubled": [], "lost in MLflow": [], "doubled in MLflow": [], "another result": [],
            "endless waits": [], "tracebacks": [],
        }  # fmt: skip

    @property
    def is_bad(self) -> bool:
        return any(self.wrong.values())

    def show(self) -> None:
        print(f"\n{self.rounds} rounds, {self.starts} starts of the bench, {sum(self.faults.values())} faults:")
        for name, count in sorted(self.faults.items()):
            print(f"  {count:4}  {name}")
        print(f"{self.acknowledged} epochs acknowledged, {self.in_mlflow} in MLflow")
        for name, found in self.wrong.items():
            print(f"{name}: {len(found)}")
            for each in found[:10]:
                print(f"  {each}")


class Soak:
    """The parts that last over rounds."""

    def __init__(self, base: Path, seed: int, faults: Sequence[str], stack: ExitStack) -> None:
        self.base, self.seed, self.faults = base, seed, faults
        self.postgres = _postgres(base)
        if self.postgres:
            stack.callback(self.postgres.stop)
        if not wrong_clock():
            print("no C compiler here: clocks are right")
        (base / "mlflow").mkdir()
        backend = self.postgres.uri if self.postgres else f"sqlite:///{base / 'mlflow' / 'mlflow.db'}"
        self.mlflow: Server = mlflow_server(base / "mlflow", backend)
        stack.callback(self.mlflow.kill)
        self.mlflow.start()
        self.disk = Disk(base / "disk")
        stack.callback(self.disk.close)
        if not self.disk.is_own:
            print("no right to mount here: the disk does not fill up")
        (base / "tmp").mkdir()
        self.expected = self._undisturbed()

    def _undisturbed(self) -> dict[int, dict[str, Any]]:
        folder = self.base / "undisturbed"
        folder.mkdir()
        driver = self._driver(folder, "inline", ["--no-mlflow"])
        driver.start()
        assert driver.process
        assert driver.process.wait() == 0, driver.log.read_text()
        return _outcomes(folder / "runs" / "soak")

    def _driver(self, folder: Path, executor: str, more: list[str], address: str | None = None) -> Driver:
        (folder / "soak.yaml").write_text(yaml.safe_dump(SUITE))
        where = ["--ray-address", address] if address else []
        arguments = ["run", "soak.yaml", "--executor", executor, "--no-figures", *where, *more]
        return Driver(folder, arguments, {"TMPDIR": str(self.base / "tmp"), "CAPSBENCH_GATE_CACHE": "off"})

    def round(self, number: int, kind: str, told: Tally) -> None:
        """One suite, from its first start to its end, with faults on the way."""
        rng = random.Random(f"{self.seed} {number}")
        folder = self.disk.folder / f"round-{number}"
        folder.mkdir()
        nodes = ThreeNodes() if kind == "cluster" else None
        try:
            uri = f"http://127.0.0.1:{self.mlflow.port}"
            driver = self._driver(
                folder, "inline" if kind == "inline" else "ray", ["--mlflow-uri", uri], nodes and nodes.address
            )
            run_dir = folder / "runs" / "soak"
            scene = Scene(driver, self.disk, run_dir, self.mlflow, self.postgres, nodes, rng)
            ledger = Ledger(run_dir)
            print(f"round {number} ({kind})", flush=True)
            try:
                self._under_faults(scene, ledger, told)
            except Endless as endless:
                told.wrong["endless waits"].append(f"round {number} ({kind}): {endless}\n{driver.stacks()}")
                for process in driver.family():
                    process.kill()
                if driver.process:
                    driver.process.kill()
            self._judge(f"round {number} ({kind})", scene, ledger, uri, told)
        finally:
            if nodes:
                nodes.close()
        if told.is_bad:  # outside the small file system, which goes at the end
            shutil.copytree(folder, self.base / "kept" / folder.name, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _under_faults(self, scene: Scene, ledger: Ledger, told: Tally) -> None:
        rng, left = scene.rng, FAULTS_A_ROUND
        scene.driver.start()
        now = last_sign = time.monotonic()
        next_fault, heal_at = now + 4 + rng.expovariate(1 / MEAN_S), float("inf")
        while True:
            time.sleep(0.2)
            now = time.monotonic()
            if ledger.read():
                last_sign = now
            if now >= heal_at:
                heal(scene)
                heal_at = float("inf")
            code = scene.driver.ended()
            if code is not None:
                heal(scene)
                heal_at = float("inf")
                ledger.read()
                if code == 0:
                    return
                print(f"  ended with {code}", flush=True)
                clock_off_s, scene.clock_off_s = scene.clock_off_s, 0
                scene.driver.start(clock_off_s)
                last_sign = now
            if now - last_sign > STUCK_S:
                raise Endless(f"no event for {STUCK_S:g} s")
            if left and now >= next_fault:
                name = rng.choice(self.faults)
                if said := FAULTS[name](scene):
                    print(f"  {said}", flush=True)
                    told.faults[name] += 1
                    left -= 1
                    heal_at = min(heal_at, now + rng.uniform(*HEAL_S))
                    next_fault = now + rng.expovariate(1 / MEAN_S)

    def _judge(self, where: str, scene: Scene, ledger: Ledger, uri: str, told: Tally) -> None:
        heal(scene)
        scene.driver.sync(scene.run_dir, uri)
        told.rounds += 1
        told.starts += scene.driver.starts
        told.acknowledged += ledger.acknowledged
        told.wrong["lost"] += [f"{where}: {each}" for each in ledger.lost]
        told.wrong["doubled"] += [f"{where}: {each}" for each in ledger.doubled]
        if "Traceback" in (said := scene.driver.log.read_text(errors="replace")):
            told.wrong["tracebacks"].append(f"{where}: {said[said.index('Traceback') :][:3000]}")
        found = _outcomes(scene.run_dir)
        for seed, expected in self.expected.items():
            if found.get(seed) != expected:
                told.wrong["another result"].append(f"{where}: seed {seed}")
        for name, steps in _in_mlflow(uri, scene.run_dir).items():
            epochs = ledger.epochs().get(name, [])
            told.in_mlflow += len(set(steps))
            told.wrong["doubled in MLflow"] += [
                f"{where}: {name}, epoch {step}" for step, count in collections.Counter(steps).items() if count > 1
            ]
            told.wrong["lost in MLflow"] += [f"{where}: {name}, epoch {e}" for e in sorted(set(epochs) - set(steps))]


def _postgres(base: Path) -> Postgres | None:
    base.chmod(0o755)  # PostgreSQL runs as another user if root starts it
    server = Postgres(base)
    try:
        server.start()
    except UserError as error:
        print(f"MLflow uses SQLite: {error}")
        return None
    return server


def _outcomes(run_dir: Path) -> dict[int, dict[str, Any]]:
    """Seed -> what must be the same however often the trial was disturbed."""
    found: dict[int, dict[str, Any]] = {}
    for path in run_dir.glob("trials/*/result.json"):
        result = json.loads(path.read_text())
        weights = path.parent / "weights.safetensors"
        found[result["seed"]] = {
            "status": result["status"],
            "test_err_pct": result["test_err_pct"],
            "epochs": [each["train_loss"] for each in result["epochs"]],
            "weights": weights.read_bytes() if weights.is_file() else None,
        }
    return found


def _in_mlflow(uri: str, run_dir: Path) -> dict[str, list[int]]:
    """Trial id -> the steps of its training loss in MLflow, each as often as it stands there."""
    import mlflow

    run_id = json.loads((run_dir / "plan.json").read_text())["run_id"]
    client = mlflow.MlflowClient(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    found: dict[str, list[int]] = {path.name: [] for path in (run_dir / "trials").iterdir()}
    for run in client.search_runs(experiments, max_results=50_000):
        tags: Any = run.data.tags
        trial = tags.get("capsbench.trial")
        if trial in found and tags.get("capsbench.run_id") == run_id:
            found[trial] += [metric.step for metric in client.get_metric_history(run.info.run_id, "epoch/train_loss")]
    return found


if __name__ == "__main__":
    sys.exit(main())
