"""`capsbench retest`: the test error of each epoch whose weights a run kept, and what choosing among them would claim."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from harness import data, progress, registry
from harness.analysis.cells import of_run
from harness.analysis.choice import Choice, advice, choices, errors_by_epoch
from harness.commands import parser
from harness.commands.output import print_json, tell
from harness.disk import obstacle
from harness.errors import UserError
from harness.events import TrialEvent
from harness.journal import retested
from harness.journal.directory import require_run
from harness.journal.journal import Journal
from harness.journal.kept import find_trial, read
from harness.journal.results import summarise
from harness.journal.retested import Tested
from harness.publishing.recompute import answers
from harness.spec import is_right
from harness.spec.trial import Trial
from harness.views.messages import Console
from harness.views.report.choice_table import TITLE, choice_table, explained
from harness.views.tables import print_table

_DESCRIPTION = """\
The test error of each epoch whose weights a run kept (train.keep_every), by the implementation that trained them: then
report, compare and table show what choosing the best epoch on the test set would have claimed, beside the last epoch and
the best one on validation images. What was found is kept in the trial's folder, as tested.json; the journal stays as it is."""


@dataclass(frozen=True)
class Retested:
    """`found`: trial -> its epochs, in order; `new`: how many of them were computed now."""

    run_dir: Path
    found: dict[str, list[Tested]]
    new: int
    choices: list[Choice]
    problems: list[str]

    def to_json(self) -> dict[str, Any]:
        """The output of `retest --json`."""
        trials = [
            {"trial": id, "epochs": [{**asdict(each), "test_err_pct": each.test_err_pct} for each in epochs]}
            for id, epochs in self.found.items()
        ]
        return {
            "run_dir": str(self.run_dir), "trials": trials, "new": self.new,
            "choice": [each.to_json() for each in self.choices], "problems": self.problems,
        }  # fmt: skip


def retest(run_dir: Path, trial_ids: Sequence[str] = (), impl: str | None = None, *, again: bool = False) -> Retested:
    """Tests the kept weights of all finished trials, or of those named, as far as their test errors are not known.

    Args:
        impl: what computes; by default what trained.
        again: also those that were tested before.

    Raises `UserError` for a folder without a run, a trial that does not exist, has not finished or has no such weights, and
    if no weights at all could be tested.
    """
    require_run(run_dir)
    journal = Journal(run_dir)
    trials = [find_trial(run_dir, each) for each in dict.fromkeys(trial_ids)] or [
        journal.trial(each) for each in journal.trial_ids()
    ]
    events = {trial.id: journal.events(trial.id) for trial in trials}
    why_not = {trial.id: why for trial in trials if (why := _untestable(trial, journal, events[trial.id]))}
    able = [trial for trial in trials if trial.id not in why_not]
    if not able or (trial_ids and why_not):
        reasons = "; ".join(dict.fromkeys(f"{id}: {why}" if trial_ids else why for id, why in why_not.items()))
        raise UserError(f"{run_dir}: nothing to test: {reasons or 'it has no trials'}")
    todo = [(trial, epoch) for trial in able for epoch in _missing(trial, journal, events[trial.id], again)]
    problems = _test(journal, todo, events, impl)
    if problems and len(problems) == len(todo):
        raise UserError("\n".join(dict.fromkeys(problems)))
    known = {trial.id: retested.known(journal, trial.id, events[trial.id]) for trial in able}
    found = {id: [epochs[number] for number in sorted(epochs)] for id, epochs in known.items()}
    return Retested(run_dir, found, len(todo) - len(problems), choices(of_run(journal)), list(dict.fromkeys(problems)))


def _untestable(trial: Trial, journal: Journal, events: Sequence[TrialEvent]) -> str | None:
    if trial.is_proposal:
        return "a proposal of a search sees no test images"
    result = summarise(trial, events)
    if result.status != "finished":
        return f"it has not finished ({result.status})"
    if result.flaw:
        return result.flaw
    if not retested.kept_weights(journal, trial.id, events):
        return "no epoch's weights were kept; with train.keep_every: 1 in the suite, a run keeps those of all epochs"
    return None


def _missing(trial: Trial, journal: Journal, events: Sequence[TrialEvent], again: bool) -> list[int]:
    """The epochs to test: their weights are here, and their test errors not known."""
    kept = retested.kept_weights(journal, trial.id, events)
    told = errors_by_epoch(summarise(trial, events))
    before = {} if again else retested.known(journal, trial.id, events)
    return [epoch for epoch in sorted(kept) if epoch not in told and epoch not in before]


def _test(
    journal: Journal,
    todo: Sequence[tuple[Trial, int]],
    events: dict[str, list[TrialEvent]],
    impl: str | None,
) -> list[str]:
    """Tests these epochs, each in a process of its own. Returns what went wrong, one for each epoch that has no error."""
    problems: list[str] = []
    kinds = {trial.id: sum(other.id == trial.id for other, _ in todo) for trial, _ in todo}
    with progress.task("testing epochs") as testing:
        testing.expect(kinds)
        for trial, epoch in todo:
            testing.title = f"testing epoch {epoch} of {trial.id}"
            path, event = retested.kept_weights(journal, trial.id, events[trial.id])[epoch]
            name = impl or trial.impl
            try:
                read(path, trial, event)  # whole, before a process is started for it
                split = data.load(trial.data).test
                said = answers(journal.run_dir, trial, split, name, len(split), str(epoch))
            except UserError as error:
                problems.append(str(error))
                continue
            finally:
                testing.advance(kind=trial.id)
            wrong = int((~is_right(said.predicted, split.labels)).sum())
            tested = Tested(epoch, path.name, retested.digest(path, event), len(split), wrong, name)
            try:
                retested.keep(journal, trial.id, events[trial.id], tested)
            except OSError as error:
                reason = obstacle(path.parent) or error.strerror
                raise UserError(f"cannot write {path.parent / retested.NAME}: {reason}") from error
    return problems


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench retest`."""
    command.description = _DESCRIPTION
    command.formatter_class = parser.Paragraphs
    parser.run_dir(command)
    command.add_argument("trials", nargs="*", metavar="TRIAL", help="ids of trials; default: all finished ones")
    command.add_argument("--impl", metavar="NAME", help="what computes; default: what trained")
    command.add_argument("--again", action="store_true", help="also the epochs that were tested before")


def main(args: argparse.Namespace) -> int:
    if args.impl and (reason := registry.missing(registry.resolve(args.impl))):
        raise UserError(f"--impl {args.impl}: {reason}")
    made = retest(args.run_dir, args.trials, args.impl, again=args.again)
    console = Console(stderr=args.json)
    for problem in made.problems:
        tell(f"capsbench: {problem}", "red")
    known = sum(map(len, made.found.values()))
    console.print(Text(f"{known} epochs of {len(made.found)} trials tested, {made.new} of them now"), soft_wrap=True)
    if made.choices:
        console.print(Text(f"\n{TITLE}", "bold"))
        console.print(Text(explained(made.choices), "dim"), soft_wrap=True)
        print_table(console, choice_table(made.choices))
        for line in advice(args.run_dir, made.choices):
            console.print(Text(line, "dim"), soft_wrap=True)
    if args.json:
        print_json(made.to_json())
    return int(bool(made.problems))
