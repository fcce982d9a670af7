"""Twelve trials on three nodes, of which two are lost: `python -m tests.soak.three_nodes`. Minutes; needs root, for namespaces.

One node is killed in the middle, another later. All trials must end, each lost one from its last epoch, and no epoch may be
lost or doubled. Printed is the time, in relation to what the nodes that were left at each moment could have done undisturbed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.events import AttemptEvent, EpochEvent, ResultEvent, TrialEvent
from harness.executors.ray import RayExecutor
from tests.helpers import node_helpers
from tests.helpers.executor_helpers import Record, tiny_job, trained_epochs

NAMES = ("alpha", "beta", "gamma")
WORST = 1.5


@dataclass
class Heard:
    """The events of one run, and when nodes were killed."""

    nodes: node_helpers.Nodes
    losses: list[
        tuple[str, int]
    ]  # node -> after how many finished trials it is killed, in the middle of one of its own
    record: Record = field(default_factory=Record)
    hosts: dict[str, str] = field(default_factory=dict[str, str])  # trial -> where it is
    epochs: dict[str, int] = field(default_factory=dict[str, int])
    finished: int = 0
    killed: list[float] = field(default_factory=list[float])
    began: float = field(default_factory=time.monotonic)

    def __call__(self, trial: str, event: TrialEvent) -> None:
        self.record(trial, event)
        if isinstance(event, AttemptEvent):
            self.hosts[trial] = event.host
        elif isinstance(event, EpochEvent):
            self.epochs[trial] = event.epoch
        elif isinstance(event, ResultEvent):
            self.finished += 1
            self.hosts.pop(trial, None)
        if self.losses and isinstance(event, EpochEvent):
            name, after = self.losses[0]
            if self.finished >= after and 2 <= event.epoch < event.epochs and self.hosts.get(trial) == name:
                self.losses.pop(0)
                self.nodes.kill(name)
                self.killed.append(time.monotonic() - self.began)
                print(f"  {self.killed[-1]:5.1f} s: {name} is killed after epoch {event.epoch} of {trial}", flush=True)


def run(folder: Path, trials: int, epochs: int, losses: list[tuple[str, int]]) -> tuple[Heard, float]:
    """All that was heard of the trials on three nodes, and how long they took."""
    with node_helpers.cluster(folder / "nodes") as nodes:
        for name in NAMES:
            nodes.add(name)
            nodes.wait()
        executor = RayExecutor(nodes.address)
        try:
            executor.capacity()  # connects
            heard = Heard(nodes, list(losses))
            executor.run(
                [tiny_job(folder / "run", "SlowNet", epochs=epochs, seed=seed) for seed in range(trials)], heard
            )
            return heard, time.monotonic() - heard.began
        finally:
            executor.close()


def faults(heard: Heard, folder: Path, trials: int, epochs: int) -> list[str]:
    """What is wrong with what was heard; empty if all is as it must be."""
    wrong: list[str] = []
    for trial in (f"SlowNet-{seed}" for seed in range(trials)):
        record: Any = heard.record
        kinds, told = record.kinds(trial), [event["epoch"] for event in record.of(trial, "epoch")]
        if kinds[-1] != "result":
            wrong.append(f"{trial} ended with {kinds[-1]}: {record.of(trial)[-1]}")
            continue
        if told != [*range(1, epochs + 1)]:
            wrong.append(f"{trial}: epochs {told}")
        attempts = record.of(trial, "attempt")
        for before, after in itertools.pairwise(attempts):
            last = max([e["epoch"] for e in record.of(trial, "epoch") if e["attempt"] <= before["attempt"]], default=0)
            if after["resumed_epoch"] != last:
                wrong.append(f"{trial}: attempt {after['attempt']} resumed after {after['resumed_epoch']}, not {last}")
        if (seen := trained_epochs(folder / "run/trials" / trial / "weights.safetensors")) != epochs:
            wrong.append(f"{trial}: its weights have seen {seen} epochs")
    if len(heard.killed) < 2:
        wrong.append(f"only {len(heard.killed)} nodes were killed")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    if not node_helpers.is_possible():
        print("this needs the right to make namespaces: run it as root")
        return 2
    trials, epochs = options.trials, options.epochs
    with tempfile.TemporaryDirectory(prefix="three-") as name:
        folder = Path(name)
        os.environ["TMPDIR"] = name
        print(f"{trials} trials on three nodes, undisturbed", flush=True)
        _, undisturbed_s = run(folder / "a", trials, epochs, [])
        print(f"  {undisturbed_s:5.1f} s\n{trials} trials, and two nodes are lost", flush=True)
        losses = [("alpha", trials // 4), ("beta", trials // 2)]
        heard, disturbed_s = run(folder / "b", trials, epochs, losses)
        print(f"  {disturbed_s:5.1f} s", flush=True)
        wrong = faults(heard, folder / "b", trials, epochs)
    attempts = len(heard.record.events and [e for e in heard.record.events if e["kind"] == "attempt"])
    print(f"{attempts - trials} attempts were lost; epochs lost or doubled: {'none' if not wrong else 'see below'}")
    for line in wrong:
        print(f"WRONG: {line}")
    if len(heard.killed) == 2:
        first, second = heard.killed
        least_s = second + max(0.0, 3 * undisturbed_s - 3 * first - 2 * (second - first))
        ratio = disturbed_s / least_s
        print(f"the nodes that were left could have done it in {least_s:.1f} s: ratio {ratio:.2f} (at most {WORST})")
        return int(bool(wrong) or ratio > WORST)
    return 1


if __name__ == "__main__":
    sys.exit(main())
