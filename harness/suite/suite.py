"""A suite: a YAML file, read strictly, merged with --quick and -s overrides, expanded into trials.

Reading collects every problem with the request before it refuses; until then nothing is started, imported or fetched.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError

from harness import data as datasets
from harness import models, registry
from harness.errors import UserError
from harness.machine.surroundings import kept
from harness.models import contract
from harness.search.config import SearchConfig
from harness.spec.model import ModelSpec
from harness.spec.trial import Augment, DataConfig, Stop, TrainConfig, Trial
from harness.suite import identity, searching, shipped
from harness.suite.draft import Draft, attributed
from harness.suite.file import SHOWN, STDIN, read_text
from harness.suite.keys import AXES, VARIABLES, Sections, known
from harness.suite.start import start_sha256
from harness.suite.unused import idle_keys, misplaced, without_idle
from harness.suite.yaml import Problems, parse_mapping

MAX_TRIALS = 10_000


class Suite(Sections):
    """A validated suite with its overrides applied. A key that the grid varies has its first value in its section."""

    grid: dict[str, tuple[Any, ...]]  # always has impl and seed
    search: SearchConfig | None = None  # then each point of the grid is a contestant: see `harness.suite.searching`
    path: str
    source: str  # the file's text
    overrides: tuple[str, ...] = ()
    quick: bool = False
    _data: dict[str, DataConfig | UserError] = PrivateAttr(default_factory=dict[str, DataConfig | UserError])
    _cells: list[Cell] | None = PrivateAttr(default=None)

    def resolved(self, config: DataConfig) -> DataConfig | UserError:
        """`config` with what was found in one's own files, which are read once; or what is wrong with them."""
        key = config.model_dump_json()
        if key not in self._data:
            try:
                self._data[key] = datasets.resolved(config)
            except UserError as error:
                self._data[key] = _beside_suite(error, config, Path(self.path).parent)
        return self._data[key]

    def trials(self, gpus_available: int, fingerprint: Callable[[str], Mapping[str, Any]]) -> tuple[Trial, ...]:
        """The expanded grid: all combinations, or with `vary: singly` those that differ from the first in one key.

        Seeds vary slowest, implementations fastest, and other keys in between as written. So the implementations of one
        configuration run one after the other, under similar conditions, and a full comparison is ready once the first
        seed is done.

        Args:
            gpus_available: GPUs of the whole cluster; decides what `gpus: auto` means.
            fingerprint: implementation name -> the facts of its environment that can change a result.

        Raises:
            UserError: trials need more GPUs than there are, or two trials are the same.
        """
        facts = {impl: fingerprint(impl) for impl in self.grid["impl"]}
        trials: dict[str, Trial] = {}
        problems = Problems()
        sources = identity.Sources()
        first = [(cell, cell.trial(self.gpus(cell, gpus_available, problems))) for cell in self.cells()]
        documents = [trial.model_dump(mode="json") for _, trial in first]
        for seed in self.grid["seed"]:
            for (cell, trial), document in zip(first, documents, strict=True):
                identifier = identity.trial_id({**document, "seed": seed}, cell.entry, facts[trial.impl], sources)
                if identifier in trials:
                    choice = {"seed": seed, **cell.choice}
                    problems.add(
                        self.path, "grid", f"{choice} repeats {trials[identifier].params}; drop one of the two"
                    )
                trials[identifier] = trial.model_copy(update={"id": identifier, "seed": seed})
        problems.raise_any()
        return tuple(trials.values())

    def cells(self) -> list[Cell]:
        """The points of the grid but for the seeds, each with every implementation, which vary fastest."""
        if self._cells is None:
            self._cells = self._expanded()
        return self._cells

    def _expanded(self) -> list[Cell]:
        between = [key for key in self.grid if key not in AXES]
        fixed = self._fixed()
        entries = {name: registry.resolve(name) for name in self.grid["impl"]}
        cells: list[Cell] = []
        for point, sections in _distinct(_points({key: self.grid[key] for key in between}, self.vary), fixed):
            sections, unread = self._with_data(sections)
            cells += [Cell({**point, "impl": impl}, sections, entries[impl], unread) for impl in self.grid["impl"]]
        return cells

    def proposed(self, cell: Cell, values: Mapping[str, Any]) -> Cell:
        """The cell with the values of a search; its choice has those of them that are not idle there."""
        point = {**{key: value for key, value in cell.choice.items() if key not in AXES}, **values}
        [(own, sections)] = _distinct([point], self._fixed())
        sections, unread = self._with_data(sections)
        return Cell({**own, "impl": cell.choice["impl"]}, sections, cell.entry, unread)

    def _fixed(self) -> dict[str, Any]:
        fixed = self.model_dump(include=set(Sections.model_fields))
        fixed["data"]["own"] = None
        return fixed

    def _with_data(self, sections: Sections) -> tuple[Sections, UserError | None]:
        """The sections with what was found in one's own files, or what is wrong with these."""
        found = self.resolved(sections.data)
        if isinstance(found, UserError):
            return sections, found
        return sections.model_copy(update={"data": found}), None

    def gpus(self, cell: Cell, available: int, problems: Problems) -> int:
        """How many GPUs a trial of the cell gets."""
        asked = cell.sections.resources.gpus
        gpus = min(available, int("gpu" in cell.entry.devices)) if asked == "auto" else asked
        if gpus > available:
            problems.add(
                self.path,
                "resources.gpus",
                f"found {gpus} for each trial, but there are {available}; use auto, or add GPUs",
            )
        gpu_type = cell.sections.resources.gpu_type
        if gpu_type and not available and "gpu" in cell.entry.devices:
            problems.add(
                self.path, "resources.gpu_type", f"found {gpu_type}, but there is no GPU; add one, or drop the key"
            )
        return gpus


