"""`capsbench figures`: draws the figures of a run's trials."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from harness import progress
from harness.commands.output import print_json
from harness.errors import UserError, nearest
from harness.journal.directory import require_run
from harness.journal.journal import FOLDER, Journal
from harness.journal.results import summarise
from harness.publishing.crate import home_of_results
from harness.views.figures.draw import Drawn, datasets, draw_trial, require_matplotlib
from harness.views.figures.material import Material
from harness.views.messages import Console
from harness.weights.whole import Damaged


def draw_run(run_dir: Path, trial_ids: Sequence[str] = (), out: Path | None = None) -> list[Drawn]:
    """Draws the figures of all finished trials of a run, or of those named, into the run directory or `out`.

    Raises `UserError` for a folder without a run, a trial that does not exist or is not finished, if matplotlib is
    missing, and, once the others are drawn, for trials with a damaged file.
    """
    journal = Journal(run_dir)
    require_run(run_dir)
    known = journal.trial_ids()
    for trial_id in trial_ids:
        if trial_id not in known:
            raise UserError(f'{run_dir} has no trial "{trial_id}"{nearest(trial_id, known)}')
    trials = [journal.trial(each) for each in trial_ids or known]
    if trial_ids and (blind := [trial.id for trial in trials if trial.is_proposal]):
        raise UserError(
            f"{', '.join(blind)}: a proposal of a search sees no test images, of which figures are drawn; leave it out"
        )
    shown = [trial for trial in trials if not trial.is_proposal]
    states = {trial.id: summarise(trial, journal.events(trial.id)).status for trial in shown}
    unfinished = [f"{each} ({state})" for each, state in states.items() if state != "finished"]
    chosen = [each for each, state in states.items() if state == "finished"]
    if unfinished and (trial_ids or not chosen):
        raise UserError(
            f"figures are drawn of finished trials; not finished: {', '.join(unfinished)}. "
            f"Run the suite again to go on with them: capsbench run {journal.plan().get('source', 'SUITE')}"
        )
    require_matplotlib()
    dataset = datasets()
    home = home_of_results(run_dir)
    if not out and home != run_dir:
        out = home / FOLDER
    drawn: list[Drawn] = []
    damaged: list[str] = []
    for trial_id in progress.track(chosen, "drawing figures"):
        folder = out / trial_id if out else journal.trial_dir(trial_id) / FOLDER
        try:
            drawn.append(draw_trial(Material(journal, trial_id, dataset), folder))
        except Damaged as error:
            damaged.append(f"trial {trial_id} has no new figures: {error}")
    if damaged:
        raise UserError("\n".join(damaged))
    return drawn


def show(console: Console, drawn: Sequence[Drawn]) -> None:
    """Prints where the figures of each trial are, and which trials have none."""
    for each in drawn:
        names = ", ".join(path.name for path in each.files)
        console.print(Text(f"{each.id} {each.impl} seed {each.seed}: {each.folder}: {names}"), soft_wrap=True)
        for style, reasons in (("dim", each.left_out), ("yellow", each.lacking)):
            for name, reason in reasons.items():
                console.print(Text(f"  no {name}: {reason}", style), soft_wrap=True)


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench figures`."""
    command.add_argument("run_dir", type=Path, metavar="RUN", help="a run's directory, such as runs/quickstart")
    command.add_argument("trials", nargs="*", metavar="TRIAL", help="ids of trials; default: all finished ones")
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="a folder for each trial is made there; default: each trial's own; "
        "of what was published, from-RUN/figures",
    )


def main(args: argparse.Namespace) -> int:
    drawn = draw_run(args.run_dir, args.trials, args.out)
    show(Console(stderr=args.json), drawn)
    if args.json:
        print_json({"run_dir": str(args.run_dir), "trials": [each.to_json() for each in drawn]})
    return 0
