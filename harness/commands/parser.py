"""What the commands' options have in common; imports nothing that takes time."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn, cast

from harness.errors import UserError, nearest

JSON_HELP = "print one JSON document on stdout, all else on stderr"


class Parser(argparse.ArgumentParser):
    """argparse, but its errors suggest the nearest choice and are raised as ours instead of a usage dump."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Refuses an unknown option in the parser of its command, which knows the valid ones.

        Words for an argument that takes any number may stand before and after options, which argparse does not allow.
        """
        parsed, unknown = super().parse_known_args(args, namespace)
        if options := [each for each in unknown if each.startswith("-")]:
            name = options[0].partition("=")[0]
            self.error(f'unknown option "{name}"{nearest(name, cast(Any, self)._option_string_actions)}')
        for action in cast(Any, self)._actions:
            if unknown and action.nargs == "*" and not action.option_strings:
                setattr(parsed, action.dest, [*(getattr(parsed, action.dest) or ()), *unknown])
                return parsed, []
        return parsed, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if isinstance(action, cast(Any, argparse)._SubParsersAction) else action.option_strings[0]
            self.error(f'unknown {what} "{value}"{nearest(str(value), action.choices)}')

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\nSee: {self.prog} --help")


def suite(parser: argparse.ArgumentParser, example: str = "suites/quickstart.yaml") -> None:
    """Adds SUITE and its overrides."""
    parser.add_argument(
        "suite",
        type=Path,
        metavar="SUITE",
        help=f"a shipped suite, such as quickstart, or a YAML file, such as {example}",
    )
    overrides(parser)


def scheduled(parser: argparse.ArgumentParser) -> None:
    """For `run` and `plan`: adds a suite, and where its trials run."""
    suite(parser)
    parser.add_argument("--quick", action="store_true", help="apply the suite's `quick` settings: minutes, not hours")
    out(parser)
    parser.add_argument(
        "--executor", choices=("auto", "ray", "inline"), default="auto",
        help="ray: schedule on this machine or a cluster; inline: one trial after another, without Ray",
    )  # fmt: skip
    parser.add_argument("--ray-address", metavar="A", help="a running Ray cluster, such as auto or ray-head:6379")


def run_dir(parser: argparse.ArgumentParser, example: str = "runs/quickstart") -> None:
    """Adds RUN."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help=f"a run's directory, such as {example}")


def overrides(parser: argparse.ArgumentParser) -> None:
    """Adds -s KEY=VALUE."""
    parser.add_argument(
        "-s", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a setting: -s model.routing=1,3 -s train.epochs=2",
    )  # fmt: skip


def out(parser: argparse.ArgumentParser) -> None:
    """Adds --out, the folder of runs."""
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="the folder of runs; default: runs"
    )


def mlflow(parser: argparse.ArgumentParser) -> None:
    """Adds --mlflow-uri."""
    parser.add_argument("--mlflow-uri", metavar="U", help="a tracking server or database; default: OUT/mlflow.db")
