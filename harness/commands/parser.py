"""What the commands' options have in common; imports nothing that takes time."""

from __future__ import annotations

import argparse
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from harness.errors import UserError, nearest

JSON_HELP = "print one JSON document on stdout, all else on stderr"
_SETTING = re.compile(r"[A-Za-z][\w-]*(\.[\w@+-]+)*=.*", re.DOTALL)  # key=value
_MISSING = "the following arguments are required: "


class Paragraphs(argparse.HelpFormatter):
    """Fills each paragraph of a description by itself."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(fill(each, width, indent) for each in text.split("\n\n"))


class Parser(argparse.ArgumentParser):
    """argparse, but its errors suggest the nearest choice and are raised as ours instead of a usage dump."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Refuses what is unknown in the parser of its command, which knows what is valid there.

        Words for an argument that takes any number may stand before and after options, which argparse does not allow.
        """
        if args is not None and "-s" in self._known:
            args = self._with_settings(args)
        self._given = list(args or ())
        parsed, unknown = super().parse_known_args(args, namespace)
        if options := [each for each in unknown if each.startswith("-")]:
            name = options[0].partition("=")[0]
            meant = name.lstrip("-")
            if "-s" in self._known and "." in meant:
                self.error(f'unknown option "{name}"; a setting has no dashes: {meant}=VALUE')
            self.error(f'unknown option "{name}"{nearest(name, self._known)}')
        for action in cast(Any, self)._actions:
            if unknown and action.nargs == "*" and not action.option_strings:
                setattr(parsed, action.dest, [*(getattr(parsed, action.dest) or ()), *unknown])
                return parsed, []
        if unknown:
            names = " ".join(str(each.metavar or each.dest) for each in self._get_positional_actions())
            takes = f"it takes {names}" if names else "it takes none"
            hint = "; a setting is KEY=VALUE, without spaces" if "-s" in self._known else ""
            self.error(f'unexpected argument "{unknown[0]}"; {takes}{hint}')
        return parsed, unknown

    @property
    def _known(self) -> dict[str, argparse.Action]:
        return cast(Any, self)._option_string_actions

    def _with_settings(self, arguments: Sequence[str]) -> list[str]:
        """The arguments with -s before each key=value that stands alone. A file of that name is a suite."""
        found: list[str] = []
        is_value = False
        for each in arguments:
            is_option = not is_value and each.startswith("-") and each != "-"
            if not (is_value or is_option) and _SETTING.fullmatch(each) and not os.path.exists(each):  # noqa: PTH110 (which takes what is too long for a name, as seeds may be)
                found.append("-s")
            found.append(each)
            is_value = is_option and each in self._known and self._known[each].nargs is None
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            is_command = isinstance(action, cast(Any, argparse)._SubParsersAction)
            what = "command" if is_command else (*action.option_strings, action.metavar)[0]
            self.error(f'unknown {what} "{value}"{nearest(str(value), action.choices)}')

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string and (action.option_strings or action.type is Path):
            name = action.option_strings[-1] if action.option_strings else action.metavar
            self.error(f"{name} is empty, such as a shell's variable that is not set; give it a value, or drop it")
        return super()._get_value(action, arg_string)  # pyright: ignore

    def error(self, message: str) -> NoReturn:
        if message.startswith(_MISSING):
            names = message.removeprefix(_MISSING).split(", ")
            every = (*self._get_positional_actions(), *self._known.values())
            told = {"/".join(each.option_strings) or each.metavar or each.dest: each for each in every}
            message = "; ".join(_lacking(name, told.get(name)) for name in names) + self._swallowed(names[0])
        raise UserError(f"{message}\nSee: {self.prog} --help")

    def _swallowed(self, missing: str) -> str:
        """That an option which need not have a value has taken the word that is missing."""
        given: list[str] = getattr(self, "_given", [])
        for option, word in itertools.pairwise(given):
            if option in self._known and self._known[option].nargs == "?" and not word.startswith("-"):
                return f'. {option} has taken "{word}": {missing} stands before {option}'
        return ""


def _lacking(name: str, action: argparse.Action | None) -> str:
    """What is missing, and what it may be."""
    if action is not None and action.choices is not None:
        one = f"one of {', '.join(map(str, action.choices))}"
        return f"{one} is missing" if "|" in name else f"{name} is missing: {one}"
    return f"{name} is missing" + (f": {action.help}" if action is not None and action.help else "")


def suite(parser: argparse.ArgumentParser, example: str = "suites/quickstart.yaml") -> None:
    """Adds SUITE and its overrides."""
    parser.add_argument(
        "suite",
        type=Path,
        metavar="SUITE",
        help=f"a shipped suite, such as quickstart, or a YAML file, such as {example}; - reads it from stdin",
    )
    overrides(parser)


def scheduled(parser: argparse.ArgumentParser) -> None:
    """For `run` and `plan`: adds a suite, and where its trials run."""
    suite(parser)
    parser.add_argument("--quick", action="store_true", help="apply the suite's `quick` settings: minutes, not hours")
    parser.add_argument(
        "--fresh", action="store_true",
        help="train from the first epoch, even where a trial that only has fewer epochs could be gone on from",
    )  # fmt: skip
    parser.add_argument(
        "--go-on-from", type=Path, metavar="RUN",
        help="look for such trials in another run's directory, too",
    )  # fmt: skip
    out(parser)
    parser.add_argument(
        "--executor",
        choices=("auto", "ray", "inline"),
        default="auto",
        help="ray: schedule on this machine or a cluster; inline: one trial after another, without Ray",
    )
    parser.add_argument("--ray-address", metavar="A", help="a running Ray cluster, such as auto or ray-head:6379")


def run_dir(parser: argparse.ArgumentParser, example: str = "runs/quickstart") -> None:
    """Adds RUN."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help=f"a run's directory, such as {example}")


def overrides(parser: argparse.ArgumentParser) -> None:
    """Adds -s KEY=VALUE."""
    parser.add_argument(
        "-s",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting: -s model.routing=1,3 -s train.epochs=2; -s may be left out",
    )


def out(parser: argparse.ArgumentParser) -> None:
    """Adds --out, the folder of runs."""
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="the folder of runs; default: runs"
    )


def mlflow(parser: argparse.ArgumentParser) -> None:
    """Adds --mlflow-uri."""
    parser.add_argument(
        "--mlflow-uri", metavar="U",
        help="a tracking server or database; default: MLFLOW_TRACKING_URI if it is set, otherwise OUT/mlflow.db",
    )  # fmt: skip
