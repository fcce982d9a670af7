"""Runs the blocks of commands in the README and in docs/, a page after the other: `make docs-test`.

Each page has a folder of its own, with the checkout's `suites` and `examples` and what readers are asked to have; its blocks
are run there in their order, by bash. Ends with a table of what was run and what was left out; exit code 1 if a block failed.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.docs.blocks import ROOT, Block, blocks, pages

LIMIT_S = 1800
"""How long a block may take."""
_RUN_ONLY = re.compile(r" --(no-mlflow|tensorboard|no-figures)\b")
_BAD = "name: bad\ndata: {name: digits}\nmodel: {rooting: 3}\ntrain: {batch: big}\ngrid: {impl: [tensorflow]}\n"
_EXAMPLE = "runs/quickstart"
_CAPSBENCH = f'capsbench() {{ "{sys.executable}" -m harness "$@"; }}\n'
"""The command of this checkout, whatever else is installed."""


def planned(line: str) -> str:
    """The line with its run planned instead; "" for one that measures."""
    if line.startswith("capsbench run "):
        return _RUN_ONLY.sub("", line.replace("capsbench run", "capsbench plan", 1))
    return "" if line.startswith("capsbench speed") else line


class Folder:
    """Where the blocks of one page are run."""

    def __init__(self, base: Path, name: str) -> None:
        self.path = base / name
        self.path.mkdir()
        for each in ("suites", "examples"):  # copies: some blocks write into them
            shutil.copytree(ROOT / each, self.path / each, ignore=shutil.ignore_patterns("__pycache__", "runs"))
        for each in ("results", "constraints.txt"):
            (self.path / each).symlink_to(ROOT / each)
        (self.path / "bad.yaml").write_text(_BAD)
        self._trial = ""

    def prepare(self, example: Path) -> None:
        """A finished run, a copy of it to compare with, pictures and a file of weights."""
        if self._trial:
            return
        for target in (_EXAMPLE, "before/quickstart", "after/quickstart"):
            shutil.copytree(example, self.path / target)
        _as_another(self.path / "after" / "quickstart")
        self._trial = next((example / "trials").iterdir()).name
        shutil.copyfile(example / "trials" / self._trial / "best.safetensors", self.path / "best.safetensors")
        _pictures(self.path)

    def script(self, block: Block) -> str:
        """What bash is to run."""
        text = block.text
        if block.mark == "plan":
            text = "\n".join(map(planned, block.commands)) + "\n"
        elif block.has_prompts:
            text = "\n".join(block.commands) + "\n"
        return text.replace("3fa1", self._trial[:4]) if self._trial else text


def _as_another(run_dir: Path) -> None:
    """Makes the copy of a run another run of the same suite."""
    from harness.journal.journal import Journal

    with Journal(run_dir).open() as journal:
        journal.write_plan({**journal.plan(), "run_id": "f" * 32}, (run_dir / "suite.yaml").read_text())


def _pictures(folder: Path) -> None:
    from PIL import Image, ImageDraw

    (folder / "scans").mkdir()
    for path in (folder / "seven.png", folder / "scans" / "one.png"):
        picture = Image.new("L", (28, 28), 0)
        ImageDraw.Draw(picture).line([(7, 7), (20, 7), (12, 22)], fill=255, width=3)
        picture.save(path)


def _environment() -> dict[str, str]:
    bin = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}


def run(script: str, folder: Path, expected: int) -> str | None:
    """None if the script ends with the expected code; else what was wrong, and the end of its output."""
    process = subprocess.Popen(
        ["bash", "-e", "-o", "pipefail", "-c", _CAPSBENCH + script], cwd=folder, env=_environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        said = _ended(process)
        return f"no end after {LIMIT_S} s\n{said[-3000:]}"
    except BaseException:  # whoever ends this ends the block, too
        _ended(process)
        raise
    if "Traceback (most recent call last)" in said:
        return f"a traceback\n{said[-3000:]}"
    return None if process.returncode == expected else f"exit code {process.returncode}, not {expected}\n{said[-3000:]}"


def _ended(process: subprocess.Popen[str]) -> str:
    """What the block said, once it and all that it started have ended; a run then says how to go on, as after Ctrl-C."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        said, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    return said


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = argparse.ArgumentParser(prog="python -m tests.docs.run", description=__doc__)
    options.add_argument("pages", nargs="*", help="names of pages, such as tutorial; default: all")
    options.add_argument("--list", action="store_true", help="only say what would be run")
    args = options.parse_args()
    chosen = [path for path in pages() if not args.pages or path.stem in args.pages]
    if missing := {*args.pages} - {path.stem for path in chosen}:
        options.error(f"no such page: {', '.join(sorted(missing))}")
    found = {path: blocks(path) for path in chosen}
    failed: list[str] = []
    counted: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="capsbench-docs-") as temporary:
        base = Path(temporary)
        example = base / "example"
        for path, those in found.items():
            folder = Folder(base, path.stem)
            for block in those:
                what = f"left out: {block.said}" if block.mark == "skip" else "run"
                counted[what] += 1
                if what != "run" or args.list:
                    print(f"{block.place}: {what}", flush=True)
                    continue
                if block.said == "example":
                    if not example.exists():
                        make = (
                            "capsbench run quickstart impl=torch train.epochs=2 --executor inline --no-mlflow --out out"
                        )
                        if wrong := run(make, base, 0):
                            print(f"{make}: {wrong}")
                            return 1
                        (base / "out" / "quickstart").rename(example)
                    folder.prepare(example)
                began = time.monotonic()
                wrong = run(folder.script(block), folder.path, int(block.said) if block.mark == "fails" else 0)
                print(f"{block.place}: {'FAILED' if wrong else 'ok'} in {time.monotonic() - began:.0f} s", flush=True)
                if wrong:
                    failed.append(block.place)
                    print(f"{folder.script(block)}{wrong}\n")
    print()
    for what, count in sorted(counted.items(), key=lambda each: (each[0] != "run", each[0])):
        print(f"{count:4} {what}")
    print(f"\n{counted['run'] - len(failed)} passed, {len(failed)} failed" if not args.list else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