def load_suite(path: str | Path, overrides: Sequence[str] = (), quick: bool = False) -> Suite:
    """Reads the suite at `path`, or the shipped one of that name; applies its `quick` if asked for, then `overrides`.

    An override is "key=value". Raises `UserError` with every problem found, one per line: place, key, what was found,
    what was expected.
    """
    path = shipped.locate(Path(path))
    problems = Problems()
    source = read_text(path)
    path = SHOWN if path == STDIN else path
    root = parse_mapping(source, path, problems)

    as_written = Draft.of_file(root, problems)
    as_quick = as_written.with_quick(root)
    as_written.check()
    as_quick.check()  # even without --quick: a file is valid or invalid as a whole
    draft = (as_quick if quick else as_written).with_overrides(overrides)
    values, grid = draft.check()

    for key in ("name", "data.name"):
        if draft.place(key) is None:
            problems.add(str(path), key, f"missing; expected {known().all[key].expected}")
    if "impl" not in grid:
        problems.add(
            str(path),
            "grid.impl",
            f"missing; expected a list of implementations, such as [{', '.join(registry.FRAMEWORKS)}]",
        )
    lengths = {key: len(choices) for key, choices in grid.items()}
    combinations = math.prod(lengths.pop(axis, 1) for axis in AXES)
    if values.get("vary") == "singly":
        combinations *= 1 + sum(length - 1 for length in lengths.values())
    else:
        combinations *= math.prod(lengths.values())
    if combinations > MAX_TRIALS:
        problems.add(str(path), "grid", f"{combinations:,} trials; at most {MAX_TRIALS:,} are allowed")
    problems.raise_any()
    searching.check_alone(draft, values, grid, str(path))
    problems.raise_any()

    variables = kept()  # the shell's, as if they stood in the suite
    values[VARIABLES] = variables | values.get(VARIABLES, {})
    if VARIABLES in grid:
        grid[VARIABLES] = tuple(variables | each for each in grid[VARIABLES])
    first = {key: choices[0] for key, choices in grid.items() if key in known().section}
    suite = Suite.model_validate(
        {
            **_nest({**values, **first}, {}),
            "grid": {"seed": (0,), **grid},
            "path": str(path),
            "source": source,
            "overrides": tuple(overrides),
            "quick": quick,
        }
    )
    cells = suite.cells()
    if suite.search:
        conflicts, tried = searching.check_cells(suite)
    else:
        conflicts, tried = (conflict for cell in cells for conflict in cell.conflicts()), cells
    for key, message in itertools.chain(misplaced(draft, [cell.sections for cell in tried]), conflicts):
        problems.add(draft.place(key) or str(path), draft.written(key), message)
    problems.raise_any()
    found = suite.resolved(suite.data)
    return suite.model_copy(update={"data": found}) if isinstance(found, DataConfig) else suite


