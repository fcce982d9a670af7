"""`capsbench run --storage`: checked and brought back before a plan is made, kept up to date while trials run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.disk import read_json
from harness.errors import Noted, UserError, note
from harness.events import FINAL, AttemptEvent, EpochEvent, TrialEvent
from harness.journal.journal import Journal
from harness.storage.mirror import Mirror
from harness.storage.place import place

_REST_S = 120.0
"""How long the end of a run waits for storage; Ctrl-C waits a tenth of it."""
_TOLD = 3  # objects that are named


def opened(url: str | None, run_dir: Path) -> Mirror | None:
    """Storage for the run, with what it has and `run_dir` lacks brought back. None without a URL.

    Raises `UserError` within seconds if it cannot be used, another driver uses it, or it holds another run.
    """
    if url is None:
        return None
    where = place(url)
    if where.protocol in ("file", "local"):
        folder, own = Path(where.url.partition("://")[2]).resolve() / run_dir.name, run_dir.resolve()
        if own in (folder, *folder.parents) or folder in own.parents:
            raise UserError(f"--storage {where}: that is where the run itself is, {run_dir}; name another folder")
    mirror = Mirror(where / run_dir.name, run_dir, note)
    try:
        mirror.open()
        stored, here = mirror.plan().get("run_id"), (read_json(run_dir / "plan.json") or {}).get("run_id")
        if stored and here and stored != here:
            raise UserError(
                f"--storage {where}: {run_dir.name} there is another run than {run_dir}. To go on with the one that is stored, "
                "give another --out; to keep both, another --storage"
            )
        if mirror.has_something():
            with Journal(run_dir).open():
                count, doubted = mirror.bring()
                if doubted:
                    more = f" and {len(doubted) - _TOLD} more" if len(doubted) > _TOLD else ""
                    told = f"{', '.join(doubted[:_TOLD])}{more}"
                    note(f"storage: {told} in {mirror.place}: gone, or not what was sent there; not used", Noted)
                if count:
                    note(f"storage: {count} file{'s' * (count != 1)} brought back from {mirror.place}", Noted)
    except BaseException:
        mirror.close(0)
        raise
    return mirror


def begin(mirror: Mirror, journal: Journal, say: Callable[[str], None]) -> None:
    """Sends all that is here and not there, then whatever `changed` names."""
    mirror.say = say
    planned(mirror, journal)
    mirror.begin()


def planned(mirror: Mirror, journal: Journal) -> None:
    """Called when there is a new plan: everything may have new content."""
    for folder in ("", *(f"trials/{id}" for id in journal.trial_ids())):
        mirror.changed(folder)


def changed(mirror: Mirror, trial_id: str, event: TrialEvent) -> None:
    """Called when the event is durable here."""
    if isinstance(event, (AttemptEvent, EpochEvent, *FINAL)):
        mirror.changed(f"trials/{trial_id}")


def finish(mirror: Mirror, interrupted: bool, say: Callable[[str], None]) -> str | None:
    """Sends the rest; returns a sentence for the user if that did not succeed in time."""
    if mirror.is_behind():
        say(f"storage: sending the rest to {mirror.place}")
    return mirror.close(_REST_S / 10 if interrupted else _REST_S)
