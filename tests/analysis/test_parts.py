"""The parts of a step, from times that are drawn here: what was planted is found, and noise is called noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from harness.analysis.parts import TOLERANCE, alone, in_place, mismatch

MS = {
    "other": 1,
    "data": 2,
    "conv1": 40,
    "routing": 160,
    "loss": 0,
    "optimiser": 20,
}  # true times; the loss is too short
FORWARD = {"conv1": 15, "routing": 70, "loss": 0}


def turns(
    count: int, more: Mapping[str, float] | None = None, noise: float = 0.01, seed: int = 0
) -> list[list[dict[str, Any]]]:
    """Turns of two passes, each time off by `noise` of it."""
    generator, extra = np.random.default_rng(seed), more or {}

    def timed(ms: float) -> list[float]:
        return [float(1e-3 * ms * (1 + noise * each)) for each in generator.standard_normal(2)]

    found: list[list[dict[str, Any]]] = []
    for _ in range(count):
        whole = forward = 0.0
        cuts: list[dict[str, Any]] = []
        for part, ms in MS.items():
            whole += ms + extra.get(part, 0)
            forward += FORWARD.get(part, ms)
            cuts.append({"part": part, "whole": timed(whole), "forward": timed(forward) if part in FORWARD else None})
        found.append(cuts)
    return found


def by_part(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["part"]: row for row in found["rows"]}


def test_the_parts_add_up_to_the_step() -> None:
    found = in_place(turns(7), 0.223)
    rows = by_part(found)
    assert list(rows) == ["data", "conv1", "routing", "loss", "optimiser", "other"]
    assert found["passes"] == 14
    assert found["sum_s"] == pytest.approx(sum(row["s"] for row in rows.values()))
    assert found["of_step"] == pytest.approx(sum(row["of_step"] for row in rows.values())) == pytest.approx(1, abs=0.03)
    assert found["step_s"] == 0.223
    for part, forward in (("conv1", 15), ("routing", 70)):
        row, true = rows[part], 1e-3 * MS[part]
        low, high = row["s_ci"]
        assert row["resolved"]
        assert low <= row["s"] <= high
        assert low <= true <= high
        assert row["forward_s"] == pytest.approx(1e-3 * forward, rel=0.1)
        assert row["forward_s"] + row["backward_s"] == pytest.approx(true, rel=0.1)
    assert found["forward_s"] == pytest.approx(0.085, rel=0.05)
    assert found["backward_s"] == pytest.approx(0.115, rel=0.05)
    assert (rows["optimiser"]["forward_s"], rows["data"]["forward_s"], rows["other"]["forward_s"]) == (None, None, None)


def test_what_noise_hides_is_no_time() -> None:
    row = by_part(in_place(turns(7), 0.223))["loss"]
    low, high = row["s_ci"]
    assert low < 0 < high
    assert not row["resolved"]
    assert row["s"] >= 0
    assert (row["forward_s"], row["backward_s"]) == (None, None)


def test_a_longer_step_that_took_less_time_is_no_negative_part() -> None:
    found = in_place(turns(7, {"loss": -30}), 0.223)
    row = by_part(found)["loss"]
    assert row["s_ci"][1] < 0
    assert (row["s"], row["resolved"]) == (0, False)
    assert found["of_step"] == pytest.approx(1, abs=0.03)  # and what comes after it is not blamed
    assert by_part(found)["optimiser"]["s"] == pytest.approx(0.02, abs=0.005)


@pytest.mark.parametrize("part", ["data", "conv1", "routing", "loss", "optimiser"])
def test_a_delay_is_found_in_its_part_and_in_no_other(part: str) -> None:
    before, after = (by_part(in_place(turns(10, more), 0.223)) for more in ({}, {part: 25}))
    for name in MS:
        moved = 1e3 * (after[name]["s"] - before[name]["s"])
        assert moved == pytest.approx(25 if name == part else 0, abs=4), name
    assert after[part]["resolved"]


def test_with_few_passes_there_is_no_interval() -> None:
    found = in_place(turns(1), 0.223)
    rows = by_part(found)
    assert [row["s_ci"] for row in rows.values()] == [None] * 6
    assert rows["routing"]["resolved"]
    assert not by_part(in_place(turns(1, {"loss": -30}), 0.223))["loss"]["resolved"]


def test_a_sum_that_is_not_the_step_is_said() -> None:
    good = {"step_s": 0.223, "parts": in_place(turns(7), 0.223)}
    assert not [*mismatch(good), *mismatch({"step_s": 0.223})]
    (warning,) = mismatch({"step_s": 0.19, "parts": in_place(turns(7), 0.223 / (1 + 1.5 * TOLERANCE))})
    assert warning.startswith("its parts add up to 11")
    (warning,) = mismatch({**good, "step_s": 0.17})
    assert warning.startswith("its step took 131% of its time while its parts were measured")


def test_parts_alone_need_not_add_up() -> None:
    rounds = [{"conv": 0.3, "routing": 0.2}, {"conv": 0.4, "routing": 0.3}, {"conv": 0.5, "routing": 0.4}]
    assert alone(rounds, 0.5) == pytest.approx({"conv": 0.4, "routing": 0.3, "other": -0.2})
