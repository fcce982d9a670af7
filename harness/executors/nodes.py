"""The nodes of a Ray cluster: what they have, whether they can run a trial, and what a trial asks Ray for.

Each node is asked once, by a small task, what it lacks for each implementation. Trials are kept away from the nodes that
lack something; a node that joins later is not asked, and judged by the supervisor that starts there.
"""

# Ray is only partly typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness import __version__, registry
from harness.errors import UserError
from harness.executors.base import Capacity, check_fits
from harness.sources import code_version
from harness.spec.trial import Trial
from harness.supervisor.seat import forwarded_paths

ANSWER_S = 20.0
"""How long nodes have to answer, all at once."""
_TYPE = "accelerator_type:"
_A_LITTLE = 0.001  # of a node's accelerator type: there is 1 of it, for any number of trials
_ID = "ray.io/node-id"
EVERYTHING = "*"


@dataclass(frozen=True)
class Node:
    """A living node, as Ray shows it."""

    id: str
    name: str  # for people
    capacity: Capacity


@dataclass
class Survey:
    """What was found out about the nodes."""

    nodes: list[Node]
    lacks: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """Node -> implementation, or `EVERYTHING` -> what is missing there."""

    def lack(self, node: Node, impl: str) -> str | None:
        """What the node lacks for trials of `impl`; None if it lacks nothing."""
        found = self.lacks.get(node.id, {})
        return found.get(EVERYTHING) or found.get(impl)

    def good(self, impl: str) -> list[Node]:
        return [node for node in self.nodes if self.lack(node, impl) is None]

    def require(self, trials: Sequence[Trial]) -> None:
        """Raises `UserError` if a trial fits on no node that can run it, naming what each of those that it fits on lacks."""
        for trial in trials:
            good = self.good(trial.impl)
            fitting = [node for node in self.nodes if _fits(trial, node)]
            if any(node in good for node in fitting):
                continue
            check_fits([trial], [node.capacity for node in self.nodes])
            told = "; ".join(f"node {node.name}: {self.lack(node, trial.impl)}" for node in fitting)
            raise UserError(f"trial {trial.id} ({trial.impl}) can run on no node of the cluster. {told}")

    def notes(self) -> list[str]:
        """A line for each node that lacks something."""
        lines: list[str] = []
        for node in self.nodes:
            found = self.lacks.get(node.id, {})
            if not node.capacity.cpus:
                continue
            if everything := found.get(EVERYTHING):
                lines.append(f"no trial runs on node {node.name}: {everything}")
            impls: dict[str, list[str]] = {}
            for impl, reason in found.items():
                if impl != EVERYTHING:
                    impls.setdefault(reason, []).append(impl)
            lines += [f"no trial of {', '.join(names)} runs on node {node.name}: {why}" for why, names in impls.items()]
        return lines

    def request(self, trial: Trial) -> dict[str, Any]:
        """What the trial asks Ray for: `bundle`, and `selector`, labels of nodes, or None."""
        bad = [node.id for node in self.nodes if self.lack(node, trial.impl)]
        cpus = trial.cpus
        if trial.exclusive == "node":  # so that Ray sends nothing else there; the lease of the node makes it sure
            sizes = [node.capacity.cpus for node in self.good(trial.impl) if _fits(trial, node)]
            cpus = min(sizes, default=cpus)
        bundle: dict[str, float] = {"CPU": cpus, "GPU": trial.gpus}
        if trial.gpu_type and trial.gpus:
            bundle[f"{_TYPE}{trial.gpu_type}"] = _A_LITTLE
        return {"bundle": bundle, "selector": {_ID: f"!in({','.join(bad)})"} if bad else None}


def living() -> list[Node]:
    """The living nodes of the cluster that this process is connected to."""
    return [
        Node(each["NodeID"], f"{each['NodeManagerHostname']} ({each['NodeManagerAddress']})", _capacity(each))
        for each in cast("list[dict[str, Any]]", ray.nodes())
        if each["Alive"]
    ]


def survey(nodes: Sequence[Node], trials: Sequence[Trial], limit_s: float = ANSWER_S) -> Survey:
    """Asks all nodes that have CPUs for trials what they lack for `trials`."""
    kinds = {(trial.impl, trial.model.kind) for trial in trials}
    needs = [(impl, kind, code_version(registry.resolve(impl), kind)) for impl, kind in sorted(kinds)]
    found = Survey(list(nodes))
    remote = cast("Any", ray.remote(_by_value(_probe)))
    asked: dict[Any, Node] = {}
    for node in nodes:
        if node.capacity.cpus:
            pinned = NodeAffinitySchedulingStrategy(node.id, soft=False)
            options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": pinned}
            asked[remote.options(**options).remote(forwarded_paths(), needs)] = node
    done, late = ray.wait([*asked], num_returns=len(asked), timeout=limit_s) if asked else ([], [])
    for answer in done:
        node = asked[answer]
        try:
            found.lacks[node.id] = _lacks(cast("dict[str, Any]", ray.get(answer)))
        except Exception as error:  # whatever Ray raises for a node that dies, or cannot start a process
            found.lacks[node.id] = {EVERYTHING: f"it cannot start a process: {type(error).__name__}: {_first(error)}"}
    for answer in late:
        ray.cancel(answer, force=True)
        found.lacks[asked[answer].id] = {EVERYTHING: f"it did not answer within {limit_s:.0f} s"}
    return found


def _fits(trial: Trial, node: Node) -> bool:
    try:
        check_fits([trial], [node.capacity])
    except UserError:
        return False
    return True


def _capacity(node: Mapping[str, Any]) -> Capacity:
    resources: dict[str, float] = node["Resources"]
    kinds = tuple(name.removeprefix(_TYPE) for name in resources if name.startswith(_TYPE))
    gpus = int(resources.get("GPU", 0))
    return Capacity(int(resources.get("CPU", 0)), gpus, 1, kinds if gpus else ())


def _lacks(answer: Mapping[str, Any]) -> dict[str, str]:
    """Implementation, or `EVERYTHING` -> what is missing there, in words."""
    if without := answer.get("without"):
        return {EVERYTHING: f"capsbench is not installed for {answer['python']} ({without})"}
    if answer["version"] != __version__:
        return {EVERYTHING: f"it has capsbench {answer['version']}, this machine {__version__}; install the same"}
    return dict(answer["lacks"])


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no reason given"


def _by_value(function: types.FunctionType) -> types.FunctionType:
    """A copy that Ray sends as code, not as a name to import: a node may have no capsbench."""
    copy = types.FunctionType(function.__code__, {"__builtins__": __builtins__}, function.__name__)
    copy.__module__ = "__main__"
    return copy


def _probe(paths: list[str], needs: list[tuple[str, str, str]]) -> dict[str, Any]:
    """Runs on a node, in a process of Ray's; uses nothing of this module."""
    import sys

    sys.path += [path for path in paths if path not in sys.path]
    answer: dict[str, object] = {"python": sys.executable, "lacks": {}}
    try:
        from harness import __version__, registry
        from harness.sources import code_version
    except ImportError as error:
        answer["without"] = str(error)
        return answer
    answer["version"] = __version__
    lacks: dict[str, str] = {}
    for impl, kind, code in needs:
        try:
            entry = registry.resolve(impl)
            lack = registry.missing(entry)
            if lack is None and code_version(entry, kind) != code:
                lack = "it has other code of capsbench or of this implementation than the driver; install the same on all nodes"
        except Exception as error:
            lack = str(error) or type(error).__name__
        if lack:
            lacks[impl] = lack
    answer["lacks"] = lacks
    return answer
