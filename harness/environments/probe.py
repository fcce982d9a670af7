"""Asks an interpreter what it is, in a second or two, before anything is started in it."""

from __future__ import annotations

import json
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness import boot, registry
from harness.environments.answer import MARK
from harness.environments.chosen import Chosen
from harness.machine.surroundings import child_environment, in_another_python
from harness.registry import Entry
from harness.spec.trial import Interpreter
from harness.supervisor.seat import forwarded_environment, forwarded_paths

_LIMIT_S = 30.0
_MOST_BYTES = 1 << 20  # a program that is no Python may write without end


@dataclass(frozen=True)
class Answer:
    """What an interpreter says of itself."""

    path: str
    python: str
    prefix: str
    installed: str | None  # the version of the capsbench that is installed there, whose sources are not used
    versions: dict[str, str]
    without_gpu: str | None

    def interpreter(self) -> Interpreter:
        return Interpreter(path=self.path, python=self.python, versions=self.versions, without_gpu=self.without_gpu)


def ask(chosen: Chosen, *, limit_s: float = _LIMIT_S) -> Answer:
    """What the Python says for its implementation. Raises `UserError` if that cannot run there: why, and what to do."""
    path = chosen.executable()
    entry = registry.resolve(chosen.impl)
    asked = {
        "impl": chosen.impl,
        "needs": [_name(each) for each in registry.NEEDS],
        "deep": True,
        "paths": _paths(path),
    }
    code, output, errors = _run([path, boot.__file__, "harness.environments.answer", json.dumps(asked)], limit_s)
    told = [line for line in output.splitlines() if line.startswith(MARK)]
    if told and told[-1].startswith(boot.TOO_OLD):
        least = ".".join(map(str, boot.LEAST))
        raise chosen.unusable(
            f"it is Python {told[-1].removeprefix(boot.TOO_OLD)}; capsbench needs {least} or newer",
        )
    if not told:
        said = next(
            (line.strip()[:200] for line in reversed((errors or output).splitlines()) if line.strip()), "nothing"
        )
        what = (
            f"no answer within {limit_s:g} s"
            if code is None
            else f"it does not answer as a Python does; it said: {said}"
        )
        raise chosen.unusable(what)
    found: dict[str, Any] = json.loads(told[-1].removeprefix(MARK))
    _check(chosen, entry, path, found)
    keys = "python", "prefix", "installed", "versions", "without_gpu"
    return Answer(path, **{key: found[key] for key in keys})


def is_own(path: str) -> bool:
    """Whether it is the interpreter that runs this."""
    own = Path(sys.executable)
    try:
        return Path(path).parent.resolve() == own.parent.resolve() and Path(path).samefile(own)
    except OSError:
        return False


def library_version(entry: Entry, versions: dict[str, str]) -> tuple[str, str] | None:
    """The distribution that the implementation is named after, such as tensorflow-cpu, and its version."""
    return next(((name, versions[name]) for name in entry.distributions if name in versions), None)


def names_version(label: str) -> bool:
    """Whether a label is a version, such as 2.12, rather than any other word."""
    return re.fullmatch(r"\d+(\.\d+)*", label) is not None


def is_version(label: str, version: str) -> bool:
    """Whether a version is one that the label stands for: 2.12 is 2.12.1 and 2.12.0+cpu, not 2.120."""
    return re.match(rf"{re.escape(label)}(?![\w])", version) is not None


def _check(chosen: Chosen, entry: Entry, path: str, found: dict[str, Any]) -> None:
    """Raises `UserError` for an interpreter in which the implementation's worker could not do its work."""
    install = f"{shlex.quote(path)} -m pip install"
    own = str(Path(harness.__file__).resolve().parent)
    if (found["version"], found["sources"]) != (harness.__version__, own):
        raise chosen.unusable(
            f"it runs capsbench {found['version']} from {found['sources']}, not this one, {harness.__version__} from {own}",
            "remove what puts that first on its import path, such as a sitecustomize.py",
        )
    lacking = [need for need in registry.NEEDS if not _satisfies(found["needs"][_name(need)], need)]
    if lacking:
        there = (f"{_name(need)} {version}" for need in lacking if (version := found["needs"][_name(need)]))
        has = ", ".join(there)
        raise chosen.unusable(
            f"it lacks what capsbench needs: {', '.join(lacking)}{f' (it has {has})' if has else ''}",
            f"install it there: {install} {' '.join(map(shlex.quote, lacking))}",
        )
    if found["fault"]:
        raise chosen.unusable(found["fault"], f"mend it, or make another one: capsbench env create {chosen.impl}")
    if found["missing"]:
        what = found["missing"].partition(";")[0]
        wanted = registry.requirements(entry.base) if entry.base in registry.FRAMEWORKS else ()
        how = f"{install} {' '.join(map(shlex.quote, wanted))}" if wanted else entry.install
        raise chosen.unusable(what, f"install it there: {how}")
    library = library_version(entry, found["versions"])
    if entry.label and names_version(entry.label) and library and not is_version(entry.label, library[1]):
        raise chosen.unusable(
            f"it has {library[0]} {library[1]}, not {entry.label}",
            f'install that there: {install} "{library[0]}=={entry.label}.*"; or call it {entry.base}@{library[1]}',
        )


def _paths(path: str) -> list[str]:
    other = Interpreter(path=path, python="", versions={})
    return forwarded_paths(other)


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]


def _satisfies(version: str | None, requirement: str) -> bool:
    """Whether a version is at least what `requirement`, NAME>=VERSION, asks for."""
    least = requirement.partition(">=")[2]
    return version is not None and _numbers(version) >= _numbers(least)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part]  # pyright: ignore


def _run(command: Sequence[str], limit_s: float) -> tuple[int | None, str, str]:
    """Exit code, or None if the time ran out, stdout and stderr; both are cut off where they become long."""
    env = in_another_python(
        {**child_environment({**os.environ, **forwarded_environment()}), "PYTHONWARNINGS": "ignore"}
    )
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        return -1, "", str(error.strerror)
    assert process.stdout
    assert process.stderr
    texts = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    deadline = time.monotonic() + limit_s
    code: int | None = None
    with selectors.DefaultSelector() as selector, process:
        for each in texts:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                received = os.read(key.fd, 1 << 16)
                texts[key.fd] += received
                if not received or len(texts[key.fd]) > _MOST_BYTES:
                    selector.unregister(key.fd)
        if not selector.get_map():
            try:
                code = process.wait(max(0.1, min(1.0, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                code = -1
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    out, err = (text.decode(errors="replace") for text in texts.values())
    return code, out, err
