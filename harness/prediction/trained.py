"""The trained model that predicts: from a run's trial, or from a file of weights alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8
from pydantic import ValidationError

from harness import data, models, registry
from harness.data import own
from harness.data.base import Info, PartialSource, Split
from harness.data.divide import test_images
from harness.data.frame import framed, in_words, is_framed, is_random
from harness.data.overlay import composite
from harness.environments.interpreters import not_here
from harness.errors import UserError, nearest
from harness.journal.journal import Journal
from harness.journal.kept import choose, find_trial, read
from harness.journal.results import named_files, summarise
from harness.parity.inputs import drawn
from harness.prediction.fitting import Framing
from harness.spec import ModelSpec, Weights
from harness.spec.trial import DataConfig, Interpreter, Trial
from harness.weights import weight_table
from harness.weights.files import FIRST, load_weights, read_facts
from harness.weights.whole import misfits, not_finite, read_header

_FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Trained:
    """A model with its weights, checked, and what is known of both."""

    model: ModelSpec
    weights: Weights = field(repr=False)
    path: Path  # of the weights
    facts: dict[str, Any]  # from the header of the file: suite, trial, epoch, ...
    data: DataConfig | None  # what it was trained on; None if unknown
    impl: str | None = None  # what trained it
    precision: str = "fp32"
    doubts: tuple[str, ...] = ()
    interpreter: Interpreter | None = None  # the Python that it was trained in, if not the bench's own

    @property
    def class_names(self) -> tuple[str, ...]:
        """The data set's names of the classes; their numbers if it is unknown here."""
        told: Any = self.facts.get("classes") or (self._about.class_names if self._about else ())
        names = tuple(map(str, told))
        return names if len(names) == self.model.classes else tuple(map(str, range(self.model.classes)))

    @property
    def framing(self) -> Framing | None:
        """What was done to the data set's images to make them the model's; None if nothing, or if that is unknown here."""
        config, about = self.data, self._about
        if config is None or about is None:
            return None
        resized, canvas = config.resize is not None, config.canvas is not None
        # of own pictures, only the framed size is known, unless they were kept whole
        scaled = is_framed(config) and (resized or not about.is_framed or is_random(config))
        if not (scaled or canvas):
            return None
        said = [in_words(config).removeprefix(", ")] if scaled else []
        said += [f"centred on black, {self.model.image[0]}x{self.model.image[1]}"] if canvas else []

        def apply(pixels: UInt8[np.ndarray, "h w C"]) -> UInt8[np.ndarray, "H W C"]:
            return centred((framed(pixels[None], config) if scaled else pixels[None]), self.model.image)[0]

        return Framing(None if resized else about.image[:2], apply, ", ".join(said))

    @property
    def _about(self) -> data.Info | None:
        """The data set; None if it is unknown here."""
        try:
            return data.about(self.data) if self.data else None
        except UserError:
            return None

    def described(self) -> dict[str, Any]:
        """The entry "model" of `predict --json`."""
        told = {key: self.facts.get(key) for key in ("suite", "trial", "seed", "epoch")}
        trained = {"trained_by": self.impl, "data": self.data.name if self.data else None}
        return {"weights": str(self.path), "kind": self.model.kind, **told, **trained, "image": list(self.model.image)}


def centred(images: UInt8[np.ndarray, "N h w C"], image: tuple[int, int, int]) -> UInt8[np.ndarray, "N H W C"]:
    """The images in the middle of black ones; if that is between two pixels, above and left of it."""
    margins = [(whole - part) // 2 for whole, part in zip(image[:2], images.shape[1:3], strict=True)]
    after = [whole - part - before for whole, part, before in zip(image[:2], images.shape[1:3], margins, strict=True)]
    return np.pad(images, [(0, 0), *zip(margins, after, strict=True), (0, 0)])


def of_trial(run_dir: Path, trial_id: str, which: str) -> Trained:
    """A trial of a run with its "last" or "best" weights, or those of an epoch.

    Raises `UserError` if there is no such trial, if it has no such weights (yet), or if their file is damaged.
    """
    trial = find_trial(run_dir, trial_id)
    journal = Journal(run_dir)
    path, event = choose(journal, trial, which)
    return _of(trial, read(path, trial, event), path, summarise(trial, journal.events(trial.id)).flaw)


def of_file(path: Path) -> Trained:
    """A file of weights as `capsbench run` writes them: its header says which model they are of.

    In a run's directory, the file is also checked against the SHA-256 in the journal. Raises `UserError` if it is
    damaged, or not such a file.
    """
    folder = path.absolute().parent
    if (folder / "trial.json").is_file() and folder.parent.name == "trials":
        journal = Journal(folder.parent.parent)
        trial, events = journal.trial(folder.name), journal.events(folder.name)
        if event := named_files(events).get(path.name):
            return _of(trial, read(path, trial, event), path, summarise(trial, events).flaw)
    try:
        facts, tensors = read_header(path)
    except ValueError as error:
        raise UserError(f"--weights {path}: {error}") from error
    model = _model(path, facts, [*tensors])
    expected = {row.name: row.shape for row in weight_table(model)}
    wrong = misfits(tensors, expected, _FLOATS)
    weights = load_weights(path) if not wrong else {}
    if wrong := wrong or not_finite(weights):
        raise UserError(f"--weights {path}: not the weights of the model in its header: {'; '.join(wrong[:3])}")
    known = facts.get("data")
    config = DataConfig(name=known) if isinstance(known, str) else None
    precision = "fp64" if any(array.dtype == np.float64 for array in weights.values()) else "fp32"
    return Trained(model, weights, path, facts, config, facts.get("impl"), precision)


def _of(trial: Trial, weights: Weights, path: Path, flaw: str | None) -> Trained:
    facts = trial.facts() | {key: value for key, value in read_facts(path).items() if key != "model"}
    doubts = (f"{trial.impl}: {flaw}; these weights may predict something else in another implementation",)
    return Trained(
        trial.model, weights, path, facts, trial.data, trial.impl, trial.runtime.precision, doubts if flaw else (),
        trial.interpreter,
    )  # fmt: skip


def _model(path: Path, facts: dict[str, Any], tensors: Sequence[str]) -> ModelSpec:
    told = facts.get("model")
    if isinstance(told, dict):
        try:
            return ModelSpec.model_validate_json(json.dumps(cast("dict[str, Any]", told)))
        except ValidationError as error:
            what = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:2])
            raise UserError(f"--weights {path}: its header describes no model: {what}") from error
    if any(name.startswith(FIRST) for name in tensors):
        raise UserError(f"--weights {path}: a checkpoint, to resume from; give weights.safetensors beside it")
    raise UserError(
        f"--weights {path}: its header does not say which model these weights are of, as files of `capsbench run` do; "
        "give RUN TRIAL instead"
    )


