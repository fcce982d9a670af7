"""The parts of a training step, told in place: steps cut short after each part (`harness.spec.Truncated`), in turns."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.machine.clock import Sample
    from harness.spec import Cut, EpochPlan


@dataclass
class Timed:
    """Seconds a step, of one cut: one value for each time it was timed. `forward` is None for a part without two passes."""

    part: str
    whole: list[float] = field(default_factory=list[float])
    forward: list[float] | None = None


def warm_up(cuts: Sequence[Cut], plan: EpochPlan) -> None:
    """Calls every cut twice: what compiles at the first call may allocate at the second.

    Raises `UserError` if these are no cuts with names of their own.
    """
    from harness.spec import Cut

    given = cast("list[Any]", cuts)
    if not isinstance(cuts, list) or not given or not all(isinstance(each, Cut) for each in given):
        raise UserError(f"its truncated() gives {str(given)[:100]}; expected a list of harness.spec.Cut, at least one")
    if doubles := [part for part, times in Counter(cut.part for cut in cuts).items() if times > 1]:
        raise UserError(f'its truncated() gives the part "{doubles[0]}" more than once; each needs a name of its own')
    for _ in range(2):
        for cut in cuts:
            cut.whole(plan)
            if cut.forward:
                cut.forward(plan)


def turn(
    cuts: Sequence[Cut], plan: EpochPlan, clock: Callable[[Callable[[], object]], tuple[Sample, object]]
) -> list[Timed]:
    """Times every cut twice: from the shortest to the whole step, and back.

    Each call runs as many steps as the whole step is timed with: what a call costs besides is then as small a part of it.
    A machine that becomes faster or slower meanwhile thus changes the differences of neighbours in both directions. Python
    collects no garbage meanwhile.

    Two untimed calls of one step come before each: memory that was free meanwhile may have gone back to the system, even to
    a virtual machine's host, and is slow to return. Two, since JAX frees a program's memory only when the next one has its own.
    """
    one = first_step(plan)
    steps = -(-len(plan.order) // plan.batch)
    found = [Timed(cut.part, forward=[] if cut.forward else None) for cut in cuts]
    calls = [
        (call, into)
        for cut, timed in zip(cuts, found, strict=True)
        for call, into in ((cut.forward, timed.forward), (cut.whole, timed.whole))
    ]
    with _no_garbage_collected():
        for call, into in (*calls, *reversed(calls)):
            if call is not None and into is not None:
                call(one)
                call(one)
                sample, _ = clock(lambda call=call: call(plan))
                into.append(sample.seconds / steps)
    return found


def first_step(plan: EpochPlan) -> EpochPlan:
    """The first step of a plan alone."""
    kept = None if plan.kept is None else plan.kept[: plan.batch]
    return replace(plan, order=plan.order[: plan.batch], shifts=plan.shifts[: plan.batch], kept=kept)


@contextmanager
def _no_garbage_collected() -> Generator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
