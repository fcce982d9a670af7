"""The command line. Exit codes: 0 good, 1 a trial, parity or comparison failed, 2 the request was wrong, 130 interrupted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.text import Text

from harness.commands.common import _print_json
from harness.commands.compare import _compare
from harness.commands.data import _data
from harness.commands.doctor import _doctor
from harness.commands.export import _export
from harness.commands.figures import _figures
from harness.commands.parity import _parity
from harness.commands.parser import parser
from harness.commands.plan import _plan
from harness.commands.report import _report
from harness.commands.run import _run
from harness.commands.speed import _speed
from harness.commands.summary import _summary
from harness.commands.sync import _sync
from harness.commands.ui import _ui
from harness.errors import UserError

if TYPE_CHECKING:
    pass


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The `capsbench` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        args = parser().parse_args(arguments)
        code = _COMMANDS[args.command](args)
    except UserError as error:
        Console(stderr=True).print(Text(f"capsbench: {error}", "red"), soft_wrap=True)
        if as_json:
            _print_json({"error": str(error)})
        code = 2
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        if as_json:
            _print_json({"error": "interrupted"})
        code = 130
    sys.exit(code)


_COMMANDS = {
    "run": _run, "plan": _plan, "summary": _summary, "parity": _parity, "speed": _speed, "sync": _sync, "report": _report,
    "compare": _compare, "figures": _figures, "export": _export, "ui": _ui, "doctor": _doctor, "data": _data,
}  # fmt: skip
