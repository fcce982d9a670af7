"""Published figures, and which of them may be shown beside a cell: those whose declared conditions it meets.

`published.yaml` holds the figures as their authors state them. Nothing else is compared, and every difference (epochs,
batch, training images, machine) is stated beside the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import Field, model_validator

from harness import data
from harness.analysis.cells import Cell
from harness.data.frame import is_framed
from harness.spec import Count, Positive, Section
from harness.spec.trial import Trial
from harness.stats import Summary, summary

_FILE = Path(__file__).with_suffix(".yaml")
_WORDS = {
    "train.epochs": "epochs",
    "train.batch": "batch",
    "data.train": "training images",
    "data.augment.shift": "shift",
    "data.test_from": "tested on",
    "model.profile": "profile",
    "model.dropout": "dropout",
    "model.routing": "routing",
    "model.decoder": "decoder",
}


class Source(Section):
    """Who published it."""

    title: str
    link: Annotated[str, Field(pattern=r"^https://")]
    paper: bool = False  # whether it is the network's original paper


class Figure(Section):
    """One published number, in the unit of `harness.journal.results.Result`."""

    source: str
    where: str
    metric: Literal["test_err_pct", "val_err_pct", "epoch_s"]
    value: Annotated[float, Field(gt=0, strict=False)]
    sd: Positive | None = None  # over `n` trials
    n: Count | None = None
    images: Count | None = None  # per epoch; only for epoch_s
    machine: str | None = None  # likewise
    conditions: dict[str, Any]
    setup: dict[str, Any]
    note: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Figure:
        timed = self.metric == "epoch_s"
        if timed != bool(self.machine) or timed != bool(self.images):
            raise ValueError("a time needs a machine and a number of images, and nothing else has them")
        return self


class _Document(Section):
    networks: dict[str, Any]  # these three hold only what figures refer to
    data: dict[str, Any]
    setups: dict[str, Any]
    sources: dict[str, Source]
    figures: list[Figure]

    @model_validator(mode="after")
    def _known(self) -> _Document:
        if absent := {figure.source for figure in self.figures} - self.sources.keys():
            raise ValueError(f"figures of sources that are not there: {', '.join(sorted(absent))}")
        return self


@dataclass(frozen=True)
class Beside:
    """A published figure beside a cell: `ours` is the cell's, in the same unit; `unlike` says how the setups differ."""

    figure: Figure
    source: Source
    cell: Cell
    ours: Summary | None
    unlike: list[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source.title, "link": self.source.link, "where": self.figure.where, "paper": self.source.paper,
            "metric": self.figure.metric, "value": self.figure.value, "sd": self.figure.sd, "n": self.figure.n,
            "images": self.figure.images, "machine": self.figure.machine, "impl": self.cell.impl,
            "params": self.cell.params, "ours": self.ours and self.ours.mean, "ours_n": self.ours.n if self.ours else 0,
            "unlike": self.unlike,
        }  # fmt: skip


@cache
def published() -> tuple[tuple[Figure, Source], ...]:
    """Every figure with its source."""
    document = _Document.model_validate(yaml.safe_load(_FILE.read_text(encoding="utf-8")))
    return tuple((figure, document.sources[figure.source]) for figure in document.figures)


def beside(cells: Sequence[Cell]) -> list[Beside]:
    """What may be shown beside these cells: cell by cell, in the order of the file."""
    found: list[Beside] = []
    for cell in cells:
        facts = facts_of(cell.trial)
        for figure, source in published():
            if meets(facts, figure.conditions):
                found.append(Beside(figure, source, cell, _ours(cell, figure), unlike(facts, figure)))
    return found


def facts_of(trial: Trial) -> dict[str, Any]:
    """The trial's settings by dotted key; `data.train`, `data.test` and the shift are resolved to numbers."""
    sections = trial.model_dump(mode="json", include={"data", "model", "train", "runtime"})
    facts = dict(_dotted(sections))
    facts["data.train"], _, facts["data.test"] = data.sizes(trial.data)
    facts["data.augment.shift"] = data.shift(trial.data)
    if is_framed(trial.data):  # no published figure is for images that were scaled or cut
        facts["data.canvas"] = "x".join(map(str, trial.model.image[:2]))
    return facts


def meets(facts: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Whether every condition holds; null holds if the setting is absent or null."""
    return all(facts.get(key) == value for key, value in conditions.items())


def unlike(facts: Mapping[str, Any], figure: Figure) -> list[str]:
    """What differs from the figure's setup, or is not stated there; its machine; further notes on it."""
    said = [
        f"{_WORDS.get(key, key)}: not stated there, {_count(facts.get(key))} here"
        if theirs is None
        else f"{_WORDS.get(key, key)}: {_count(theirs)} there, {_count(facts.get(key))} here"
        for key, theirs in figure.setup.items()
        if theirs is None or facts.get(key) != theirs
    ]
    said += [f"another machine: {figure.machine}"] if figure.machine else []
    return [*said, figure.note] if figure.note else said


def _ours(cell: Cell, figure: Figure) -> Summary | None:
    if not figure.images:
        return cell.summary(figure.metric)
    return summary([figure.images / rate for rate in cell.values("img_per_s").values()])  # seconds for as many images


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "none" if value is None else str(value)


def _dotted(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in document.items():
        found += (
            _dotted(cast(Mapping[str, Any], value), f"{prefix}{key}.")
            if isinstance(value, dict)
            else [(prefix + key, value)]
        )
    return found
