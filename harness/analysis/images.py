"""Cells compared image by image, from the predictions that finished trials stored."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from harness.analysis.cells import ALPHA, Cell, differing
from harness.events import ResultEvent
from harness.journal.journal import Journal
from harness.journal.results import named_files
from harness.spec.impl import is_right
from harness.stats import Difference, Discordance, adjust, crossed, discordance
from harness.weights.whole import read_predictions


@dataclass(frozen=True)
class Answers:
    """What one trained model made of its N test images."""

    source: tuple[Any, ...]  # which images they are, beyond their labels
    labels: Int[np.ndarray, " N *K"]
    wrong: Bool[np.ndarray, " N"]

    def on_the_same_images(self, other: Answers) -> bool:
        """Whether both were given the same test images in the same order."""
        return self.source == other.source and np.array_equal(self.labels, other.labels)


@dataclass(frozen=True)
class ImageRow:
    """Two cells on the same N test images; everything is for `b` less `a`.

    `by_seed`: McNemar's exact test for each seed of both. `test`: over seeds and images (`harness.stats.crossed`), in
    percentage points, corrected for all rows tested together.
    """

    a: Cell
    b: Cell
    key: str  # in which they differ: a grid's key, "impl", or "run"
    by_seed: Mapping[int, Discordance]
    test: Difference

    @property
    def images(self) -> int:
        return next(iter(self.by_seed.values())).images

    @property
    def significant(self) -> bool:
        """Whether the difference is significant after the correction."""
        return self.test.adjusted_p is not None and self.test.adjusted_p < ALPHA

    def count(self, field: str) -> int:
        """The sum over seeds of `both`, `only_a` or `only_b`."""
        return sum(getattr(each, field) for each in self.by_seed.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "a": {"impl": self.a.impl, "params": self.a.params},
            "b": {"impl": self.b.impl, "params": self.b.params},
            "images": self.images,
            "by_seed": {str(seed): asdict(each) for seed, each in self.by_seed.items()},
            "significant": self.significant,
            **asdict(self.test),
        }


def answers_of(run_dir: Path, cells: Iterable[Cell]) -> dict[str, Answers]:
    """Trial id -> its predictions, of the trials that count and have stored some. Raises `Damaged`."""
    journal = Journal(run_dir)
    found: dict[str, Answers] = {}
    for cell in cells:
        for result in cell.counted:
            trial = journal.trial(result.id)
            for name, event in named_files(journal.events(trial.id)).items():
                path = journal.trial_dir(trial.id) / name
                if isinstance(event, ResultEvent) and name == event.predictions and path.exists():
                    predicted, labels = read_predictions(path, trial, event)
                    data = trial.data
                    source = (
                        data.test_from or data.name,
                        data.own,
                        data.resize,
                        data.fit,
                        data.crop,
                        trial.model.image,
                    )
                    found[trial.id] = Answers(source, labels, ~is_right(predicted, labels))
    return found


def between(cells: Sequence[Cell], answers: Mapping[str, Answers]) -> list[ImageRow]:
    """Every two cells that differ in one setting or in the implementation, as far as they saw the same images."""
    pairs = ((a, b, key) for a, b in itertools.combinations(cells, 2) for key in differing(a, b))
    return _corrected(_row(a, b, key, answers, answers) for a, b, key in pairs)


def across(
    pairs: Iterable[tuple[Cell, Cell]], answers_a: Mapping[str, Answers], answers_b: Mapping[str, Answers]
) -> list[ImageRow]:
    """The same cells of two runs."""
    return _corrected(_row(a, b, "run", answers_a, answers_b) for a, b in pairs)


def _row(
    a: Cell, b: Cell, key: str, answers_a: Mapping[str, Answers], answers_b: Mapping[str, Answers]
) -> ImageRow | None:
    of_a = {result.seed: answers_a[result.id] for result in a.counted if result.id in answers_a}
    of_b = {result.seed: answers_b[result.id] for result in b.counted if result.id in answers_b}
    seeds = sorted(of_a.keys() & of_b.keys())
    if not seeds or not all(of_a[seeds[0]].on_the_same_images(side[seed]) for side in (of_a, of_b) for seed in seeds):
        return None
    wrong_a, wrong_b = ([side[seed].wrong for seed in seeds] for side in (of_a, of_b))
    by_seed = {seed: discordance(x, y) for seed, x, y in zip(seeds, wrong_a, wrong_b, strict=True)}
    return ImageRow(a, b, key, by_seed, crossed(wrong_a, wrong_b, alpha=ALPHA))


def _corrected(found: Iterable[ImageRow | None]) -> list[ImageRow]:
    rows = [row for row in found if row]
    return [replace(row, test=test) for row, test in zip(rows, adjust([row.test for row in rows], ALPHA), strict=True)]
