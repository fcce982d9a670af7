"""A measurement as shown on the screen: one row per measurement, the parts of a step, the machine's limit, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.labels import setting
from harness.text import UNKNOWN, number
from harness.views.layout import width_of
from harness.views.parts import breakdown, explained
from harness.views.tables import print_table

_OWN = ("runtime.precision", "train.batch", "model.routing")  # parameters with their own column


def table(rows: Sequence[Mapping[str, Any]], errors: Mapping[str, float]) -> Table:
    """One row per measurement; "speed" is relative to the first one with figures, "model" is the cost model's error."""
    made = _table("impl", "precision", "batch", "routing")
    varied = any(_others(row) for row in rows)
    if varied:
        made.add_column("setting", no_wrap=True)
    for title in ("step s", "95%", "s/epoch", "images/s", "over floor", "eval/train", "compile s", "peak MB", "speed"):
        made.add_column(title, justify="right", no_wrap=True)
    if errors:
        made.add_column("model", justify="right", no_wrap=True)
    measured = [row for row in rows if row["status"] == "ok"]
    for row in rows:
        head = [Text(row["impl"]), row["precision"], str(row["batch"]), str(row["routing"] or UNKNOWN)]
        head += [Text(setting(_others(row)))] if varied else []
        if row["status"] != "ok":
            made.add_row(*head, Text(f"FAILED: {row['verdict']}", "bold red"))
            continue
        peak = row.get("device_peak_bytes") or row["peak_bytes"]
        made.add_row(
            *head,
            number(row["step_s"]),
            _range(row["step_s_ci"]),
            number(row["epoch_s"]),
            number(row["img_per_s"]),
            number(row["step_over_floor"]),
            number(row["eval_over_train"], 2),
            number(row["compile_s"], 2),
            number(peak / 1e6),
            f"{row['img_per_s'] / measured[0]['img_per_s']:.2f}x",
            *([f"{100 * errors[row['name']]:+.1f}%" if row["name"] in errors else UNKNOWN] if errors else []),
        )
    return made


def show(console: Console, document: Mapping[str, Any]) -> None:
    """Prints both tables, an explanation of the floor, each failure with its log, and every warning."""
    rows: Sequence[Mapping[str, Any]] = document["cells"]
    errors = {name: error for model in document["cost_models"] for name, error in model["errors"].items()}
    print_table(console, table(rows, errors))
    for parts in breakdown(rows, width_of(console)):
        console.print()
        print_table(console, parts)
    lines = [Text(), *_facts(document)]
    for row in rows:
        if row["status"] != "ok":
            lines.append(Text(f"{row['name']}: {row['cause']}", "red"))
            lines += [Text(f"  {row['hint']}")] if row["hint"] else []
            lines.append(Text(f"  log: {row['log']}"))
    notes: dict[str, list[str]] = {}
    for row in rows:
        for warning in row["warnings"]:
            notes.setdefault(warning, []).append(row["name"])
    lines += [Text(f"{', '.join(names)}: {warning}", "yellow") for warning, names in notes.items()]
    lines += [Text(warning, "yellow") for warning in document["warnings"]]
    for line in lines:
        console.print(line, soft_wrap=True)


def _facts(document: Mapping[str, Any]) -> list[Text]:
    """How the figures were measured."""
    rounds, steps = document["rounds"], document["steps"]
    lines = [
        f"Medians of {rounds} rounds in turns, {steps} steps each; an epoch is {document['epoch_images']:,} images."
    ]
    rates: Mapping[str, float] = document["matmul"]["flops_per_s"]
    if rates:
        size = document["matmul"]["size"]
        each = ", ".join(f"{name} {number(rate / 1e9)}" for name, rate in rates.items())
        lines.append(f"Best float32 matrix product of {size} x {size}, GFLOP/s: {each}.")
        lines.append("Floor: the direct algorithm's operations at the best of these rates, the same for all.")
    lines += explained(document["cells"])
    lines += [model["sentence"] for model in document["cost_models"]]
    joules = {row["name"]: row["joules_per_step"] for row in document["cells"] if "joules_per_step" in row}
    if joules:
        lines.append(f"Joules a step: {', '.join(f'{name} {number(value)}' for name, value in joules.items())}.")
    lines += [f"Trace: {row['trace']}" for row in document["cells"] if "trace" in row]
    return [Text(line) for line in lines]


def _table(*titles: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        made.add_column(title, no_wrap=True)
    return made


def _others(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row["params"].items() if key not in _OWN}


def _range(interval: Sequence[float] | None) -> str:
    return f"{number(interval[0])}-{number(interval[1])}" if interval else UNKNOWN
