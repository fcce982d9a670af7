"""A small run in fifty hostile surroundings: `python -m tests.hostile.run`, or `make hostile`.

Each must end with the result of a run in quiet surroundings, to the last bit, or be refused with exit code 2 and one
sentence where no run is possible. Prints a line for each; exit code 1 if one is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from tests.helpers.run_helpers import repeatable, write_suite
from tests.hostile.catalogue import BESIDE, FOLDERS, Surroundings, every, sample

TIME_LIMIT_S = 240
_SCRIPT = "import sys\nfrom harness.commands.cli import main\nsys.exit(main())\n"
"""What pip installs as `capsbench`."""
_RUN = ("--executor", "inline", "--no-mlflow", "--no-figures", "--json")


@dataclass(frozen=True)
class Fate:
    """How a run ended: what is wrong with that, if anything, and what it said."""

    surroundings: Surroundings
    wrong: str | None
    exit_code: int
    stderr: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="those whose name has it; may be given several times"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="so many, drawn by --seed")
    parser.add_argument("--seed", default="", help="for --sample")
    parser.add_argument(
        "--impl", help="run this implementation in all of them; default: the one that would feel it most"
    )
    options = parser.parse_args(arguments)
    chosen = [each for each in every() if any(text in each.name for text in options.only or [""])]
    if options.sample is not None:
        chosen = sample(chosen, options.sample, options.seed)
    if not chosen:
        print("no such surroundings: --list prints their names", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(each.name for each in chosen))
        return 0
    fates: list[Fate] = []
    for each in chosen:
        fates.append(fate := run(each, options.impl))
        print(
            f"{'ok' if fate.wrong is None else 'WRONG':5} {fate.seconds:5.1f} s  {options.impl or each.impl}: {each.name}",
            flush=True,
        )
        if fate.wrong:
            print(f"      {fate.wrong}\n      " + fate.stderr.strip().replace("\n", "\n      "), flush=True)
    wrong = sum(fate.wrong is not None for fate in fates)
    print(f"{len(fates)} surroundings, {wrong} wrong")
    return 1 if wrong else 0


def run(each: Surroundings, impl: str | None = None) -> Fate:
    """Runs the small suite there."""
    impl = impl or each.impl
    expected = reference(impl)
    with _folder() as base:
        here = base / "work" / each.place
        here.mkdir(parents=True)
        suite = write_suite(here, grid={"impl": [impl]})
        for name in BESIDE if each.has_modules else ():
            (here / f"{name}.py").write_text(f"raise RuntimeError('{name}.py of the working directory was imported')\n")
        before = {path.name for path in here.iterdir()}
        env = {**_quiet(base), **each.environment}
        if not set(each.environment) & {"LANG", "LC_ALL"}:
            env.pop("LANG")
        FOLDERS[each.folders](env, base, here)
        started = time.monotonic()
        done = _capsbench(base, here, suite.name, env, has_account=each.has_account)
        seconds = time.monotonic() - started
        _writable(base)
        strewn = {path.name for path in here.iterdir()} - before - {"runs"}
        wrong = _judged(each, done, here / "runs" / "small", expected) or (
            f"files appeared beside the run: {', '.join(sorted(strewn))}" if strewn else None
        )
    return Fate(each, wrong, done.returncode, done.stderr, seconds)


@cache
def reference(impl: str) -> dict[str, Any]:
    """The outcome of the run in quiet surroundings."""
    with _folder() as base:
        here = base / "work"
        here.mkdir()
        suite = write_suite(here, grid={"impl": [impl]})
        done = _capsbench(base, here, suite.name, _quiet(base))
        assert done.returncode == 0, done.stderr
        return outcome(here / "runs" / "small")


def outcome(run_dir: Path) -> dict[str, Any]:
    """What must be the same everywhere: the trial's id and result, the bits of its weights and its predictions."""
    [folder] = (run_dir / "trials").iterdir()
    files = {name: load_file(folder / f"{name}.safetensors") for name in ("weights", "best", "predictions")}
    bits = {
        f"{file} {name}": hashlib.sha256(array.tobytes()).hexdigest()
        for file, arrays in files.items()
        for name, array in sorted(arrays.items())
    }
    return {**repeatable(json.loads((folder / "result.json").read_text())), "bits": bits}


def _judged(
    each: Surroundings, done: subprocess.CompletedProcess[str], run_dir: Path, expected: dict[str, Any]
) -> str | None:
    """What is wrong, or None."""
    if "Traceback" in done.stderr:
        return "a traceback"
    if done.returncode == 0:
        found = outcome(run_dir)
        differing = [name for name in expected["bits"] if found["bits"].get(name) != expected["bits"][name]]
        if found == expected:
            return None
        return (
            f"another result: {', '.join(differing[:3]) or 'the same weights'}, id {found['id']} for {expected['id']}"
        )
    if done.returncode != 2:
        return f"exit code {done.returncode}"
    said = [line for line in done.stderr.splitlines() if not line.startswith("ERROR: ld.so:")]
    if not each.may_be_refused:
        return "refused"
    if len(said) != 1 or not said[0].startswith("capsbench: "):
        return f"refused in {len(said)} lines"
    return "a refused run has left a folder" if run_dir.exists() else None


def _capsbench(
    base: Path, here: Path, suite: str, env: dict[str, str], *, has_account: bool = True
) -> subprocess.CompletedProcess[str]:
    script = base / "bin" / "capsbench"
    script.parent.mkdir(exist_ok=True)
    script.write_text(_SCRIPT)
    command = [*_unprivileged(has_account), sys.executable, str(script), "run", suite, *_RUN]
    done = subprocess.run(
        command, cwd=here, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT_S, check=False
    )
    stdout, stderr = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, stdout, stderr)


def _quiet(base: Path) -> dict[str, str]:
    """The environment of a user whom nothing troubles."""
    folders = {"HOME": base / "home", "TMPDIR": base / "tmp"}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    own = {name: str(folder) for name, folder in folders.items()}
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "CAPSBENCH_GATE_CACHE": "off", **own}


@cache
def _unprivileged(has_account: bool) -> tuple[str, ...]:
    """The beginning of a command that takes root's rights from it, or also the user's name and home; empty if neither can be.

    Root may write to read-only folders.
    """
    ways = [["unshare", "--user", "--map-user=54321", "--map-group=54321"]] if not has_account else []
    ways += [["setpriv", "--bounding-set=-all", "--inh-caps=-all"]] if os.geteuid() == 0 else []
    for way in ways:
        if (tool := shutil.which(way[0])) and not subprocess.run(
            [tool, *way[1:], sys.executable, "-c", ""], check=False
        ).returncode:
            return (tool, *way[1:])
    return ()


@contextmanager
def _folder() -> Generator[Path]:
    base = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        yield base
    finally:
        _writable(base)
        shutil.rmtree(base, ignore_errors=True)


def _writable(base: Path) -> None:
    """Makes all folders writable again."""
    for path in [base, *base.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
