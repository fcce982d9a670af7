"""The pages of reference that are made from code. `python -m tests.helpers.reference` rewrites them.

docs/suite-keys.md from the keys of suites, docs/commands.md from the parser, docs/metrics.md from what results hold. For
docs/run-directory.md there is `tests.helpers.event_table`; docs/json.md is written by hand, and `tests.docs.json_page` compares
with it what commands print.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from harness import models
from harness.analysis.rows import COLUMNS
from harness.commands.cli import COMMANDS, parser
from harness.environments.chosen import folder
from harness.suite.identity import relevant
from harness.suite.keys import AXES, SEARCH, known
from harness.suite.meanings import SECTIONS, meaning
from harness.suite.schema import defaults

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
AGAIN = "This page is made from code: `python -m tests.helpers.reference`."
_RUN = "results/mnist-1-epoch"


def suite_keys() -> str:
    """docs/suite-keys.md."""
    given = defaults()
    lines = [
        "# Every key of a suite", "",
        f"{AGAIN} [Write a suite](own-suite.md) shows them at work.", "",
        *_filled(
            "In a file, keys stand in their sections (`train: {lr: 0.01}`); on the command line, in `grid` and in `quick`, "
            "under their whole names (`train.lr=0.01`). *Varied*: whether `grid` can hold several values. *Counts*: whether it "
            "is part of a trial's id."
        ),
    ]  # fmt: skip
    heads = {key: "grid" if key in AXES else key.rpartition(".")[0] for key in known().all}
    section = None
    for key in sorted(heads, key=lambda key: [*dict.fromkeys(heads.values())].index(heads[key])):
        head = heads[key]
        if is_new := head != section:
            section = head
            lines += ["", f"## {f'`{head}`' if head else 'At the top'}", ""]
            lines += [SECTIONS[head], ""] if head in SECTIONS else []
        default = f"`{json.dumps(given[key])}`" if key in given else "required"
        default = "" if default == "`null`" else default
        told = meaning(key)
        kinds = [kind for kind, names in models.settings().items() if key.removeprefix("model.") in names]
        if key.startswith("model.") and kinds and len(kinds) < len(models.names()):
            told += f" Of kind {' and '.join(kinds)}."
        varied, counts = key in known().grid, _counts(key)
        row = {
            "key": f"`{key}`",
            "meaning": _cell(told),
            "takes": _cell(known().all[key].expected.removesuffix(" or null")),
            "default": default,
            "varied": _yes(varied),
            "counts": _yes(counts),
        }
        if is_new:
            lines += [f"| {' | '.join(row)} |", f"|{'---|' * len(row)}"]
        lines.append(f"| {' | '.join(row.values())} |")
    lines += [
        "", "## `quick`", "", SECTIONS["quick"], "",
        "Keys that begin with `x-`, at the top, are ignored: a place for YAML anchors.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _counts(key: str) -> bool:
    """Whether two trials that differ in this key alone have different ids."""
    if key in AXES:
        return True
    head, _, rest = key.partition(".")
    if head in ("name", "question", "vary", "environments", SEARCH):
        return False
    if head == "resources":
        return True
    document: dict[str, Any] = {"data": {}, "train": {}, "parity": {}, "runtime": {}, "model": {}, "measure": {}}
    plain = json.dumps(relevant(document), sort_keys=True)
    inner = document[head]
    *path, name = rest.split(".")
    for each in path:
        inner = inner.setdefault(each, {})
    inner[name] = "another value"
    return json.dumps(relevant(document), sort_keys=True) != plain


def _filled(text: str) -> list[str]:
    return [*textwrap.wrap(text, 138), ""]


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def commands() -> str:
    """docs/commands.md."""
    lines = [
        "# Every command", "", f"{AGAIN} `capsbench COMMAND --help` prints the same.", "",
        *_filled(
            "Exit codes: 0 success; 1 a trial, parity, audit or comparison failed, or a picture could not be read; 2 the "
            "request was wrong, and nothing was started; 130 interrupted."
        ),
    ]  # fmt: skip
    for name, help in COMMANDS.items():
        top = parser([name])
        action = next(each for each in _actions(top) if isinstance(each, argparse._SubParsersAction))
        command = cast("argparse.ArgumentParser", cast(Any, action).choices[name])
        lines += [f"## capsbench {name}", "", f"{help[0].upper()}{help[1:]}.", ""]
        lines += _options(command)
    return "\n".join(lines).rstrip() + "\n"


def _actions(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return cast(Any, command)._actions


def _options(command: argparse.ArgumentParser) -> list[str]:
    lines = ["| argument or option | meaning |", "|---|---|"]
    inner: list[str] = []
    for each in _actions(command):
        if isinstance(each, argparse._SubParsersAction):
            for name, sub in cast("dict[str, argparse.ArgumentParser]", cast(Any, each).choices).items():
                inner += [f"### {command.prog} {name}", ""]
                inner += [f"{sub.description[0].upper()}{sub.description[1:]}.", ""] if sub.description else []
                inner += _options(sub)
            continue
        if each.dest == "help" or each.help == argparse.SUPPRESS:
            continue
        what = each.metavar or ("{" + ",".join(map(str, each.choices)) + "}" if each.choices else each.dest.upper())
        what = " ".join(what) if isinstance(what, tuple) else what
        names = ", ".join(each.option_strings)
        value = "" if each.option_strings and each.nargs == 0 else f" {what}" if names else what
        lines.append(f"| `{names}{value}` | {_cell(_help(each))} |")
    return [*lines, "", *inner]


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace(str(folder()), "~/.local/share/capsbench/environments")
    return text % {**vars(action), "default": action.default} if "%(" in text else text.replace("%%", "%")


def metrics() -> str:
    """docs/metrics.md."""
    from harness.views.mlflow import trials as shown

    lines = [
        "# Metrics", "", AGAIN, "",
        *_filled(
            "Units are in the names: `_s` seconds, `_pct` percent, `_bytes` bytes, `_mb` megabytes (millions of bytes), "
            "`img_per_s` images per second, `joules` joules. A trial that has not passed parity has no times."
        ),
        "## In the table and in Python", "",
        "Of each epoch (`capsbench table`, `run.epochs`); without those of the whole trial, which begin with `trial_`:", "",
        "| name | meaning |", "|---|---|",
        *(f"| `{name}` | {_cell(told)} |" for name, told in COLUMNS.items() if not name.startswith("trial_")),
        "", "Of a trial (`run.trials`, `run --json`; in the table with `trial_` before the name):", "",
        "| name | meaning |", "|---|---|",
        *(f"| `{name[6:]}` | {_cell(told)} |" for name, told in COLUMNS.items()
          if name.startswith("trial_") and not name.startswith("trial_claimed")),  # which the table alone has
        "", "## In MLflow", "",
        "Series by epoch begin with `epoch/`; finals stand under their short names.", "",
        "| metric | meaning |", "|---|---|",
    ]  # fmt: skip
    for name in (*shown._EPOCH_RECORD, *shown._EPOCH_TIMING):
        lines.append(f"| `epoch/{name}` | {_cell(COLUMNS.get(name) or _terms(name))} |")
    lines.append("| `epoch/routing_logit_change_K` | Mean change of the routing logits in iteration K. |")
    for name in _finals():
        lines.append(f"| `{name}` | {_cell(_meaning_of_final(name))} |")
    return "\n".join(lines) + "\n"


def _terms(name: str) -> str:
    return f"Mean of the loss's term {name.removeprefix('train_')} over the training images."


_ELSEWHERE = {
    "audit_s": "Seconds that the audit took, outside the timed regions.",
    "gflops_per_s": "Operations of the direct algorithm per second, in thousands of millions.",
    "peak_mem_mb": "The most memory held, in megabytes.",
    "parity_ok": "1: the gate found the implementation equal to the specification; 0: it did not.",
}


def _meaning_of_final(name: str) -> str:
    return _ELSEWHERE.get(name) or COLUMNS[f"trial_{name}"]


def _finals() -> list[str]:
    """The names of final metrics, as `metric_rows` writes them."""
    tree = ast.parse((ROOT / "harness" / "views" / "mlflow" / "trials.py").read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "metric_rows")
    found: list[str] = []
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "row"
            and isinstance(node.args[0], ast.Constant)
        ):
            found.append(str(node.args[0].value))
        if isinstance(node, ast.Dict):
            found += [str(key.value) for key in node.keys if isinstance(key, ast.Constant)]
    return list(dict.fromkeys(found))


PAGES: dict[str, Callable[[], str]] = {
    "suite-keys.md": suite_keys, "commands.md": commands, "metrics.md": metrics,
}  # fmt: skip

if __name__ == "__main__":
    for name in sys.argv[1:] or PAGES:
        (DOCS / name).write_text(PAGES[name]())
