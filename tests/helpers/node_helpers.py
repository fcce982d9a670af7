"""A Ray cluster whose nodes are as apart as one machine allows: each has its own names, processes and mounts.

A node is a tree of processes in namespaces of its own. Killing its first process ends all of them at once, as when a machine
loses its power.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.run_helpers import _HIDING, ROOT

START_S = 200.0


def is_possible() -> bool:
    """Whether this user may make namespaces."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-m", "-u", "-p", "-f", "true"], capture_output=True).returncode == 0


@dataclass
class Nodes:
    """The nodes besides the head, which has no CPUs for trials."""

    address: str
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, subprocess.Popen[bytes]])
    starts: dict[str, Callable[[], subprocess.Popen[bytes]]] = field(default_factory=dict)

    def add(self, name: str, *, cpus: int = 1, hide: str = "", empty: Path | None = None, **resources: float) -> None:
        """Starts a node whose host is called `name`.

        Args:
            hide: packages that are not installed there.
            empty: a folder that is empty there.
            resources: further ones of Ray's, with "__" for ":".
        """
        own = self.folder / name
        for each in ("tmp", "cache", "hiding"):
            (own / each).mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "TMPDIR": str(own / "tmp"), "XDG_CACHE_HOME": str(own / "cache"), "PYTHONPATH": str(ROOT)}
        env.pop("CUDA_VISIBLE_DEVICES", None)  # Ray would refuse GPUs that are only said to be there
        if hide:
            (own / "hiding" / "sitecustomize.py").write_text(_HIDING)
            env |= {"PYTHONPATH": str(own / "hiding"), "CAPSBENCH_TEST_HIDDEN": hide}
        given = {key.replace("__", ":"): value for key, value in resources.items() if key != "GPU"}
        gpus = int(resources.get("GPU", 0))
        options = [
            f"--address={self.address}",
            f"--num-cpus={cpus}",
            f"--num-gpus={gpus}",
            "--disable-usage-stats",
            "--block",
        ]
        options += [f"--resources={str(given).replace(chr(39), chr(34))}"] if given else []
        options += ["--object-store-memory=100000000"]
        start = shlex.join([sys.executable, "-m", "ray.scripts.scripts", "start", *options])
        mounts = f"mount -t tmpfs none {shlex.quote(str(empty))} && " if empty else ""
        apart = ["unshare", "-m", "-u", "-p", "-f", "--mount-proc", "--kill-child"]
        self.starts[name] = lambda: subprocess.Popen(
            [*apart, "sh", "-c", f"hostname {name} && {mounts}exec {start}"],
            env=env,
            cwd=own,
            stdin=subprocess.DEVNULL,
            stdout=(own / "log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.processes[name] = self.starts[name]()

    def wait(self) -> None:
        """Returns once all nodes that were added and not killed are part of the cluster."""
        from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]

        client: Any = GcsClient(address=self.address)
        deadline = time.monotonic() + START_S
        while True:
            alive = {node.node_manager_hostname for node in client.get_all_node_info().values() if node.state == 0}
            if not (late := set(self.processes) - alive):
                return
            for name in late:
                if self.processes[name].poll() is not None and time.monotonic() < deadline - START_S / 2:
                    self.processes[name] = self.starts[name]()  # Ray gives up after 30 s, which a busy machine may take
                elif self.processes[name].poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{name} has not joined: {(self.folder / name / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """Ends all processes of the node at once."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()


@contextmanager
def cluster(folder: Path) -> Generator[Nodes]:
    """A head without CPUs, to which nodes are added; all that was started ends with the block."""
    from ray.cluster_utils import Cluster

    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = Nodes(str(head.address), folder)
    try:
        yield nodes
    finally:
        for name in [*nodes.processes]:
            with contextlib.suppress(ProcessLookupError):
                nodes.kill(name)
        head.shutdown()
