"""`capsbench publish`: a run as a research object crate, which others can check with `capsbench verify`."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from harness import progress
from harness.commands import parser
from harness.commands.output import print_json
from harness.commands.report import report
from harness.disk import obstacle
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.kept import find_trial
from harness.publishing import crate
from harness.publishing.contents import contents, without_places
from harness.publishing.metadata import Said
from harness.views.messages import Console

_README = """\
# {suite}: a run of capsbench

{question}

`ro-crate-metadata.json` describes every file (RO-Crate 1.1) with its SHA-256. `report/report.html` shows the results.

To check them (`pip install capsbench`):

```
capsbench verify .                     # hashes, test errors from the predictions, predictions from the weights
capsbench run suite.yaml               # to run the suite again
```

It is a run directory of capsbench, so `capsbench report .`, `table .` and `compare . RUN` work on it as well.
"""


@dataclass(frozen=True)
class Published:
    """A crate on the disk. `sha256` is of its metadata, which has the hashes of all other files."""

    path: Path
    files: int
    bytes: int
    sha256: str
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The output of `publish --json`."""
        return {
            "crate": str(self.path), "files": self.files, "bytes": self.bytes, "sha256": self.sha256, "notes": self.notes,
        }  # fmt: skip


def publish(
    run_dir: Path, target: Path, said: Said, weights_of: Collection[str] | None = None, *, figures: bool = True
) -> Published:
    """Writes the crate: what the run recorded, a fresh report, and a description.

    Args:
        target: a folder that does not exist or is empty, or a file that does not exist and ends in .zip.
        weights_of: ids of the trials whose weights are published; None: all.

    Raises `UserError` for what is no run, a run in progress or without a finished trial, damaged files, and a target that
    exists or cannot be written.
    """
    crate.require_free(target)
    names = contents(run_dir, weights_of, figures=figures)
    journal = Journal(run_dir)
    plan, environment = journal.plan(), without_places(journal.environment())
    try:
        with progress.task(f"publishing {run_dir.name}"), crate.staged(target, said) as folder:
            for name in progress.track(names, "copying files"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run_dir / name, folder / name)
            if environment != journal.environment():
                (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n", "utf-8")
            report(folder)
            question = str(plan.get("question") or "")
            (folder / "README.md").write_text(_README.format(suite=plan.get("suite"), question=question), "utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {obstacle(target.absolute().parent) or error.strerror}. Choose a place with --to."
        ) from error
    with progress.task("reading it again"), crate.opened(target) as folder:
        named, _ = crate.listed(folder)
        digest = crate.sha256(folder / crate.metadata.NAME)
    notes = [] if said.licence else ["no licence is stated: others may not know what they may do; --license CC-BY-4.0"]
    if weights_of is not None:
        some = f"with weights of {', '.join(weights_of)} alone: others'" if weights_of else "without weights: the"
        notes.append(f"{some} predictions cannot be recomputed from them")
    return Published(target, len(named), sum(size for size, _ in named.values()), digest, notes)


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench publish`."""
    parser.run_dir(command)
    command.add_argument(
        "--to", type=Path, required=True, metavar="DIR|ZIP", help="the crate: a folder, or a file ending in .zip"
    )
    which = command.add_mutually_exclusive_group()
    which.add_argument("--no-weights", action="store_true", help="leave the trained weights out: much smaller")
    which.add_argument(
        "--weights-of", action="append", metavar="TRIAL", help="the weights of this trial alone; may be repeated"
    )
    command.add_argument(
        "--no-figures", action="store_true", help="leave the trials' figures out: `capsbench figures` draws them again"
    )
    command.add_argument("--author", metavar="NAME", help="who publishes")
    command.add_argument("--license", metavar="ID", help="an SPDX identifier, such as CC-BY-4.0, or a URL")


def main(args: argparse.Namespace) -> int:
    if args.license and not re.fullmatch(r"[A-Za-z0-9.+-]+|https?://\S+", args.license):
        raise UserError(f"--license {args.license}: expected an SPDX identifier, such as CC-BY-4.0, or a URL")
    weights_of = (
        [] if args.no_weights else args.weights_of and [find_trial(args.run_dir, id).id for id in args.weights_of]
    )
    made = publish(args.run_dir, args.to, Said(args.author, args.license), weights_of, figures=not args.no_figures)
    console = Console(stderr=args.json)
    console.print(Text(f"{made.path}: {made.files} files, {made.bytes / 1e6:,.1f} MB"), soft_wrap=True)
    console.print(Text(f"SHA-256 of its metadata: {made.sha256}"), soft_wrap=True)
    for note in made.notes:
        console.print(Text(note, "yellow"), soft_wrap=True)
    console.print(Text(f"To check it: capsbench verify {made.path}"), soft_wrap=True)
    if args.json:
        print_json(made.to_json())
    return 0
