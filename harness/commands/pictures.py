"""What a user should know about the pictures of a suite before it runs: notes on the files, and whether they changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.data.own import in_short
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.spec.trial import OwnData, Trial


def notes(trials: Sequence[Trial], journal: Journal) -> tuple[str, ...]:
    """One line for each thing; none unless the trials use one's own pictures."""
    ours = {_place(trial): (trial.data.module or trial.data.path, own) for trial in trials if (own := _own(trial))}
    earlier = [(_place(trial), own) for trial in _known(journal) if (own := _own(trial))] if ours else []
    lines: dict[str, None] = {}
    for place, (where, own) in ours.items():
        before = [each for at, each in earlier if at == place]
        if before and own.sha256 not in {each.sha256 for each in before}:
            same = own.files_sha256 in {each.files_sha256 for each in before}
            why = "the same files, decoded to other pixels" if same else "they were changed since"
            lines[
                f"{where} holds other pictures than those of earlier trials in {journal.run_dir}: {why}. These trials are new "
                "ones; the earlier ones keep their results"
            ] = None
        lines |= dict.fromkeys(note if note.startswith(str(where)) else f"{where}: {note}" for note in own.notes)
    return tuple(lines)


def found(trials: Sequence[Trial]) -> tuple[str, ...]:
    """One line for each set of one's own pictures: how many, how large, which classes."""
    return tuple(
        dict.fromkeys(
            f"{trial.data.module or trial.data.path}: {in_short(own)}" for trial in trials if (own := _own(trial))
        )
    )


def _own(trial: Trial) -> OwnData | None:
    return trial.data.own if trial.data.own and trial.data.own.sha256 else None


def _known(journal: Journal) -> Iterator[Trial]:
    for trial_id in journal.trial_ids():
        try:
            yield journal.trial(trial_id)
        except UserError:  # from a newer capsbench, or damaged: told where it matters
            continue


def _place(trial: Trial) -> str:
    """All that decides which pictures are read, but for the content of the files."""
    decisive = trial.data.model_copy(
        update={"own": None, "dir": None, "train": None, "validation": None, "test": None, "test_from": None}
    )
    return decisive.model_dump_json(exclude={"augment", "split"})
