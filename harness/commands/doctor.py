"""What this machine can run, found out by trying it, and what to do about what is missing."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import data, models, progress, registry
from harness.commands import parser
from harness.commands.output import print_json
from harness.commands.probes import Check, State, kind, probe
from harness.environments.chosen import of_user
from harness.environments.interpreters import asked
from harness.executors.listening import ray_instances
from harness.machine.environment import cpu_flags, environment
from harness.machine.leases import local_cores, stale_gpus
from harness.machine.surroundings import given
from harness.machine.topology import physical, shared
from harness.views import messages
from harness.views.bug_report import bug_report
from harness.views.tables import print_table

_COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "absent": "yellow", "broken": "red"}
_GB = 1e9
_LEAST_MEMORY_BYTES = 4e9  # a full-size trial at batch 128 takes about 2 GB
_LEAST_DISK_BYTES = 2e9  # the weights and optimiser state of one full-size checkpoint take 0.1 GB
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve")


@dataclass(frozen=True)
class Diagnosis:
    """`ready` names the implementations whose framework works; `ok` unless none can be used for training."""

    ok: bool
    ready: list[str]
    checks: list[Check]
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def diagnose(
    out: str | Path = "runs",
    data_directory: str | None = None,
    *,
    python: str = sys.executable,
    timeout_s: float = 120.0,
) -> Diagnosis:
    """Checks everything that a run needs; `python` imports each framework in its own process.

    Args:
        out: the folder where runs would be written.
        data_directory: where data files are kept; None for the usual place.
        python: the interpreter that trials run in.
        timeout_s: time limit for importing each framework.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # before the probes add to it
    others = [each for name, each in of_user().items() if registry.known(name)]
    entries = [registry.resolve(name) for name in dict.fromkeys((*registry.names(), *(each.impl for each in others)))]
    answers, problems = asked(others)

    def probed(entry: registry.Entry) -> Check:
        if problem := problems.get(entry.name):
            what, _, advice = problem.rpartition("; ")
            return Check("implementation", entry.name, "broken", what, advice)
        if (answer := answers.get(entry.name)) is None:
            return probe(entry, python, timeout_s)
        found = probe(entry, answer.path, timeout_s)
        return dataclasses.replace(found, detail=f"{found.detail}; Python {answer.python}, {answer.path}")

    with ThreadPoolExecutor(max_workers=2) as pool:  # imports are heavy: on few cores, more at once would not be faster
        futures = [pool.submit(probed, entry) for entry in entries]
        probes = [future.result() for future in progress.track(futures, "trying what is installed")]
    found = environment()
    # The reference implementation is for comparison with the others; nobody trains with it.
    ready = [check.name for check in probes if check.state == "ok" and check.name != registry.SPECIFICATION]
    checks = [
        *probes,
        *(kind(name, python, timeout_s) for name in models.names() if not models.is_built_in(name)),
        _tool(found, "ray", 'pip install "capsbench[ray]"; without it: capsbench run --executor inline'),
        _tool(found, "mlflow", 'pip install "capsbench[mlflow]"; without it: capsbench sync RUN later'),
        *_data(data_directory),
        *_machine(found, load, Path(out)),
        _shell(found["variables"]),
        *_listening(),
        _gpus(found, [check for check in probes if check.name in ready]),
    ]
    return Diagnosis(ok=bool(ready), ready=ready, checks=checks, environment=found)


