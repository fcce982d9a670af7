"""`capsbench speed --baseline`: slower only where the whole interval is beyond the tolerance; files that are no baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.baseline import Row, against, read
from harness.errors import UserError

FILE = Path("base.json")


def measured(name: str = "net", floor: Any = 10.0, spread: Any = 0.02, cpu: str = "Some CPU") -> dict[str, Any]:
    ends = None if spread is None else [floor * (1 - spread), floor * (1 + spread)]
    cell = {"name": name, "status": "ok", "step_over_floor": floor, "step_over_floor_ci": ends, "step_s": 1.0}
    return {"cells": [cell], "environment": {"cpu": cpu, "cores": 2}}


def row(then: dict[str, Any], now: dict[str, Any], tolerance_pct: float = 10.0) -> Row:
    (found,) = against(FILE, then, now, tolerance_pct).rows
    return found


@pytest.mark.parametrize(
    ("floor", "spread", "verdict"),
    [(10.0, 0.02, "none shown"), (11.2, 0.02, "none shown"), (12.0, 0.02, "slower"), (12.0, 0.2, "none shown"),
     (8.0, 0.02, "faster"), (9.0, 0.02, "none shown")],
)  # fmt: skip
def test_slower_and_faster_are_beyond_the_tolerance(floor: float, spread: float, verdict: str) -> None:
    found = row(measured(), measured(floor=floor, spread=spread))
    assert (found.verdict, found.ratio) == (verdict, pytest.approx(floor / 10))
    assert found.low == pytest.approx(floor * (1 - spread) / 10.2)
    assert against(FILE, measured(), measured(floor=floor, spread=spread), 10).ok is (verdict != "slower")


def test_without_intervals_there_is_no_verdict() -> None:
    found = row(measured(spread=None), measured(floor=50.0))
    assert (found.verdict, found.ratio, found.low) == ("no verdict", 5.0, None)
    assert "the baseline has too few rounds" in str(found.reason)
    assert row(measured(), measured(spread=None)).verdict == "no verdict"


@pytest.mark.parametrize("floor", [None, "10", True, [], -1.0, float("nan")])
def test_without_a_floor_seconds_are_compared(floor: Any) -> None:
    then = measured()
    then["cells"][0] |= {"step_over_floor": floor, "step_s_ci": [0.9, 1.1]}
    now = measured()
    now["cells"][0] |= {"step_s": 2.0, "step_s_ci": [1.9, 2.1]}
    assert (row(then, now).basis, row(then, now).verdict) == ("s", "slower")


def test_what_is_not_alike_is_told() -> None:
    both = {"cells": [*measured("a")["cells"], *measured("b")["cells"]], "environment": {"cpu": "Another"}}
    warnings = "\n".join(against(FILE, measured("a"), both, 10).warnings)
    assert "not in the baseline: b" in warnings
    assert "cpu was Some CPU and is Another" in warnings


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "No such file"), ("<html></html>", "is an HTML page"), ("[1]", "is another JSON"),
     ('{"cells": [1]}', "is another JSON"),
     ('{"cells": [{"name": "a"}]}', "is another JSON"), (json.dumps(measured("a")), "has a, but to be measured: net"),
     ('{"cells": []}', "has no measurement")],
)  # fmt: skip
def test_what_is_no_baseline_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "base.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=told):
        read(path, ["net"], 10)
    path.write_text(json.dumps(measured()))
    assert read(path, ["net", "other"], 10)["cells"][0]["name"] == "net"
    with pytest.raises(UserError, match="is no tolerance"):
        read(path, ["net"], float("nan"))
