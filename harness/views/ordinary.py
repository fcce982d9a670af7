"""Tables for a model that was examined: its weights, and its layers beside the specification's."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.parity.words import figure
from harness.text import UNKNOWN
from harness.views.tables import print_table


def show_model(console: Console, found: dict[str, Any]) -> None:
    """Prints the architecture, the tables of weights and layers, notes on them, and the first layer that deviates."""
    model = found["model"]
    height, width, channels = model["image"]
    sizes = (
        f"{height}x{width}x{channels} pixels, {model['conv_channels']} channels, {model['primary_types']} types of "
        f"{model['primary_dim']}D, {model['classes']} x {model['digit_dim']}D, kernel {model['kernel']}, "
        f"{model['routing']} routing iterations, "
    )
    sizes += f"decoder {'-'.join(map(str, model['decoder_units']))}" if model["decoder"] else "no decoder"
    console.print(Text(f"{found['framework']}, {found['calling']}; {sizes}"), soft_wrap=True)
    weights = _table("weight", "of the model", "shape and axes")
    for row in found["weights"]:
        weights.add_row(*map(Text, row))
    print_table(console, weights)
    console.print()
    print_table(console, layer_table(found["layers"], "specification"))
    for note in found["notes"]:
        console.print(Text(note, "yellow"), soft_wrap=True)
    console.print(verdict(found["layers"]), soft_wrap=True)
    console.print()


def show_pair(console: Console, found: dict[str, Any]) -> None:
    """Prints the layers of two models, what else differs between them, and the first layer that deviates."""
    console.print(Text(f"A: {found['a']}\nB: {found['b']}"), soft_wrap=True)
    print_table(console, layer_table(found["layers"], "other"))
    console.print()
    values = _table("value", "relative error", "")
    for row in found["values"]:
        values.add_row(
            row["name"], _figure(row["rel_err"]), Text("ok", "green") if row["ok"] else Text("differs", "bold red")
        )
    print_table(console, values)
    for note in found["notes"]:
        console.print(Text(note, "yellow"), soft_wrap=True)
    console.print(verdict(found["layers"]), soft_wrap=True)


def layer_table(rows: list[dict[str, Any]], of: str) -> Table:
    """One line per layer: with its own input, and with the other's input."""
    made = _table("layer", "with its own input", f"with the {of}'s", "")
    for row in rows:
        state = Text("PARTS WAYS", "bold red") if row["at_fault"] else Text("ok", "green")
        if not row["at_fault"] and not row["ok"]:
            state = Text("follows from the above", "yellow")
        if row["own"] is None:
            state = Text("not seen", "yellow")
        note = row["note"] or ("by little: an epsilon?" if row["at_fault"] and _is_little(row) else "")
        if note and row["own"] is not None:
            state += Text(f" ({note})")
        made.add_row(row["layer"], _figure(row["own"]), _figure(row["fed"]), state)
    return made


def verdict(rows: list[dict[str, Any]]) -> Text:
    """The first layer that deviates, and the others that are wrong even with the right input."""
    wrong = [row["layer"] for row in rows if row["at_fault"]]
    if not wrong:
        unseen = [row["layer"] for row in rows if row["own"] is None]
        return Text(f"No layer parts ways{'; not seen: ' + ', '.join(unseen) if unseen else ''}.", "green")
    also = f"; wrong by themselves too: {', '.join(wrong[1:])}" if wrong[1:] else ""
    return Text(f"The first layer that parts ways: {wrong[0]}{also}.", "bold red")


def _table(*titles: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        made.add_column(title, no_wrap=False)
    return made


def _is_little(row: dict[str, Any]) -> bool:
    """Whether the error is as small as an epsilon of another size or in another place causes for ordinary capsules."""
    error = row["own"] if row["fed"] is None else row["fed"]
    return error < 1e-6


def _figure(error: float | None) -> str:
    if error is None:
        return UNKNOWN
    return figure(error) if math.isfinite(error) else "not equal"
