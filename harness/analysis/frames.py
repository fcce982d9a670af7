"""What a report shows, as flat tables of full numbers: for CSV, Parquet and whatever reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from harness.analysis.choice import choices
from harness.analysis.costs import Report, to_json
from harness.analysis.gates import Gate
from harness.analysis.rows import Row
from harness.analysis.seeds import OverSeeds

NAMES = ("cells", "choice", "differences", "images", "equivalence", "published", "costs", "parity", "epochs")
"""The tables, of which a run has those that have rows."""


def frames(
    seeds: OverSeeds, cost: Report, gates: Sequence[Gate], epochs: Sequence[Row], run: str | None = None
) -> dict[str, list[Row]]:
    """Name -> rows with the same columns each. `run`: put first into each row, where there are several."""
    said = seeds.to_json()
    found: dict[str, list[Row]] = {
        "cells": [_cell(each) for each in said["cells"]],
        "choice": [_flat(each.to_json()) for each in choices(seeds.cells)],
        "differences": [_flat(each) for each in said["changes"]],
        "images": [_flat({**each, "by_seed": None}) for each in said["images"]],
        "equivalence": [_flat(each) for each in said["equivalence"]],
        "published": [_flat({**each, "unlike": " | ".join(each["unlike"])}) for each in said["published"]],
        "costs": [_flat(each) for each in to_json(cost)["points"]],
        "parity": [gate.to_json() for gate in gates],
        "epochs": [_flat(each) for each in epochs],
    }
    for row in found["images"]:
        row.pop("by_seed", None)
    first = {} if run is None else {"run": run}
    return {name: [{**first, **row} for row in rows] for name, rows in found.items() if rows}


def aligned(rows: Sequence[Row]) -> list[Row]:
    """The same rows with all columns in each, in the order in which they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def _cell(document: Mapping[str, Any]) -> Row:
    """A cell's figures side by side: test_err_pct (the mean), test_err_pct_sd, _low, _high."""
    row: Row = {
        "impl": document["impl"],
        **document["params"],
        "seeds": len(document["seeds"]),
        "planned": document["planned"],
    }
    for name, found in document["figures"].items():
        row[name] = found["mean"]
        row |= {f"{name}_{part}": found[part] for part in ("sd", "low", "high")}
    return row


def _flat(document: Mapping[str, Any], before: str = "") -> Row:
    """Objects within objects as columns, such as params.model.routing; lists as text."""
    row: Row = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            row |= _flat(cast("Mapping[str, Any]", value), f"{before}{key}.")
        elif isinstance(value, list | tuple):
            row[before + key] = " ".join(str(each) for each in cast("Sequence[Any]", value))
        else:
            row[before + key] = value
    return row