@dataclass(frozen=True)
class Cell:
    """One point of the grid but for its seed; `unread` is what is wrong with its data, if they cannot be used."""

    choice: dict[str, Any]
    sections: Sections
    entry: registry.Entry
    unread: UserError | None = None

    @cached_property
    def model(self) -> ModelSpec:
        """The model for its data set. Raises `ValidationError` if they do not fit, `UserError` for a bad canvas."""
        return datasets.model(self.sections.data, self.sections.model)

    def trial(self, gpus: int) -> Trial:
        """The trial, without its id and seed."""
        sections = self.sections
        return Trial(
            id="",
            suite=sections.name,
            impl=self.choice["impl"],
            seed=0,
            params={key: value for key, value in self.choice.items() if key not in AXES},
            data=sections.data.model_copy(
                update={"augment": Augment(shift=datasets.shift(sections.data), crop=sections.data.augment.crop)}
            ),
            model=self.model,
            train=self.train(),
            runtime=sections.runtime,
            parity=sections.parity,
            measure=sections.measure,
            cpus=sections.resources.cpus,
            gpus=gpus,
            gpu_type=sections.resources.gpu_type if gpus else None,
            exclusive=sections.resources.exclusive,
            start_sha256=start_sha256(sections.train.start_from, self.model),
        )

    def train(self) -> TrainConfig:
        """The section, with the steps of an epoch filled in if the learning rate decays with each step."""
        train = self.sections.train
        if train.lr_decay.kind != "epoch":
            return train
        images, _, _ = datasets.sizes(self.sections.data)
        decay = train.lr_decay.model_copy(update={"steps": math.ceil(images / train.batch)})
        return train.model_copy(update={"lr_decay": decay})

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """(key, message) for settings that are valid alone but impossible together."""
        sections = self.sections
        if self.unread:
            yield attributed(self.unread, _culprit(sections.data, str(self.unread)))
            return
        try:
            train, validation, _ = datasets.sizes(sections.data)
        except UserError as error:
            yield attributed(error, "data.name")
        else:
            if sections.train.batch > train:
                yield "train.batch", f"found {sections.train.batch}, more than the {train:,} training images"
            yield from _stop_conflicts(sections.train.stop, validation)
            seen, part = (validation, "validation") if validation else (train, "training")
            if sections.measure.routing_logits > seen:
                yield (
                    "measure.routing_logits",
                    f"found {sections.measure.routing_logits}, more than the {seen:,} {part} images",
                )
        if sections.measure.routing_logits and not models.load(sections.model.kind).has_capsules:
            yield "measure.routing_logits", f"a model of kind {sections.model.kind} has no routing; expected 0"
        if self.entry.is_built_in and (lacking := models.lacking(sections.model.kind, self.entry.base)):
            yield "impl", lacking
        try:
            contract.require_tables(self.model)
            start_sha256(sections.train.start_from, self.model)
        except UserError as error:
            yield attributed(error, "data.canvas" if models.is_built_in(sections.model.kind) else "model.kind")
        except ValueError as error:
            for cause in error.errors() if isinstance(error, ValidationError) else ():
                yield attributed(UserError(cause["msg"].removeprefix("Value error, ")), "model.kernel")
        if sections.resources.gpus == 0 and sections.resources.gpu_type:
            yield (
                "resources.gpu_type",
                f"found {sections.resources.gpu_type}, but resources.gpus is 0; expected auto or 1",
            )
        if sections.resources.gpus not in ("auto", 0) and "gpu" not in self.entry.devices:
            yield (
                "resources.gpus",
                f'found {sections.resources.gpus}, but "{self.entry.name}" runs on the CPU only; expected auto or 0',
            )


def _culprit(data: DataConfig, said: str) -> str:
    """The key of the files that a message is about."""
    if data.path and data.test_path:
        theirs, ours = (str(Path(each).expanduser().absolute()) for each in (data.test_path, data.path))
        return "data.test_path" if said.startswith(theirs) and not ours.startswith(theirs) else "data.path"
    return "data.path" if data.path else "data.module" if data.module else "data.name"


def _beside_suite(error: UserError, config: DataConfig, folder: Path) -> UserError:
    """The error; if what was not found lies beside the suite, it says so."""
    for key in ("path", "test_path"):
        given = getattr(config, key)
        if given and not os.path.exists(os.path.expanduser(given)) and os.path.exists(folder / given):  # noqa: PTH110, PTH111
            said = "It lies beside the suite, but paths start at the working directory"
            return UserError(f"{str(error).rstrip('.')}. {said}: data.{key}: {folder / given}")
    return error


def _stop_conflicts(stop: Stop, validation: int) -> Iterator[tuple[str, str]]:
    if not validation and (stop.patience or stop.images == "validation"):
        key = "patience" if stop.patience else "accuracy_pct"
        yield f"train.stop.{key}", "there are no validation images to look at; set data.validation"
    if stop.on == "test" and stop.accuracy_pct is None:
        yield "train.stop.on", "found test, but no train.stop.accuracy_pct to reach on it (patience is on validation)"


def _points(varied: Mapping[str, Sequence[Any]], vary: str) -> Iterator[dict[str, Any]]:
    """The values of the grid's keys: every combination, or one key at a time around the first values."""
    if vary != "singly":
        for values in itertools.product(*varied.values()):
            yield dict(zip(varied, values, strict=True))
        return
    first = {key: values[0] for key, values in varied.items()}
    yield first
    for key, values in varied.items():
        yield from ({**first, key: value} for value in values[1:])


def _distinct(points: Iterable[dict[str, Any]], fixed: Mapping[str, Any]) -> list[tuple[dict[str, Any], Sections]]:
    """Each point without the settings that are idle there, and its configuration; duplicates are dropped."""
    found: dict[str, tuple[dict[str, Any], Sections]] = {}
    for point in points:
        sections = Sections.model_validate(_nest(point, fixed))
        idle = idle_keys(sections)
        own = {key: value for key, value in point.items() if key not in idle}
        found.setdefault(repr(own), (own, without_idle(sections)))
    return list(found.values())


def _nest(flat: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """{"train.batch": 64} -> {"train": {"batch": 64}}, over `base`, which stays as it is."""
    nested = dict(base)
    own: dict[str, dict[str, Any]] = {"": nested}  # dictionaries of the copy: the others are still those of `base`
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        _opened(section, own)[name] = value
    return nested


def _opened(section: str, own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if section not in own:
        outer, _, name = section.rpartition(".")
        around = _opened(outer, own)
        around[name] = own[section] = dict(around.get(name, {}))
    return own[section]