def implementation(trained: Trained, wanted: str | None) -> tuple[registry.Entry, str | None]:
    """What computes the predictions: the one that is `wanted`, else the one that trained, else the first that can.

    The second value says why it is not the one that trained. Raises `UserError` if the one that is wanted cannot.
    """
    kind = trained.model.kind
    if wanted is not None:
        entry = registry.resolve(wanted)
        if reason := not_here(wanted) or registry.missing(entry) or models.lacking(kind, entry.base):
            able = [name for name in registry.names() if _reason(name, kind) is None]
            raise UserError(f"--impl {wanted}: {reason}. Here: {', '.join(able)}")
        return entry, None
    own = trained.impl
    reason = _reason(own, kind) if own else None
    if own and reason is None:
        return registry.resolve(own), None
    able = [name for name in (*registry.FRAMEWORKS, registry.SPECIFICATION) if _reason(name, kind) is None]
    if not able:
        raise UserError(f"nothing here computes a model of kind {kind}: {_reason(registry.SPECIFICATION, kind)}")
    return registry.resolve(able[0]), f"trained by {own}, which is not here ({reason})" if own else None


def _reason(name: str, kind: str) -> str | None:
    """Why an implementation cannot compute a kind of model here; None if it can."""
    try:
        entry = registry.resolve(name)
        return not_here(name) or registry.missing(entry) or models.lacking(kind, entry.base)
    except UserError as error:
        return str(error)


def test_part(config: DataConfig, count: int) -> tuple[Info, Split]:
    """What a data set is, and up to `count` of its test images. Raises `UserError` if they are not here."""
    directory = data.data_dir(config.dir)
    if config.name in own.FORMATS:
        about, part = data.about(config), own.read(config, directory)[1]
    else:
        source = data.source(config.test_from or config.name)
        about = source.info
        part = source.read_test(directory) if isinstance(source, PartialSource) else source.read(directory)[1]
    return about, test_images(about, config.model_copy(update={"test": count}), part)


def real_images(
    model: ModelSpec, config: DataConfig | None, count: int
) -> tuple[UInt8[np.ndarray, "N H W C"], str] | None:
    """Up to `count` test images of a data set as the network sees them, and whose they are; None if they are not here."""
    if config is None:
        return None
    try:
        about, part = test_part(config, count)
        images = composite(part.images)
    except UserError:
        return None
    fits = images.shape[1:] == model.image
    return (images, f"{about.name}, test images") if fits else None


def some_images(model: ModelSpec, config: DataConfig | None, count: int) -> tuple[UInt8[np.ndarray, "N H W C"], str]:
    """As `real_images`; drawn ones if there are none here."""
    return real_images(model, config, count) or (drawn(model)[0][:count], "drawn images: the data set is not here")


def requested(words: Sequence[str], weights: str) -> tuple[Trained, list[Path]]:
    """The model and the pictures of `predict RUN TRIAL FILE...`, or of `predict --weights FILE.safetensors FILE...`.

    Raises `UserError`.
    """
    if weights in ("best", "last") or weights.isdigit():
        if len(words) < 3:
            given = f"found {len(words)}: {' '.join(words)}" if words else "found nothing"
            raise UserError(f"predict: expected RUN TRIAL FILE..., or --weights W.safetensors FILE...; {given}")
        return of_trial(Path(words[0]), words[1], weights), [Path(word) for word in words[2:]]
    path = Path(weights)
    if not path.is_file():
        hint = nearest(weights, ("best", "last")).partition(" Valid")[0]
        raise UserError(f"--weights {weights}: no such file{hint} Expected best, last, an epoch, or a safetensors file")
    if not words:
        raise UserError("predict: which pictures? Expected --weights W.safetensors FILE...")
    if os.path.isfile(os.path.join(words[0], "plan.json")):  # noqa: PTH113, PTH118 - which never raise
        raise UserError(
            f"--weights {weights}: a file of weights stands in place of RUN TRIAL; drop {' '.join(words[:2])}, or give "
            "--weights best, last or an epoch"
        )
    return of_file(path), [Path(word) for word in words]
