"""Hyperthreads, and a process that a library has moved."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.machine.topology import beside, hyperthreads, physical, put_back, shared, spread

needs_two = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="needs two cores and their affinity"
)


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Two physical cores, of which each is two logical ones: 0 and 2, 1 and 3."""
    for core in range(4):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text("0,2\n" if core % 2 == 0 else "1,3\n")
    return tmp_path


@pytest.fixture
def own_cores() -> Iterator[set[int]]:
    """All cores for this process; afterwards, those that it had."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    yield os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)


def test_hyperthreads(four: Path) -> None:
    assert hyperthreads(2, four) == {0, 2}
    assert physical([0, 1, 2], four) == 2
    assert beside([0, 1], four) == {2, 3}
    assert beside([0, 2], four) == set()


def test_physical_cores_are_taken_first(four: Path) -> None:
    (four / "devices/system/cpu/cpu0/topology/thread_siblings_list").write_text("0-1\n")
    (four / "devices/system/cpu/cpu1/topology/thread_siblings_list").write_text("0-1\n")
    (four / "devices/system/cpu/cpu2/topology/thread_siblings_list").write_text("2-3\n")
    (four / "devices/system/cpu/cpu3/topology/thread_siblings_list").write_text("2-3\n")
    assert spread({3, 2, 1, 0}, four) == [0, 2, 1, 3]
    assert spread({1, 3}, four) == [1, 3]


def test_what_shares_a_core_is_said(four: Path) -> None:
    assert shared([0, 1], four) is None
    assert shared([0], four) is None
    assert str(shared([0, 2], four)).startswith("its 2 cores are hyperthreads of 1 physical core,")
    assert str(shared([0, 1, 2], four)).startswith("its 3 cores are hyperthreads of 2 physical cores,")


def test_what_the_platform_does_not_tell_is_nobody_s_neighbour(tmp_path: Path) -> None:
    assert hyperthreads(5, tmp_path) == {5}
    assert spread({2, 0, 1}, tmp_path) == [0, 1, 2]
    assert beside([0], tmp_path) == set()
    assert shared([0, 1], tmp_path) is None


@needs_two
def test_a_process_that_was_moved_is_put_back(own_cores: set[int]) -> None:
    first, *_ = sorted(own_cores)
    assert put_back(sorted(own_cores)) is None
    said = put_back([first])  # a library has let it run anywhere
    assert said is not None
    assert said.startswith(f"was moved from its cores ({first}) to ")
    assert os.sched_getaffinity(0) == {first}
    assert put_back([first]) is None
    assert put_back(sorted(own_cores)) is not None  # a library has bound it to one
    assert os.sched_getaffinity(0) == own_cores


@needs_two
def test_threads_are_put_back_and_those_bound_within_are_left(own_cores: set[int]) -> None:
    first, second, *_ = sorted(own_cores)
    begun, ended = threading.Barrier(3), threading.Event()
    ids: dict[str, int] = {}

    def work(name: str, cores: set[int]) -> None:
        os.sched_setaffinity(0, cores)
        ids[name] = threading.get_native_id()
        begun.wait()
        ended.wait()

    threads = [threading.Thread(target=work, args=each) for each in (("away", {second}), ("within", {first}))]
    for thread in threads:
        thread.start()
    os.sched_setaffinity(0, {first})
    begun.wait()
    try:
        assert str(put_back([first])).endswith(f"to {second} by a library")
        assert os.sched_getaffinity(ids["away"]) == {first}
        os.sched_setaffinity(0, {first, second})
        assert put_back([first, second]) is None
        assert os.sched_getaffinity(ids["within"]) == {first}
    finally:
        ended.set()
        for thread in threads:
            thread.join()
