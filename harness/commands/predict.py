"""`capsbench predict`: what a trained model says of your own pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from harness import progress, registry
from harness.commands.elsewhere import run_elsewhere
from harness.commands.output import print_json
from harness.disk import write_atomic
from harness.errors import UserError
from harness.machine.environment import available_cores
from harness.prediction.fitting import FITS, Fit
from harness.prediction.pictures import Item, find
from harness.prediction.predict import BATCH, Prediction, Predictor, Problem, Seen, predictions, score_meaning
from harness.prediction.trained import Trained, implementation, requested
from harness.sniff import what_is
from harness.views.figures.draw import require_matplotlib
from harness.views.messages import Console
from harness.views.prediction import SHEET, as_csv, as_json, draw_sheet, remarks, table
from harness.views.tables import print_table

STDOUT = "-"

_HEAD = b"file,class,name,score"  # how our tables begin


@dataclass(frozen=True)
class Predicted:
    """What `predict` found: a prediction or a problem for each picture, in order, and what makes them doubtful."""

    trained: Trained
    impl: str
    precision: str
    said: list[Prediction | Problem]
    notes: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])

    @property
    def exit_code(self) -> int:
        """1 if a picture could not be read."""
        return int(any(isinstance(each, Problem) for each in self.said))

    def to_json(self) -> dict[str, Any]:
        """The output of `predict --json`."""
        how = {"impl": self.impl, "precision": self.precision}
        return {**how, **as_json(self.trained, self.said), "notes": self.notes, "warnings": self.warnings}


def predict(
    trained: Trained, items: Sequence[Item], impl: str | None = None, fit: Fit | None = None, invert: bool = False,
    batch: int = BATCH,
) -> Predicted:  # fmt: skip
    """Predictions for `items`. Raises `UserError` if the implementation cannot be used."""
    entry, why = implementation(trained, impl)
    predictor = Predictor(trained, entry, available_cores())
    notes = [why] if why else []
    if predictor.precision != trained.precision:
        notes.append(f"computed in {predictor.precision}: {entry.name} has no {trained.precision} on a CPU")
    seen = Seen()
    said: list[Prediction | Problem] = []
    found = predictions(predictor, items, fit, invert, batch)
    for number, each in enumerate(progress.track(found, "predicting", len(items))):
        if isinstance(each, Prediction):
            seen.see(each.pixels)
            each = each if number < SHEET else each.without_pictures()
        said.append(each)
    doubts = [*trained.doubts, *seen.doubts(trained, invert)]
    return Predicted(trained, entry.name, predictor.precision, said, notes, doubts)


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench predict`."""
    command.usage = (
        "capsbench predict RUN TRIAL FILE... [options]\n       capsbench predict --weights W.safetensors FILE..."
    )
    command.add_argument(
        "words", nargs="*", metavar="RUN TRIAL FILE",
        help="a run's directory, a trial's id or its beginning, then pictures (PNG, JPEG, BMP, TIFF), folders of them, "
        "or arrays of images (.npy, .npz, IDX)",
    )  # fmt: skip
    command.add_argument(
        "--weights", default="last", metavar="best|last|EPOCH|FILE",
        help="which of the trial's weights (default: last); or a file of weights, in place of RUN TRIAL",
    )  # fmt: skip
    command.add_argument("--impl", metavar="NAME", help="what computes: default: what trained, if it is installed")
    command.add_argument(
        "--fit", choices=FITS,
        help="pictures of another size: keep all and pad, keep the aspect ratio and crop, or stretch; default: as the data "
        "set's images in training, else pad",
    )  # fmt: skip
    command.add_argument("--invert", action="store_true", help="swap light and dark first: a dark digit on white paper")
    command.add_argument("--batch", type=int, default=BATCH, metavar="N", help=f"pictures at a time; default: {BATCH}")
    command.add_argument("--csv", metavar="FILE", help="write one line per picture; -: to stdout")
    command.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="draw the pictures beside their reconstructions"
    )


