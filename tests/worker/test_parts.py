"""The parts of a step as a worker times them, by a clock that only planted delays move."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from harness.analysis.parts import in_place
from harness.errors import UserError
from harness.machine.clock import Sample
from harness.machine.noise import Observation
from harness.spec import Cut, EpochPlan
from harness.spec.plans import plan_epoch
from harness.worker.parts import turn, warm_up

PLAN = plan_epoch(0, 1, 12, 4, 0)  # three steps
TIMES = {"other": 1.0, "conv1": 30.0, "routing": 50.0, "optimiser": 5.0}  # a step
BACKWARD = {"conv1": 20.0, "routing": 10.0}


class Machine:
    """Cut steps that take as long as they should, and its clock; it becomes slower with every call."""

    def __init__(self, delays: dict[str, float], fatigue: float = 0.0, slow: str = "") -> None:
        self.now, self.fatigue, self.slow, self.called = 0.0, fatigue, slow, list[tuple[str, int]]()
        self.cuts: list[Cut] = []
        whole = forward = 0.0
        for part, own in TIMES.items():
            seconds = own + delays.get(part, 0.0)
            whole, forward = whole + seconds, forward + seconds - BACKWARD.get(part, 0.0)
            there = self._lasting(f"{part}>", forward) if part in BACKWARD else None
            self.cuts.append(Cut(part, self._lasting(part, whole), there))

    def _lasting(self, name: str, seconds: float) -> Callable[[EpochPlan], None]:
        def run(plan: EpochPlan) -> None:
            assert not gc.isenabled()
            steps = len(plan.order) // plan.batch
            if name == self.slow and [before for before, _ in self.called[-2:]] != [name, name]:
                self.now += 40.0
            self.called.append((name, steps))
            self.now += steps * seconds * (1 + self.fatigue * len(self.called))

        return run

    def clock(self, work: Callable[[], object]) -> tuple[Sample, object]:
        start, result = self.now, work()
        return Sample(self.now - start, None, Observation(0.0)), result

    def parts(self, turns: int = 3) -> dict[str, Any]:
        found = in_place([[asdict(cut) for cut in turn(self.cuts, PLAN, self.clock)] for _ in range(turns)], 86.0)
        return {row["part"]: row for row in found["rows"]}


@pytest.mark.parametrize("part", TIMES)
def test_a_planted_delay_is_in_its_part_and_no_other(part: str) -> None:
    before, after = Machine({}).parts(), Machine({part: 7.0}).parts()
    assert {name: row["s"] for name, row in before.items()} == pytest.approx(TIMES)
    assert {name: after[name]["s"] - before[name]["s"] for name in TIMES} == pytest.approx(
        {name: 7.0 * (name == part) for name in TIMES}
    )
    assert before["conv1"]["backward_s"] == pytest.approx(20.0)
    assert before["routing"]["forward_s"] == pytest.approx(40.0)


def test_there_and_back_each_after_two_untimed_steps() -> None:
    machine = Machine({})
    turn(machine.cuts, PLAN, machine.clock)
    there = ["other", "conv1>", "conv1", "routing>", "routing", "optimiser"]
    assert machine.called == [(name, steps) for name in (*there, *reversed(there)) for steps in (1, 1, 3)]
    assert gc.isenabled()


@pytest.mark.parametrize("part", TIMES)
def test_memory_that_is_slow_to_return_counts_for_no_part(part: str) -> None:
    """As a virtual machine gives it: the first two calls after another cut step take longer."""
    assert {name: row["s"] for name, row in Machine({}, slow=part).parts().items()} == pytest.approx(TIMES)


def test_a_machine_that_becomes_slower_favours_no_part() -> None:
    rows = Machine({}, fatigue=0.01).parts(1)
    shares = [rows[part]["s"] / seconds for part, seconds in TIMES.items()]
    assert max(shares) / min(shares) < 1.1  # in one direction alone, the last part would seem a third longer than it is


@pytest.mark.parametrize("cuts", [[], {"conv": print}, [print], [Cut("a", print), Cut("a", print)]])
def test_what_are_no_cuts_is_said(cuts: Any) -> None:
    with pytest.raises(UserError, match=r"its truncated\(\) "):
        warm_up(cuts, PLAN)
