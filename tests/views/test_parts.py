"""The parts of a step on the screen: one table that fits, and no time where none was shown."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from harness.analysis.parts import in_place
from harness.views.parts import ALONE, IN_PLACE, breakdown, explained, shown
from tests.analysis.test_parts import turns


def told(impl: str, **changes: Any) -> dict[str, Any]:
    """A measurement of `speed --json` whose step was cut short; its times are drawn here."""
    parts = in_place(turns(7), 0.223)
    row = {
        "name": f"{impl}-fp32-b128-r3", "impl": impl, "precision": "fp32", "batch": 128, "model": "capsnet", "routing": 3,
        "params": {}, "status": "ok", "step_s": 0.223, "step_s_ci": [0.22, 0.23], "epoch_s": 104.0, "img_per_s": 574.0,
        "floor_s": 0.1, "step_over_floor": 2.23, "eval_over_train": 0.3, "compile_s": 1.0, "peak_bytes": 10**8,
        "parts": parts, "breakdown": {each["part"]: each["s"] for each in parts["rows"]},
    }  # fmt: skip
    return row | changes


def lines(rows: list[dict[str, Any]], width: int) -> list[list[str]]:
    """The text of each table."""
    found: list[list[str]] = []
    for table in breakdown(rows, width):
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(table)
        found.append([line.rstrip() for line in console.export_text().splitlines()])
    return found


def test_three_frameworks_side_by_side_in_80_columns() -> None:
    [table] = lines([told("torch"), told("tf"), told("jax")], 80)
    assert max(map(len, table)) <= 80
    assert table[0].split() == ["ms", "a", "step", "torch", "tf", "jax"]
    named = {line.split()[0]: line for line in table[1:]}
    assert [*named] == ["data", "conv1", "routing", "loss", "optimiser", "other", "sum", "step", "of", "forward", "backward",
                        "floor"]  # fmt: skip
    assert named["routing"].count("160 (") + named["routing"].count("161 (") + named["routing"].count("159 (") == 3
    assert named["loss"].count("< ") == 3
    assert "100%" in named["of"] or "99%" in named["of"] or "101%" in named["of"]


def test_more_than_fit_make_more_tables() -> None:
    rows = [told("torch", name=f"torch-fp32-b{batch}-r3") for batch in (8, 16, 32, 64, 128, 256)]
    tables = lines(rows, 80)
    assert len(tables) > 1
    assert all(max(map(len, table)) <= 80 for table in tables)
    assert [name for table in tables for name in table[0].split()[3:]] == [row["name"] for row in rows]
    assert len(lines(rows, 10)) == 6  # at least one each


def test_what_was_timed_alone_beside_what_was_not() -> None:
    alone = told("mine", breakdown={"conv1": 0.3, "own": 0.005, "other": -0.082})
    del alone["parts"]
    [table] = lines([told("torch"), alone, {"impl": "none", "name": "none"}], 80)
    named = {line.split()[0]: line.split() for line in table[1:]}
    assert [*named][:7] == ["data", "conv1", "routing", "loss", "optimiser", "own", "other"]
    assert (named["own"][1:], named["conv1"][-1], named["other"][-1]) == (["-", "5.00"], "300", "-")
    assert named["of"][-1] == "137%"
    assert (shown(alone, "data"), shown(alone, "own")) == ("-", "5.00")
    assert [*explained([told("torch"), alone])] == [IN_PLACE, f"mine-fp32-b128-r3: e{ALONE[1:]}"]
    assert not breakdown([{"impl": "none"}])


def test_without_an_interval() -> None:
    few = told("torch", parts=in_place(turns(1, {"loss": -30}), 0.223))
    assert (shown(few, "loss"), shown(few, "routing")) == ("-", shown(few, "routing").split()[0])