def main(args: argparse.Namespace) -> int:
    if args.batch < 1:
        raise UserError(f"--batch {args.batch}: expected a whole number of at least 1")
    if args.csv == STDOUT and args.json:
        raise UserError("--csv - and --json both write to stdout; give --csv a file")
    for option, path in ("--csv", args.csv), ("--sheet", args.sheet):
        _require_place(option, path)
    if args.sheet:
        require_matplotlib()
    replaced = [str(each) for each in (args.csv, args.sheet) if each and each != STDOUT and Path(each).is_file()]
    trained, paths = requested(args.words, args.weights)
    items = find(paths)
    if (code := _elsewhere(args, trained)) is not None:
        return code
    _set_environment(implementation(trained, args.impl)[0].name)
    with progress.task("predicting"):
        found = predict(trained, items, args.impl, args.fit, args.invert, args.batch)
    document = found.to_json()
    try:
        if args.csv and args.csv != STDOUT:
            write_atomic(Path(args.csv), as_csv(trained, found.said))
        if args.sheet and any(isinstance(each, Prediction) for each in found.said):
            draw_sheet(trained, found.said, args.sheet)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or args.csv}: {error.strerror}") from error
    if args.csv == STDOUT:
        print(as_csv(trained, found.said), end="")
    _show(found, args, replaced)
    if args.json:
        print_json({**document, "csv": args.csv, "sheet": args.sheet and str(args.sheet)})
    return found.exit_code


def _elsewhere(args: argparse.Namespace, trained: Trained) -> int | None:
    """As `run_elsewhere`. If what trained can no longer be used, another implementation predicts here, and says so."""
    impl, recorded = args.impl or trained.impl, trained.interpreter if args.impl in (None, trained.impl) else None
    try:
        return run_elsewhere(args, impl, recorded) if impl else None
    except UserError:
        if args.impl:
            raise
        return None


def _set_environment(impl: str) -> None:
    """What the implementation needs, before its framework is imported. Predictions need no accelerator."""
    wanted = {**registry.environment(impl, available_cores(), "fp32", False), "CUDA_VISIBLE_DEVICES": ""}
    for name, value in wanted.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _show(found: Predicted, args: argparse.Namespace, replaced: Sequence[str]) -> None:
    """The table, unless predictions go elsewhere; notes and warnings always."""
    elsewhere = args.json or args.csv
    console = Console(stderr=bool(args.json or args.csv == STDOUT))
    trained = found.trained
    if not elsewhere:
        print_table(console, table(trained, found.said))
        console.print(Text(f"\n{score_meaning(trained.model)}.", "dim"), soft_wrap=True)
    facts = ", ".join(f"{key} {trained.facts[key]}" for key in ("trial", "epoch") if trained.facts.get(key) is not None)
    console.print(Text(f"{trained.path} ({facts or 'of no run'}), computed by {found.impl}", "dim"), soft_wrap=True)
    for line in [*found.notes, *remarks(trained, found.said)]:
        console.print(Text(line, "dim"), soft_wrap=True)
    problems = [each for each in found.said if isinstance(each, Problem)]
    for each in problems[:10]:
        console.print(Text(f"{each.name}: {each.why}", "red"), soft_wrap=True)
    if len(problems) > 10:
        console.print(Text(f"... and {len(problems) - 10:,} more that cannot be read", "red"), soft_wrap=True)
    for line in found.warnings:
        console.print(Text(f"warning: {line}", "yellow"), soft_wrap=True)
    for name in (args.csv if args.csv != STDOUT else None, args.sheet):
        if name:
            place = ", in place of the file that was there" if str(name) in replaced else ""
            console.print(Text(f"Written: {name}{place}"), soft_wrap=True)


def _is_ours(csv: Path) -> bool:
    """Whether it is a table of predictions, or empty."""
    with csv.open("rb") as file:
        head = file.read(len(_HEAD))
    return head in (b"", _HEAD)


def _require_place(option: str, path: str | Path | None) -> None:
    """Raises `UserError` if nothing can be written there: before the pictures are read, which may take long."""
    if path is None or path == STDOUT:
        return
    place = Path(path)
    if place.is_dir():
        raise UserError(f"{option} {place}: a folder; expected a file")
    if option == "--csv" and place.is_file() and not _is_ours(place):
        raise UserError(
            f"{option} {place}: a file that `predict` did not write is there: {what_is(place)}; remove it, or give another name"
        )
    if not place.parent.is_dir():
        raise UserError(f"{option} {place}: there is no folder {place.parent}")
    if option == "--sheet" and place.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"{option} {place}: expected a file whose name ends in .png, .pdf or .svg")
