"""Whether the disk has room for a run: before it starts, and while it runs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.cost.space import Space
from harness.disk import free_bytes, mount_point
from harness.errors import UserError, of_the_system
from harness.events import EpochEvent, FailedEvent, TrialEvent
from harness.text import megabytes

_LEFTOVERS = (".*.partial", ".tmp??????", ".*.json.[0-9]*", ".*.jsonl.[0-9]*")
"""Files that a process left in a trial's folder when it was killed while it wrote them."""


class Room:
    """The room that the unfinished trials of a run still need, and what is free.

    Args:
        run_dir: need not exist yet.
        spaces: what each unfinished trial takes, by id.
        together: how many are trained at a time.
    """

    def __init__(self, run_dir: Path, spaces: Mapping[str, Space], together: int = 1) -> None:
        self._run_dir, self._spaces, self._together = run_dir, dict(spaces), max(1, together)
        self._has_warned = False

    def least(self) -> int:
        """Bytes that are needed in any case: weights and checkpoints that are not there yet, one trial at a time."""
        return self._still() + max((space.passing for space in self._spaces.values()), default=0)

    def about(self) -> int:
        """Bytes that are expected to be needed, logs and figures included."""
        passing = sorted((space.passing for space in self._spaces.values()), reverse=True)[: self._together]
        return self._still() + sum(passing) + sum(space.rest for space in self._spaces.values())

    def add(self, other: Room) -> None:
        """What is planned later needs room, too."""
        self._spaces |= other._spaces

    def require(self) -> str | None:
        """Returns a warning if the room may not suffice. Raises `UserError` if it certainly does not."""
        free = free_bytes(self._run_dir)
        if free is None or not self._spaces:
            return None
        if free < (least := self.least()):
            count = len(self._spaces)
            trials = f"{count} unfinished trials need it" if count > 1 else "the unfinished trial needs it"
            raise UserError(
                f"{self._no_space(least, free)}: {trials} for weights and checkpoints in {self._run_dir}. "
                "Make room, or choose a folder on another disk with --out DIR."
            )
        return self._doubt(free)

    def after(self, trial_id: str, event: TrialEvent) -> str | None:
        """Looks after each event: returns a warning, once, if the room may not suffice for what remains.

        Raises `OSError` if what the trial writes next cannot have room, so that the epoch after this one would be lost.
        """
        free = free_bytes(self._run_dir)
        space = self._spaces.get(trial_id)
        if not isinstance(event, EpochEvent) or free is None or space is None:
            return None
        name = event.names().get("checkpoint")
        checkpoint = _size(self._run_dir / "trials" / trial_id / name) if name else 0
        following = checkpoint if event.epoch < event.epochs else space.end
        if free < following:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._run_dir))
        return self._doubt(free)

    def ended(self, trial_id: str) -> None:
        """The trial has ended and needs no more."""
        self._spaces.pop(trial_id, None)

    def is_ours(self, event: FailedEvent) -> bool:
        """Whether an attempt failed because of the disk that the run is on, so that all others would fail too."""
        if not hasattr(errno, event.error):
            return False
        if event.path is not None:
            return Path(event.path).resolve().is_relative_to(self._run_dir.resolve())
        free = free_bytes(self._run_dir)
        following = max((space.checkpoint for space in self._spaces.values()), default=0)
        return event.error in ("ENOSPC", "EDQUOT") and free is not None and free < following

    def told(self, error: OSError) -> str:
        """What a disk refused, in a line with what is needed and what is free."""
        place = Path(os.fsdecode(error.filename)) if error.filename is not None else self._run_dir
        free = free_bytes(place)
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and free is not None:
            ours = mount_point(place) == mount_point(self._run_dir)
            needed = max(self.least(), 1) if ours else None
            if error.errno == errno.ENOSPC:
                return self._no_space(needed, free, place)
            more = f" ({megabytes(needed, up=True)} needed)" if needed else ""
            return f"the disk quota on {mount_point(place)} is used up{more}"
        return of_the_system(error) or str(error)

    def _still(self) -> int:
        """Bytes of weights and checkpoints that the trials lack."""
        return sum(max(0, space.kept - self._there(id)) for id, space in self._spaces.items())

    def _there(self, trial_id: str) -> int:
        folder = self._run_dir / "trials" / trial_id
        return sum(_size(path) for path in folder.glob("*.safetensors")) if folder.is_dir() else 0

    def _doubt(self, free: int) -> str | None:
        if self._has_warned or free >= (about := self.about()):
            return None
        self._has_warned = True
        return (
            f"little room on {mount_point(self._run_dir)}: about {megabytes(about, up=True)} will be needed, "
            f"{megabytes(free)} are free. If it runs full, nothing finished is lost"
        )

    def _no_space(self, needed: int | None, free: int, place: Path | None = None) -> str:
        numbers = [f"{megabytes(needed, up=True)} needed"] if needed else []
        return f"no space left on {mount_point(place or self._run_dir)} ({', '.join([*numbers, f'{megabytes(free)} free'])})"


def sweep(run_dir: Path, trial_ids: Iterable[str]) -> None:
    """Removes what killed processes left half-written in the folders of trials that nobody is training now."""
    for trial_id in trial_ids:
        folder = run_dir / "trials" / trial_id
        for pattern in _LEFTOVERS if folder.is_dir() else ():
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