def render(diagnosis: Diagnosis, console: Console) -> None:
    """Prints the diagnosis as a table, with advice under each finding."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in ("name", "state", "detail"):
        table.add_column()
    group = None
    for check in diagnosis.checks:
        if group not in (None, check.group):
            table.add_row()
        group = check.group
        # Text, not str: "capsbench[torch]" is not markup.
        table.add_row(Text(check.name, "bold"), Text(check.state, _COLOURS[check.state]), Text(check.detail))
        if check.advice:
            table.add_row("", "", Text(f"-> {check.advice}", "cyan"))
    print_table(console, table)
    ready = f"Ready to train with: {', '.join(diagnosis.ready)}."
    verdict = ready if diagnosis.ok else "Nothing can be trained: no framework works."
    console.print(Text(f"\n{verdict}", "bold green" if diagnosis.ok else "bold red"))


def _tool(found: dict[str, Any], dist: str, advice: str) -> Check:
    version = found["versions"].get(dist)
    if version is None:
        return Check("tool", dist, "absent", "not installed", advice)
    return Check("tool", dist, "ok", version, versions={dist: version})


def _data(directory: str | None) -> list[Check]:
    checks: list[Check] = []
    for row in data.list_datasets(directory):
        name, place = row["name"], row["path"] or "embedded"
        if row["state"] == "absent":
            fetch = f"capsbench data fetch {name}, or name the folder that has the files in CAPSBENCH_DATA"
            advice = row["detail"] if row["embedded"] else fetch
            checks.append(Check("data", name, "absent", f"not there ({place})", advice))
        elif row["state"] == "broken":
            advice = "mend or uninstall what registers it, by an entry point of the group capsbench.data"
            checks.append(Check("data", name, "broken", row["detail"], advice))
        elif row["state"] == "corrupt":
            what, _, advice = row["detail"].rpartition("\n")
            checks.append(Check("data", name, "broken", what, advice))
        else:
            sizes = f"{row['train']:,} + {row['validation']:,} + {row['test']:,} images"
            checks.append(Check("data", name, "ok", f"{sizes}, {place}"))
    return checks


def _machine(found: dict[str, Any], load: float, out: Path) -> list[Check]:
    def check(name: str, problem: bool, detail: str, advice: str) -> Check:
        return Check("machine", name, "warning" if problem else "ok", detail, advice if problem else None)

    cores, memory = found["cores"], found["memory_bytes"]
    sets = [name for name in _INSTRUCTION_SETS if name in cpu_flags()]
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    checks = [
        Check("machine", "Python", "ok", f"{found['python']}, {found['os']}"),
        check(
            "cores",
            cores < 2,
            f"{cores} of {os.cpu_count()} usable, {found['cpu']} ({' '.join(sets) or 'instruction sets unknown'})"
            + _hyperthreads(),
            "suites ask for 2 cores a trial: -s resources.cpus=1",
        ),
        check(
            "load",
            load > cores / 2,
            f"{load:.1f} over the last minute on {cores} cores",
            "something else is computing: timings taken now will not repeat",
        ),
    ]
    if memory is not None:
        advice = "a full-size trial takes about 2 GB: run one at a time, or a smaller model"
        checks.append(check("memory", memory < _LEAST_MEMORY_BYTES, f"{memory / _GB:.1f} GB", advice))
    if os.access(place, os.W_OK):
        advice = "checkpoints take 0.1 GB a full-size trial: make room, or choose another place with --out"
        checks.append(check("disk", free < _LEAST_DISK_BYTES, f"{free / _GB:.1f} GB free for {out}", advice))
    else:
        checks.append(Check("machine", "disk", "broken", f"{place} cannot be written", "choose a place with --out"))
    return checks


def _hyperthreads() -> str:
    cores = local_cores()
    return f"; hyperthreads of {physical(cores)} physical cores" if shared(cores) else ""


def _shell(variables: dict[str, dict[str, str]]) -> Check:
    """What the shell has set that could change a result or a time, and what becomes of it."""
    fates = {"cleared": "cleared for trials", "replaced": "set anew for each", "kept": "kept"}
    told = [f"{words}: {', '.join(names)}" for fate, words in fates.items() if (names := variables.get(fate))]
    if not variables.get("cleared"):
        return Check("machine", "variables", "ok", "; ".join(told) or "none is set that changes results or times")
    one = next(iter(variables["cleared"]))
    advice = f"to have one in a trial: -s runtime.environment.{one}=...; it then counts in the trial's id"
    return Check("machine", "variables", "warning", "; ".join(told), advice)


def _listening() -> list[Check]:
    """Who can reach the Rays that run here."""
    checks: list[Check] = []
    for ray in ray_instances():
        name = f"Ray ({ray.driver or ray.pid})" if ray.is_private else f"Ray cluster ({ray.pid})"
        told = f"listens on {', '.join(sorted({address for address, _, _ in ray.sockets})) or 'nothing to be seen'}"
        token = "asks for a token" if ray.asks_for_token else "asks for no token"
        if not ray.exposed:
            whose = "a private one of a bench, " if ray.is_private else ""
            checks.append(Check("machine", name, "ok", f"{whose}{told}: this machine alone; {token}"))
            continue
        ports = ", ".join(f"{port} ({process})" for _, port, process in ray.exposed[:6])
        more = f" and {len(ray.exposed) - 6} more" if len(ray.exposed) > 6 else ""
        advice = (
            None if ray.asks_for_token else "whoever reaches these ports can run code here: docs/cluster.md, Security"
        )
        state: State = "ok" if ray.asks_for_token else "warning"
        checks.append(Check("machine", name, state, f"{told}: ports {ports}{more}; {token}", advice))
    return checks


def _gpus(found: dict[str, Any], working: Sequence[Check]) -> Check:
    blind = [check.name for check in working if len(check.devices) == 1]
    names = ", ".join(found["gpus"])
    if stale := stale_gpus():
        what, _, advice = stale.partition("; ")
        return Check("machine", "GPU", "warning", what, advice)
    if found["gpus"] and blind:
        advice = 'install the GPU builds: pip install "capsbench[gpu]"; see also CUDA_VISIBLE_DEVICES'
        return Check("machine", "GPU", "warning", f"{names}; not seen by {', '.join(blind)}", advice)
    return Check("machine", "GPU", "ok", names or "none with an NVIDIA driver; trials run on the CPU")


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench doctor`."""
    parser.out(command)
    command.add_argument(
        "--report", action="store_true",
        help="print all of it as one block of Markdown for a bug report, without user and host names, paths and secrets",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    diagnosis = diagnose(args.out)
    if args.report:
        text = bug_report(diagnosis.to_json(), given())
        print_json({"report": text}) if args.json else print(text)
    elif args.json:
        print_json(diagnosis.to_json())
    else:
        render(diagnosis, messages.Console())
    return 0 if diagnosis.ok else 1
