"""Doubts about a timing: from counters to a cause and advice; energy counters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.machine.energy import Meter
from harness.machine.noise import Machine, Observation, between, doubts, drift, machine, wide
from harness.stats import FEWEST, median_interval

STAT = """cpu  900 0 0 0 0 0 0 0 0 0
cpu0 300 10 50 1000 7 1 2 30 0 0
cpu1 100 0 20 2000 0 0 0 0 0 0
cpu2 500 0 0 0 0 0 0 0 0 0
intr 5
"""


def test_counters_are_those_of_the_own_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    (tmp_path / "stat").write_text(STAT)
    for core, (clock, count) in enumerate([(2_000_000, 3), (3_000_000, 4)]):
        folder = tmp_path / f"devices/system/cpu/cpu{core}"
        (folder / "cpufreq").mkdir(parents=True)
        (folder / "thermal_throttle").mkdir()
        (folder / "cpufreq/scaling_cur_freq").write_text(f"{clock}\n")
        (folder / "thermal_throttle/core_throttle_count").write_text(f"{count}\n")
    now = machine([0, 1], tmp_path, tmp_path, tmp_path)
    assert now.busy_s == pytest.approx(3.63 + 1.2)  # user, nice, system, irq, softirq
    assert (now.stolen_s, now.throttled, now.mhz) == (0.3, 7, 2500)
    assert (now.beside_s, now.stops, now.stopped_s) == (None, None, None)
    nothing = machine([0, 1], tmp_path / "no", tmp_path / "no", tmp_path / "no")
    assert (nothing.busy_s, nothing.stolen_s, nothing.throttled, nothing.mhz) == (None, None, None, None)
    (tmp_path / "stat").write_text("cpu 0 0\n")  # as some containers have it
    assert machine([0, 1], tmp_path).busy_s is None


def test_counters_of_the_other_hyperthreads_and_of_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    (tmp_path / "stat").write_text(STAT)
    siblings = tmp_path / "devices/system/cpu/cpu0/topology/thread_siblings_list"
    siblings.parent.mkdir(parents=True)
    siblings.write_text("0,2\n")
    monkeypatch.setattr("harness.machine.noise.cgroups.throttling", lambda _: (4, 1.5))
    now = machine([0], tmp_path, tmp_path)
    assert (now.busy_s, now.beside_s, now.stops, now.stopped_s) == (pytest.approx(3.63), 5.0, 4, 1.5)
    later = replace(now, time_s=now.time_s + 10, beside_s=8.0, stops=9, stopped_s=2.0)
    found = between(now, later, 1)
    assert (found.beside, found.stops, found.stopped) == (0.3, 5, pytest.approx(0.05))
    assert (found + found).stops == 10
    assert (found + Observation(10.0)).stops is None


def test_what_others_had() -> None:
    before = Machine(100.0, 10.0, 50.0, 1.0, 5, 2500)
    found = between(before, Machine(110.0, 24.0, 68.0, 1.5, 9, 2400), cores=2)
    assert (found.others, found.stolen) == pytest.approx((0.2, 0.025))  # 18 s busy, 14 s of them our own
    assert replace(found, others=None, stolen=None) == Observation(10.0, None, None, 4, 2400)
    unknown = between(before, Machine(110.0, 24.0, None, None, None, None), cores=2)
    assert unknown == Observation(10.0)
    assert between(before, Machine(110.0, 30.0, 69.99, 1.0, 5, None), 2).others == 0  # ticks are coarse


QUIET = {"others": 0.02, "stolen": 0.0, "throttled": 0, "mhz": 2500.0, "beside": 0.01, "stops": 1, "stopped": 0.001}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"others": 0.5}, ["other processes had 50% of its cores"]),
        ({"stolen": 0.2}, ["the hypervisor withheld 20% of its cores' time"]),
        ({"beside": 0.4}, ["the other hyperthreads of its cores were busy for 40% of the time"]),
        ({"stops": 3, "stopped": 0.25}, ["the container's CPU quota stopped it 18 times, for 25% of the time"]),
        ({"throttled": 2}, ["the processor slowed itself down 12 times for heat"]),
        (dict.fromkeys(QUIET), []),
    ],
)
def test_doubts(changed: dict[str, Any], said: list[str]) -> None:
    observed = [Observation(1.0, **{**QUIET, **changed})] * 6
    found = doubts(observed)
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))
    assert doubts(observed[:1]) == []  # one second says nothing


def test_a_clock_that_falls() -> None:
    clocks = [2500, 2490, 2400, 2300, 2200, 2100, 2000]
    (found,) = doubts([Observation(1.0, **{**QUIET, "mhz": clock}) for clock in clocks])
    assert found.startswith("the cores' clock fell by 18%")


@pytest.mark.parametrize(
    ("values", "rise"),
    [
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6], pytest.approx(0.5 / 1.05)),
        ([1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06], None),  # little
        ([1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1.0], None),  # the other way
        ([1.0, 1.5, 1.0, 1.6, 1.0, 1.2, 1.5], None),  # to and fro
        ([1.0, 2.0, 3.0, 4.0, 5.0], None),  # too few
    ],
)
def test_drift(values: list[float], rise: Any) -> None:
    assert drift(values) == rise


def test_an_interval_too_wide_or_too_few_values() -> None:
    assert wide([1.0, 1.01, 1.02, 1.0, 0.99, 1.0, 1.01], "a step", "more") is None
    assert (
        wide([1.0, 1.2, 1.4, 1.0, 0.9, 1.0, 1.1], "a step", "more") == "the 95% interval of a step is ±25% wide: more"
    )
    few = wide([1.0, 1.3, 1.1], "a step", "more")
    assert few == "3 values of a step spread by 27%, too few for an interval (at least 6): more"
    assert wide([1.0, 1.05, 1.1], "a step", "more") is None
    assert wide([0.1, 0.3, 0.2], "a step", "more") is None  # too short to say


def test_median_interval() -> None:
    assert median_interval(range(FEWEST - 1)) is None
    assert median_interval([3, 1, 2, 6, 5, 4]) == (1, 6)
    # all but 2 x (1 + 12 + 66) of 4,096 orders of twelve values have the median between the third and the tenth: 96.1%
    assert median_interval(range(1, 13)) == (3, 10)
    assert median_interval(range(1, 10)) == (2, 8)
    assert median_interval(range(1, 10), level=0.99) == (1, 9)


def rapl(folder: Path, name: str, zone: str, joules: float, most: float = 1000) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "name").write_text(f"{zone}\n")
    (folder / name / "energy_uj").write_text(f"{round(joules * 1e6)}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{round(most * 1e6)}\n")


def test_energy_of_packages_and_their_memory(tmp_path: Path) -> None:
    def at(package: float, memory: float) -> None:
        rapl(tmp_path, "intel-rapl:0", "package-0", package)
        rapl(tmp_path, "intel-rapl:0:0", "core", 5 * package)  # within the package
        rapl(tmp_path, "intel-rapl:0:1", "dram", memory)
        rapl(tmp_path, "intel-rapl:1", "psys", 9 * package)  # around both

    at(990, 10)
    meter = Meter(powercap=tmp_path)
    before = meter.read()
    at(40, 12)  # the package's counter has begun again
    assert meter.joules(before, meter.read()) == pytest.approx(50 + 2)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.joules(before, meter.read()) is None


def test_no_energy_is_no_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Meter(powercap=tmp_path).read() is None
    rapl(tmp_path, "intel-rapl:0", "package-0", 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert Meter(["0"], powercap=tmp_path).read() is None  # the GPU's share would be missing
    assert Meter([], powercap=tmp_path).read() is not None
