"""The process in which an implementation climbs: `python -P -m harness.worker.parity --events-fd N`.

`harness.supervisor.parity` starts it; `harness.worker.channel` describes its life. Its events say which method of the
implementation is running and what has been compared so far. Then comes a "report", or why there is none, and last what
a failure looks like.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn, cast

from harness.errors import BrokenPlugin
from harness.events import Event
from harness.events.processes import CallingEvent, ReportEvent, ReturnedEvent, SuspectsEvent
from harness.worker.channel import explain, serve

if TYPE_CHECKING:
    from harness.parity import Ladder
    from harness.spec import Impl
    from harness.spec.conventions import Conventions

Emit = Callable[[Event], None]


def main() -> NoReturn:
    """Runs the job read from stdin; the exit code is 0 only after a "report" event."""
    serve("Compares one implementation", lambda job, channel: _climb(job, channel.emit))


def _climb(job: dict[str, Any], emit: Emit) -> None:
    from harness import data, registry
    from harness.data import Split
    from harness.parity import Check
    from harness.parity.ordinary.images import fitted
    from harness.parity.setups import command_ladder
    from harness.spec.conventions import accepted
    from harness.spec.trial import Trial

    trial = Trial.model_validate_json(json.dumps(job["trial"]))
    found = data.load(trial.data).train
    train = Split(*fitted(found.images, found.labels, trial.model))
    implementation = registry.load(registry.resolve(trial.impl), adapter=True)
    calls = Calls(emit)

    def ladder_with(conventions: Conventions) -> Ladder:
        return command_ladder(
            trial,
            functools.partial(calls.call, "__init__", implementation),
            train,
            lambda impl: cast("Impl", Watched(impl, calls)),
            conventions,
        )

    ladder: Ladder | None = None
    raised: list[Check] = []
    try:
        ladder = calls.ladder = ladder_with(accepted(job["accept"]))
        ladder.climb(job["level"])
    except BrokenPlugin:  # a fault of the kind of model, not of the implementation
        raise
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        raised = [Check(calls.level, "exception", math.inf, 1.0, note=_cause(error, calls))]
    checks = [*calls.news(), *map(asdict, raised)]
    failed = ladder is not None and not all(check.ok for check in ladder.checks)
    emit(
        ReportEvent(
            checks=checks,
            skipped=ladder.skipped if ladder else {},
            images=len(ladder.at.shown_indices) if ladder else 0,
            suspects_follow=failed,
        )
    )
    if ladder is not None and failed:
        emit(_diagnosis(ladder, job["level"], ladder_with))


def _diagnosis(ladder: Ladder, level: str, ladder_with: Callable[[Conventions], Ladder]) -> SuspectsEvent:
    """What the failure looks like; if that cannot be found out, nothing, with the reason in the log.

    If conventions explain it all, `checks` are those of a second climb, in which the specification uses them.
    """
    try:
        from harness.parity.diagnosis.diagnose import diagnose

        found = diagnose(ladder)
        checks: list[dict[str, Any]] = []
        if found.is_right and found.conventions != ladder.conventions:
            again = ladder_with(found.conventions)
            again.climb(level)
            checks = [asdict(check) for check in again.checks]
        return SuspectsEvent(
            suspects=list(found.suspects),
            conventions=list(found.conventions.named()),
            unexplained=list(found.unexplained),
            checks=checks,
        )
    except (Exception, SystemExit):
        print("No diagnosis of the failure:", file=sys.stderr)
        traceback.print_exc()
        return SuspectsEvent(suspects=[], conventions=[], unexplained=[], checks=[])


class Calls:
    """Tells the supervisor, before each call, which method of the implementation runs at which level."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._told = 0
        self.ladder: Ladder | None = None
        self.last = "__init__"
        self.inside = False

    @property
    def level(self) -> str:
        return self.ladder.level if self.ladder else "L1"

    def news(self) -> list[dict[str, Any]]:
        """The checks that the supervisor has not been told of yet."""
        fresh = self.ladder.checks[self._told :] if self.ladder else []
        self._told += len(fresh)
        return [asdict(check) for check in fresh]

    def call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.last, self.inside = name, True
        self._emit(CallingEvent(method=name, level=self.level, checks=self.news()))
        result = method(*args, **kwargs)
        self.inside = False
        self._emit(ReturnedEvent())
        return result


class Watched:
    """An implementation whose method calls go through a `Calls`; it has the same methods."""

    def __init__(self, impl: Any, calls: Calls) -> None:
        self._impl, self._calls = impl, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._impl, name)
        return functools.partial(self._calls.call, name, found) if callable(found) else found


def _cause(error: BaseException, calls: Calls) -> str:
    said = explain(error)
    where = f"its {calls.last} raised" if calls.inside else f"what its {calls.last} returned cannot be compared:"
    return f"{where} {said.cause}" + (f" ({said.hint})" if said.hint else "")


if __name__ == "__main__":
    main()
