"""`capsbench table`: all figures of all trials and epochs of a run in one table."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from harness.analysis.cells import of_run
from harness.analysis.choice import advice, choices
from harness.analysis.rows import COLUMNS, Row, all_rows
from harness.commands import parser
from harness.commands.output import print_json
from harness.disk import write_atomic
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.kept import find_trial
from harness.views.messages import Console
from harness.views.report.choice_table import TITLE, choice_table, explained
from harness.views.tables import epochs_table, print_table

STDOUT = "-"


def rows(run_dir: Path) -> list[Row]:
    """The rows of `capsbench table`. Raises `UserError` if the folder is no run's, or a file cannot be read."""
    journal = Journal(run_dir)
    if not journal.trial_ids():
        find_trial(run_dir, "")  # says what is wrong and suggests a similar run
    return all_rows(journal)


def as_csv(table: Sequence[Row]) -> str:
    """The rows with a header; unknown values are empty, true and false in lower case, numbers in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table[0])
    writer.writerows([_cell(value) for value in row.values()] for row in table)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, list | dict) else value


def _show_choice(console: Console, run_dir: Path) -> None:
    """Which epoch counts, where a run has several epochs and validation images."""
    try:
        found = choices(of_run(Journal(run_dir)))
    except UserError:  # no plan: its trials are in the table even so
        return
    if not found:
        return
    console.print(Text(f"\n{TITLE}", "bold"))
    console.print(Text(explained(found), "dim"), soft_wrap=True)
    print_table(console, choice_table(found))
    for line in advice(run_dir, found):
        console.print(Text(line, "dim"), soft_wrap=True)


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench table`."""
    parser.run_dir(command)
    command.add_argument(
        "--csv", nargs="?", const=STDOUT, metavar="FILE",
        help="write it as CSV, one line per trial and epoch; without FILE to stdout. docs/table.md: the columns",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    if args.csv == STDOUT and args.json:
        raise UserError("--csv and --json both write to stdout; give --csv a file")
    if args.csv and Path(args.csv).is_dir():
        raise UserError(f"--csv {args.csv}: a folder; expected a file. RUN comes before --csv")
    table = rows(args.run_dir)
    if args.csv == STDOUT:
        print(as_csv(table), end="")
    elif args.csv:
        try:
            write_atomic(Path(args.csv), as_csv(table))
        except OSError as error:
            raise UserError(f"cannot write {args.csv}: {error.strerror}") from error
    if args.json:
        means = {name: COLUMNS.get(name) for name in table[0]}
        print_json({"run_dir": str(args.run_dir), "csv": args.csv, "columns": means, "rows": table})
    elif args.csv != STDOUT:
        console = Console()
        print_table(console, epochs_table(table))
        _show_choice(console, args.run_dir)
        trials, columns = len({row["trial"] for row in table}), len(table[0])
        told = f"Written: {args.csv}" if args.csv else "All of them: --csv FILE"
        console.print(Text(f"\n{trials} trials, {len(table)} rows, {columns} columns. {told}"), soft_wrap=True)
    return 0
