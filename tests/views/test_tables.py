"""What the tables say, and that they show it in full on every screen."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from harness.analysis.cells import grouped
from harness.analysis.labels import setting
from harness.journal.results import Result
from harness.text import duration, number
from harness.views.tables import comparison, data_table, plan_table, print_data, print_table
from harness.views.tables import remarks as remarks_of

RUN_DIR = Path("runs/routing")


def result(impl: str = "torch", seed: int = 0, **more: Any) -> Result:
    figures: dict[str, Any] = {
        "status": "finished",
        "test_err_pct": 1.0,
        "epoch_s": 2.0,
        "compile_s": 3.0,
        "img_per_s": 500.0,
        "peak_bytes": 970_000_000,
        "parity_ok": True,
        "parity_max_rel_err": 2e-6,
        "params": {},
    }
    return Result(id=f"{impl}-{seed}", impl=impl, seed=seed, **(figures | more))


def printed(table: Table, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_table(console, table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def rows(table: Table, width: int = 200) -> dict[str, list[str]]:
    """First cell -> the row's other cells."""
    lines = [re.split(r"\s{2,}", line.rstrip()) for line in printed(table, width)]
    return {line[0]: line[1:] for line in lines}


def remarks(*results: Result) -> list[str]:
    return [line.plain for line in remarks_of(results, RUN_DIR)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"), (0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (75.3, "1 min 15 s"),
        (119.9, "1 min 59 s"), (600, "10 min"), (3599, "60 min"), (7140, "119 min"), (7200, "2 h"), (100_000, "28 h"),
        (172_800, "2.0 days"), (1_000_000, "11.6 days"),
    ],
)  # fmt: skip
def test_duration(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"), (math.nan, "-"), (math.inf, "-"), (0, "0"), (0.012345, "0.0123"), (1.2345, "1.23"), (12.345, "12.3"),
        (123.45, "123"), (1234.5, "1,234"), (1_234_567, "1,234,567"), (2.3e-6, "2e-06"), (-1.2345, "-1.23"),
    ],
)  # fmt: skip
def test_number(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_setting() -> None:
    assert setting({"model.routing": 3, "train.batch": 64}) == "routing 3, batch 64"
    assert setting({}) == ""


def test_cells_are_seeds_together() -> None:
    results = [result(impl, seed, params={"r": r}) for seed in (0, 1) for r in (1, 3) for impl in ("torch", "tf")]
    found = grouped(results)
    assert [(cell[0].impl, cell[0].params["r"]) for cell in found] == [("torch", 1), ("tf", 1), ("torch", 3), ("tf", 3)]
    assert [[each.seed for each in cell] for cell in found] == [[0, 1]] * 4


def test_comparison() -> None:
    table = rows(
        comparison(
            [
                result("torch"),
                result("tf", epoch_s=4.0, img_per_s=250.0, compile_s=0.00002, parity_max_rel_err=1.2e-5),
                result("jax", epoch_s=1.0, test_err_pct=12.345, peak_bytes=2_000_000_000),
            ]
        )
    )
    assert table["impl"] == ["error %", "s/epoch", "compile s", "images/s", "peak MB", "parity", "speed"]
    assert table["torch"] == ["1.00", "2.00", "3.0", "500", "970", "ok 2e-06", "1.00x"]
    assert table["tf"] == ["1.00", "4.00", "0", "250", "970", "ok 1e-05", "0.50x"]
    assert table["jax"] == ["12.35", "1.00", "3.0", "500", "2,000", "ok 2e-06", "2.00x"]


def test_seeds_have_a_mean_and_a_spread() -> None:
    table = rows(
        comparison(
            [
                result(seed=0, test_err_pct=1.0, epoch_s=2.0, parity_max_rel_err=1e-6),
                result(seed=1, test_err_pct=2.0, epoch_s=3.0, parity_max_rel_err=4e-6),
                result(seed=2, test_err_pct=3.0, epoch_s=4.0, parity_max_rel_err=2e-6),
            ]
        )
    )
    assert table["torch"][:2] == ["2.00 sd 1.00", "3.00"]
    assert table["torch"][-2:] == ["ok 4e-06", "1.00x"]  # the worst of them


def test_settings_have_a_column_where_they_differ() -> None:
    table = comparison([result(params={"model.routing": 1}), result(params={"model.routing": 3}, epoch_s=4.0)])
    lines = printed(table, 200)
    assert lines[0].split()[:2] == ["impl", "setting"]
    assert [re.split(r"\s{2,}", line)[1] for line in lines[1:]] == ["routing 1", "routing 3"]


def test_no_figure_without_parity() -> None:
    withheld = {
        "epoch_s": None,
        "img_per_s": None,
        "compile_s": None,
        "parity_ok": False,
        "parity_worst": "grad.digit.w",
    }
    wrong = result("tf", **withheld, parity_max_rel_err=0.5, timing_withheld="parity failed at grad.digit.w")
    table = rows(comparison([wrong, result("torch")]))
    assert table["tf"] == ["1.00", "-", "-", "-", "970", "FAILED", "-"]
    assert table["torch"][-1] == "1.00x"  # the first that has a figure is what the others are compared with
    assert remarks(wrong) == [
        "tf seed 0: parity failed at grad.digit.w (relative error 0.50)",
        "tf: no timing verdict: parity failed at grad.digit.w",
    ]


def test_one_wrong_seed_spoils_its_cell() -> None:
    assert rows(comparison([result(seed=0), result(seed=1, parity_ok=False)]))["torch"][-2] == "FAILED"


def test_unfinished_trials_are_no_part_of_a_mean() -> None:
    half = result(seed=1, status="interrupted", test_err_pct=None, epoch_s=20.0, peak_bytes=None)
    assert rows(comparison([result(seed=0), half]))["torch"][:2] == ["1.00", "2.00"]
    assert rows(comparison([half]))["torch"] == ["-", "-", "-", "-", "-", "ok 2e-06", "-"]


def test_gate_off() -> None:
    unchecked = result(epoch_s=None, compile_s=None, img_per_s=None, parity_ok=None, parity_max_rel_err=None)
    assert rows(comparison([unchecked]))["torch"][-2:] == ["-", "-"]


def test_failures_are_named_with_cause_and_log() -> None:
    failed = result(
        "tf",
        seed=3,
        status="failed",
        params={"model.routing": 3},
        cause="RuntimeError: no [such] kernel",
        hint="lower train.batch",
        log="trials/tf-3/attempt-2.log",
    )
    assert remarks(result(), failed) == [
        "tf routing 3 seed 3 failed: RuntimeError: no [such] kernel",
        "  lower train.batch",
        "  log: runs/routing/trials/tf-3/attempt-2.log",
    ]
    assert remarks(result("jax", status="interrupted", cause="interrupted before it ended")) == [
        "jax seed 0: interrupted before it ended"
    ]
    assert remarks(result(), result("tf", status="pending")) == []


def test_one_warning_is_said_once() -> None:
    same: dict[str, Any] = {"warnings": ["clock is slow"]}
    assert remarks(result(**same), result(seed=1, **same), result("tf", **same)) == ["torch, tf: clock is slow"]


def test_warnings_that_differ_in_their_figures_are_one_with_their_ranges() -> None:
    loads = ["had 46% of 2 cores (load average 1,011.2): do", "had 9.5% of 2 cores (load average 7): do"]
    others = ["train.epochs=16 is short", "train.epochs=30 is short", "had 9% of 2 cores: do"]
    results = [
        result(warnings=[loads[0], others[0]]),
        result("tf", warnings=[loads[1], others[1]]),
        result("tf", seed=1, warnings=[*loads, others[2]]),  # of two attempts
    ]
    assert remarks(*results) == [
        "torch, tf, in 3 trials: had 9.5 to 46% of 2 cores (load average 7 to 1,011.2): do",
        "torch: train.epochs=16 is short",  # what is to be typed stays as it is
        "tf: train.epochs=30 is short",
        "tf: had 9% of 2 cores: do",
    ]


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_nothing_is_cut_on_any_screen(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    results = [
        result(
            impl, seed, params={"model.routing": 10}, test_err_pct=87.5 + 4 * seed, epoch_s=12.34, img_per_s=12_345.0
        )
        for impl in ("torch", "my_package.capsules:FastCapsNet")
        for seed in (0, 1)
    ]
    lines = printed(comparison(results), width)
    text = " ".join(lines)
    for figure in ("my_package.capsules:FastCapsNet", "89.50 sd 2.83", "12.3", "12,345", "970", "ok 2e-06", "1.00x"):
        assert text.count(figure) >= 1 + (figure[0] != "m"), figure
    assert "…" not in text
    assert all(len(line) <= width for line in lines)
    assert (len(lines) == 3) == (width == 200)
    if width == 100:
        assert lines[2].endswith("1.00x")


def test_the_usual_table_fits_eighty_columns() -> None:
    results = [
        result(
            impl, seed, params={"model.routing": 10}, test_err_pct=87.5 + 4 * seed, epoch_s=1234.5, peak_bytes=10**10
        )
        for impl in ("torch", "numpy")
        for seed in (0, 1)
    ]
    assert max(map(len, printed(comparison(results), 80))) <= 80
    assert "  error %" in printed(comparison(results), 100)[0]  # with wide gaps where there is room


def test_plan_table() -> None:
    row = {"id": "0123456789ab", "impl": "torch", "params": {"model.routing": 3}, "seed": 1, "cpus": 2, "gpus": 0}
    row["at_most"] = False
    table = [
        re.split(r"\s{2,}", line.rstrip())
        for line in printed(
            plan_table(
                [
                    {**row, "state": "pending", "estimate_s": 90.0},
                    {**row, "state": "pending", "estimate_s": 90.0, "at_most": True},
                    {**row, "state": "finished", "estimate_s": 0.0},
                    {**row, "state": "pending", "estimate_s": None},
                ]
            ),
            120,
        )
    ]
    assert table[0] == ["trial", "implementation", "setting", "seed", "cpus", "gpus", "state", "estimate"]
    assert table[1] == ["0123456789ab", "torch", "routing 3", "1", "2", "0", "pending", "1 min 30 s"]
    assert table[2][-1] == "at most 1 min 30 s"
    assert table[3][-1] == "finished"
    assert table[4][-2:] == ["pending", "-"]


def test_data_table() -> None:
    row = {
        "name": "mnist", "image": [28, 28, 1], "classes": 10, "train": 55_000, "validation": 5_000, "test": 10_000,
        "embedded": False, "state": "corrupt", "path": "/data", "detail": "t10k-images is damaged", "source": "MNIST",
    }  # fmt: skip
    digits = {**row, "name": "digits", "state": "embedded", "path": None, "detail": None, "source": "scikit-learn"}
    table = rows(data_table([row, digits]))
    assert table["mnist"] == ["28x28x1", "10", "55,000", "5,000", "10,000", "corrupt", "/data"]
    assert table["digits"][-2:] == ["embedded", "scikit-learn"]
    console = Console(file=io.StringIO(), width=80)
    print_data(console, [row, digits])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.endswith("\nmnist: t10k-images is damaged\n")
