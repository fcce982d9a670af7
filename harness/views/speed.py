"""A measurement as shown on the screen: one row per cell, the parts of a step, the machine's limit, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.labels import setting
from harness.text import UNKNOWN, number
from harness.views.tables import print_table

_OWN = ("runtime.precision", "train.batch", "model.routing")  # parameters with their own column


def table(cells: Sequence[Mapping[str, Any]], errors: Mapping[str, float]) -> Table:
    """One row per cell; "speed" is relative to the first one with figures, "model" is the cost model's error."""
    made = _table("impl", "precision", "batch", "routing")
    varied = any(_others(cell) for cell in cells)
    if varied:
        made.add_column("setting", no_wrap=True)
    for title in ("step s", "95%", "s/epoch", "images/s", "over floor", "eval/train", "compile s", "peak MB", "speed"):
        made.add_column(title, justify="right", no_wrap=True)
    if errors:
        made.add_column("model", justify="right", no_wrap=True)
    measured = [cell for cell in cells if cell["status"] == "ok"]
    for cell in cells:
        head = [Text(cell["impl"]), cell["precision"], str(cell["batch"]), str(cell["routing"] or UNKNOWN)]
        head += [Text(setting(_others(cell)))] if varied else []
        if cell["status"] != "ok":
            made.add_row(*head, Text(f"FAILED: {cell['verdict']}", "bold red"))
            continue
        peak = cell.get("device_peak_bytes") or cell["peak_bytes"]
        made.add_row(
            *head,
            number(cell["step_s"]),
            _range(cell["step_s_ci"]),
            number(cell["epoch_s"]),
            number(cell["img_per_s"]),
            number(cell["step_over_floor"]),
            number(cell["eval_over_train"], 2),
            number(cell["compile_s"], 2),
            number(peak / 1e6),
            f"{cell['img_per_s'] / measured[0]['img_per_s']:.2f}x",
            *([f"{100 * errors[cell['name']]:+.1f}%" if cell["name"] in errors else UNKNOWN] if errors else []),
        )
    return made


def breakdown(cells: Sequence[Mapping[str, Any]]) -> Table | None:
    """Milliseconds of each part of a step; None if no implementation reports its parts."""
    told = [cell for cell in cells if "breakdown" in cell]
    if not told:
        return None
    parts = list(dict.fromkeys(name for cell in told for name in cell["breakdown"] if name != "other"))
    made = _table("ms a step")
    for title in (*parts, "other", "step"):
        made.add_column(title, justify="right", no_wrap=True)
    for cell in told:
        values = [cell["breakdown"].get(name) for name in (*parts, "other")] + [cell["step_s"]]
        made.add_row(Text(cell["name"]), *(UNKNOWN if value is None else _milliseconds(value) for value in values))
    return made


def show(console: Console, document: Mapping[str, Any]) -> None:
    """Prints both tables, an explanation of the floor, each failure with its log, and every warning."""
    cells: Sequence[Mapping[str, Any]] = document["cells"]
    errors = {name: error for model in document["cost_models"] for name, error in model["errors"].items()}
    print_table(console, table(cells, errors))
    if parts := breakdown(cells):
        console.print()
        print_table(console, parts)
    lines = [Text(), *_facts(document)]
    for cell in cells:
        if cell["status"] != "ok":
            lines.append(Text(f"{cell['name']}: {cell['cause']}", "red"))
            lines += [Text(f"  {cell['hint']}")] if cell["hint"] else []
            lines.append(Text(f"  log: {cell['log']}"))
    notes: dict[str, list[str]] = {}
    for cell in cells:
        for warning in cell["warnings"]:
            notes.setdefault(warning, []).append(cell["name"])
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
    lines += [model["sentence"] for model in document["cost_models"]]
    joules = {cell["name"]: cell["joules_per_step"] for cell in document["cells"] if "joules_per_step" in cell}
    if joules:
        lines.append(f"Joules a step: {', '.join(f'{name} {number(value)}' for name, value in joules.items())}.")
    lines += [f"Trace: {cell['trace']}" for cell in document["cells"] if "trace" in cell]
    return [Text(line) for line in lines]


def _table(*titles: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        made.add_column(title, no_wrap=True)
    return made


def _others(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cell["params"].items() if key not in _OWN}


def _range(interval: Sequence[float] | None) -> str:
    return f"{number(interval[0])}-{number(interval[1])}" if interval else UNKNOWN


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if abs(seconds) >= 0.01 else f"{1e3 * seconds:,.2f}"
