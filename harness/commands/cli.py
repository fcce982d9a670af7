"""The command line. Exit codes: 0 good, 1 a trial, parity or comparison failed, 2 the request was wrong, 130 interrupted.

A command is a module of this package with the same name. It has `options(parser)` and `main(args)`, which returns the
exit code. It is imported only when called, so that no command waits for what another one needs.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness import __version__, interruption, progress, terminal
from harness.commands.output import print_json, tell
from harness.commands.parser import JSON_HELP, Parser
from harness.errors import Noted, UserError, of_the_system

COMMANDS = {
    "run": "run a suite: finished trials are kept, half-done ones go on",
    "plan": "show a suite's trials: finished or to run, what each takes, and how long it should last",
    "submit": "run a suite on a Ray cluster from a machine outside, and bring the run directory home",
    "summary": "show a suite's models layer by layer: output shapes, parameters, operations",
    "parity": "prove implementations equal to the specification, or say which tensor is off",
    "speed": "measure a training step and an evaluation, against the machine's own limit",
    "sync": "bring a run into MLflow, or what MLflow still lacks of it",
    "report": "what a run says over its seeds, beside published figures, and of cost; tables, page, figures",
    "compare": "compare two runs cell by cell; exit code 1 if the second is significantly worse",
    "history": "many runs of one suite as one page, with the run at which error, time or memory stepped",
    "predict": "say what a trained model sees in your own pictures; probabilities, reconstructions, CSV",
    "demo": "draw a digit: every installed framework answers from the same weights; in a browser, on this machine alone",
    "table": "all figures of a run's trials and epochs in one table: on the screen, as CSV or JSON",
    "export": "write a trial's weights as a framework's own files, which load without capsbench",
    "publish": "a finished run as a crate for others: hashes, report, weights, RO-Crate metadata",
    "verify": "check a published run: hashes, test errors, predictions from the weights; exit code 1 if any is false",
    "retest": "test errors of all epochs whose weights a run kept: what choosing on the test set would have claimed",
    "figures": "draw the figures of a run's finished trials again, from its directory alone",
    "ui": "open the comparison in MLflow's pages, on this machine only unless --host says otherwise",
    "doctor": "what of this machine the bench can use, and what to do about the rest",
    "env": "make, list or remove environments: frameworks, or versions of one, that run apart from the others",
    "suites": "list the suites that come with the bench, or copy one here to edit",
    "schema": "print the JSON Schema of suites, by which editors complete and check them",
    "data": "list the data sets, fetch one, or show one",
    "completion": "print the script with which bash, zsh or fish complete commands, options, suites, runs and trials",
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The `capsbench` command; without `argv`, of this process, whose environment and import path it then settles."""
    arguments = _in_order(sys.argv[1:] if argv is None else argv)
    if argv is None:
        interruption.is_at_once()
        terminal.prepare()
    as_json = "--json" in arguments
    if argv is None:
        _ease_warnings()
    _show_notes()
    try:
        if argv is None:
            _put_working_directory_last()
            gc.disable()  # all that is loaded is kept: looking through it again and again would find nothing to drop
        args = parser(arguments).parse_args(arguments)
        args.given = arguments
        if argv is None:
            gc.freeze()
            gc.enable()
            interruption.is_an_exception()
            from harness.machine.surroundings import settle

            settle()
        progress.shown_by(_progress)
        code = _module(args.command).main(args)
    except UserError as error:
        code = _refuse(str(error), error.code, as_json)
    except KeyboardInterrupt:
        tell("interrupted", "")
        if as_json:
            print_json({"error": "interrupted"})
        code = 130
    except SystemExit as end:  # --help, --version
        code = end.code if isinstance(end.code, int) else 0
    except OSError as error:
        if not (message := of_the_system(error)):
            raise
        code = _refuse(message, 2, as_json)
    sys.exit(terminal.finish(code) if argv is None else code)


def _refuse(message: str, code: int, as_json: bool) -> int:
    tell(f"capsbench: {message}", "red")
    if as_json:
        print_json({"error": message})
    return code


def _in_order(arguments: Sequence[str]) -> list[str]:
    """`help plan` means `plan --help`, and --json may come first."""
    found = list(arguments)
    if found[:1] == ["help"]:
        return [*found[1:2], "--help"]
    return [*found[1:], "--json"] if found[:1] == ["--json"] and found[1:] else found


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of `capsbench`, with the options of the requested command. Parsing raises `UserError`."""
    top = Parser(
        prog="capsbench",
        description="Equivalent capsule networks in PyTorch, TensorFlow and JAX: proven equal, then timed.",
    )
    top.add_argument("--version", action="version", version=f"capsbench {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument("--json", action="store_true", help=JSON_HELP)
        if name == next((each for each in arguments if not each.startswith("-")), None):
            _module(name).options(command)
    return top


def _ease_warnings() -> None:
    """Ends `PYTHONWARNINGS=error`: a library's remark must not end a command."""
    if any(action == "error" for action, *_ in warnings.filters):
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)


def _put_working_directory_last() -> None:
    """Finds the user's modules there after all that is installed: a file such as random.py must not pass for a library.

    First it stays where PYTHONPATH names it; an empty entry, as in "$PYTHONPATH:/mine", is no name. Raises `UserError` if
    it is gone.
    """
    try:
        here = str(Path.cwd())
    except FileNotFoundError as error:
        raise UserError("the working directory has been removed; change to another one") from error
    if here not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        from harness.machine.surroundings import holds_packages

        bench = str(Path(__file__).resolve().parents[2])  # an editable installation finds it only after all of the path
        others = [path for path in sys.path if path != here]
        is_there = bench in (here, *others) or holds_packages(bench)
        sys.path[:] = [*others, *([] if is_there else [bench]), here]


def _show_notes() -> None:
    """Shows each `Noted` warning once, as a readable line; other warnings stay as Python shows them."""
    plain = warnings.showwarning
    seen: set[str] = set()  # Python forgets what it has shown whenever a library changes a filter

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if not issubclass(category, Noted):
            plain(message, category, *rest, **more)
        elif str(message) not in seen:
            seen.add(str(message))
            tell(f"capsbench: {message}", "yellow")

    warnings.showwarning = show


def _progress() -> progress.Display:
    from harness.views.progress import Shown

    return Shown()


def _module(command: str) -> Any:
    return importlib.import_module(f"harness.commands.{command}")
