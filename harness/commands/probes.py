"""Whether implementations and kinds of model work here: each is imported in a process of its own, as trials are."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import models, registry
from harness.environments.probe import is_own
from harness.machine.environment import available_cores
from harness.machine.surroundings import child_environment, in_another_python

State = Literal["ok", "warning", "absent", "broken"]


# Runs in the interpreter that trials use. Whatever an import prints, the answer is the line that starts with "@".
_PROBE = """
import importlib, importlib.util, json, sys

def installed(name):
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None  # a folder that is no package has no origin

asked = json.loads(sys.argv[1])
names = asked["packages"]
answer = {"absent": [name for name in names if not installed(name)], "versions": {}, "gpus": [], "fault": None, "lacks": None}
if not answer["absent"]:
    modules = {name: importlib.import_module(name) for name in names}
    answer["versions"] = {name: str(getattr(module, "__version__", "?")) for name, module in modules.items()}
    if asked["device"]:
        spec = importlib.util.spec_from_file_location("_device", asked["device"])
        device = sys.modules["_device"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(device)
        answer["gpus"] = [str(gpu) for gpu in device.gpus()] if hasattr(device, "gpus") else []
    if asked["plugin"]:
        sys.path.append(asked["bench"])
        from harness.commands import plugin
        answer["fault"] = plugin.fault(asked["plugin"])
        answer["lacks"] = None if answer["fault"] else plugin.lacking(asked["plugin"])
print("\\n@" + json.dumps(answer), flush=True)
"""
_BENCH = Path(__file__).resolve().parents[2]
_PART = """
import importlib, sys

name, implementation = sys.argv[1:]
importlib.import_module(f"impls.{implementation}.models").architecture(name)
"""


@dataclass(frozen=True)
class Check:
    """One finding. `advice` says what to do; it is given whenever `state` is not "ok"."""

    group: Literal["implementation", "model", "tool", "data", "machine"]
    name: str
    state: State
    detail: str
    advice: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    devices: list[str] = dataclasses.field(default_factory=list[str])  # for an implementation: "cpu", names of GPUs


def probe(entry: registry.Entry, python: str, timeout_s: float) -> Check:
    """Imports an implementation's packages in a separate process: versions and devices, or why it failed.

    An implementation that is not built in is also tried out: see `harness.commands.plugin`.
    """

    def check(state: State, detail: str, advice: str | None = None, **more: Any) -> Check:
        return Check("implementation", entry.name, state, detail, advice, **more)

    repair = f"reinstall it ({entry.install}); until then capsbench goes on without it"
    is_plugin = not entry.is_built_in
    asked = {
        "packages": entry.packages,
        "device": None if entry.problem else str(registry.framework_of(entry).path or "") or None,
        "plugin": entry.name if is_plugin and not entry.problem else None,
        "bench": str(_BENCH),
    }
    command = [python, "-P", "-c", _PROBE, json.dumps(asked)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            env=_environment(entry) if is_own(python) else in_another_python(_environment(entry)),
        )
    except subprocess.TimeoutExpired:
        return check("broken", f"importing {', '.join(entry.packages)} took more than {timeout_s:g} s", repair)
    except OSError as error:
        return check("broken", f"{python} cannot be started: {error.strerror}", "name a Python interpreter")
    line = next((line for line in reversed(done.stdout.splitlines()) if line.startswith("@")), None)
    if line is None:
        return check("broken", _failure(done), repair)
    answer: dict[str, Any] = json.loads(line[1:])
    if answer["absent"]:
        return check("absent", f"not installed: {', '.join(answer['absent'])}", entry.install)
    if fault := entry.problem or answer["fault"]:
        return check("broken", fault, f"mend it, or {repair}", versions=answer["versions"])
    devices = ["cpu", *answer["gpus"]]
    text = ", ".join(f"{name} {version}" for name, version in answer["versions"].items())
    found: dict[str, Any] = {"versions": answer["versions"], "devices": devices}
    if answer["lacks"]:
        more = f"an adapter: it lacks {answer['lacks']}"
        return check("warning", f"{text}; {more}", "capsbench parity can check it, but not train with it", **found)
    return check("ok", f"{text}; {', '.join(devices)}", **found)


def _environment(entry: registry.Entry) -> dict[str, str]:
    """The environment of a worker on a GPU: the check must not take GPU memory that a trial is using."""
    told = registry.environment(
        registry.SPECIFICATION if entry.problem else entry.name, available_cores(), "fp32", gpu=True
    )
    own = {name: value for name, value in told.items() if value is not None}
    return child_environment(os.environ) | own | {"PYTHONWARNINGS": "ignore"}


def kind(name: str, python: str, timeout_s: float) -> Check:
    """Checks a kind of model from an installed distribution, with its parts for the installed implementations."""

    def broken(why: str) -> Check:
        return Check("model", name, "broken", why, f"mend or uninstall what registers it ({models.target(name)})")

    if why := models.problem(name):
        return broken(why)
    parts = [each for each in models.load(name).parts if each in registry.names()]
    here = [each for each in parts if not registry.missing(registry.resolve(each))]
    for implementation in here:
        try:
            done = subprocess.run(
                [python, "-P", "-c", _PART, name, implementation],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                stdin=subprocess.DEVNULL,
                env=_environment(registry.resolve(implementation)),
            )
        except subprocess.TimeoutExpired:
            return broken(f"importing its part for {implementation} took more than {timeout_s:g} s")
        if done.returncode:
            return broken(_failure(done).removeprefix("harness.errors.UserError: "))
    return Check(
        "model", name, "ok", f"{models.target(name)}; with parts for {', '.join(here) or 'nothing that is here'}"
    )


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    """The line that says why the import failed: the last one that names an error, or how the process ended."""
    if done.returncode < 0:
        return f"importing it ends the process with {signal.Signals(-done.returncode).name}"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt): \S", line)]
    return next(reversed(errors or lines), f"importing it ends the process with exit code {done.returncode}")
