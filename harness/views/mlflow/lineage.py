"""What a trial was made of and what came of it, in MLflow's own terms: data sets as inputs of its run, a model as output.

The weights stay in the run directory. The model in MLflow says whose and where they are, with their SHA-256; files are
only copied by a registration (`harness.views.mlflow.registration`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness import data
from harness.analysis import labels
from harness.data import own
from harness.errors import UserError
from harness.events import ResultEvent, TrialEvent
from harness.journal.results import Result
from harness.spec.trial import Trial
from harness.views.mlflow.trials import Row, tidy

_DIGEST_LENGTH = 36  # the most that MLflow takes
_PARTS = {"train": "training", "validation": "validation", "test": "test"}  # -> `mlflow.data.context`
_ON_TEST, _ON_VALIDATION = ("test_err_pct", "best_test_err_pct", "test_loss"), ("val_err_pct",)
_ABSENT = {"ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "NOT_IMPLEMENTED"}  # an MLflow 2 has no models of this kind


def digest(summary: Result) -> str | None:
    """The beginning of the SHA-256 of all images and labels that the trial used; None until they are loaded."""
    return summary.data_sha256 and summary.data_sha256[:_DIGEST_LENGTH]


def names(trial: Trial) -> dict[str, str]:
    """Part -> the data set's name in MLflow: {"train": "mnist train", ...}."""
    config = trial.data
    return {part: f"{(part == 'test' and config.test_from) or config.name} {part}" for part in _PARTS}


def inputs(trial: Trial, summary: Result) -> list[Any]:
    """The parts of the trial's data set, as MLflow's `DatasetInput`; none until they are loaded.

    Each says how many images of which shape it has, where they come from, and what is done to them in training.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    sha = digest(summary)
    if sha is None:
        return []
    kind, source = _source(trial)
    try:
        sizes = dict(zip(_PARTS, data.sizes(trial.data), strict=True))
    except UserError:  # of a data set that is not installed here
        sizes = dict[str, int]()
    found: list[Any] = []
    for part, name in names(trial).items():
        if sizes.get(part) == 0:
            continue
        facts = {"images": sizes.get(part), "shape": list(trial.model.image), "classes": trial.model.classes}
        tags = {
            "mlflow.data.context": _PARTS[part],
            "augmentation": _augmentation(trial) if part == "train" else None,
            "provenance": summary.data_provenance,
            "sha256": summary.data_sha256,
        }
        described = [InputTag(key, value[:500]) for key, value in tags.items() if value]
        made = Dataset(name, sha, kind, json.dumps(source), profile=json.dumps(facts))
        found.append(DatasetInput(made, described))
    return found


def _source(trial: Trial) -> tuple[str, dict[str, Any]]:
    """Where the images come from, as MLflow names it: a web address, a place on a disk, or code."""
    config = trial.data
    if config.name in own.FORMATS and config.path:
        return "local", {"uri": config.path}
    try:
        source = data.source(config.name)
        files = getattr(source, "files", None)
        if mirrors := getattr(files, "mirrors", ()):
            return "http", {"url": mirrors[0]}
        return "code", {"tags": {"source": source.info.source, "licence": source.info.licence}}
    except UserError:
        return "code", {"tags": {"source": config.name}}


def _augmentation(trial: Trial) -> str | None:
    """What is drawn anew for each image and epoch; None if nothing."""
    config, model = trial.data, trial.model
    try:
        shift = data.shift(config)
    except UserError:
        shift = config.augment.shift or 0
    said = [f"shifted by up to {shift} pixels each way"] if shift else []
    said += ["cut at a random place"] if config.crop and config.augment.crop == "random" else []
    said += [f"{model.overlaid} digits overlaid"] if model.overlaid > 1 else []
    return "; ".join(said) or None


def model(trial: Trial, summary: Result, events: Sequence[TrialEvent]) -> dict[str, str] | None:
    """What the trial's model says of itself, as tags; None until the trial has finished."""
    result = next((event for event in reversed(events) if isinstance(event, ResultEvent)), None)
    if summary.status != "finished" or result is None:
        return None
    recorded = {name: result.files.get(name) for name in (result.weights, result.best_weights) if name and result.files}
    tags = {
        "capsbench.trial": trial.id,
        "capsbench.suite": trial.suite,
        "impl": trial.impl,
        "seed": trial.seed,
        "weights": f"trials/{trial.id}/{result.weights}",
        "best_weights": result.best_weights and f"trials/{trial.id}/{result.best_weights}",
        "parity": {None: "not checked", True: "good", False: "failed"}[summary.parity_ok],
        "flaw": summary.flaw,
        **{f"sha256.{name}": each["sha256"] for name, each in recorded.items() if each},
    }
    return tidy(tags)


class Models:
    """The models of one experiment's runs. `is_kept`: whether this MLflow knows models at all; an MLflow 2 does not."""

    def __init__(self, client: Any, experiment_id: str, is_kept: bool) -> None:
        self._client, self._experiment_id, self.is_kept = client, experiment_id, is_kept

    def record(self, run_id: str, trial: Trial, tags: Mapping[str, str], new: bool) -> str | None:
        """Makes the run's model, or brings it up to date; returns its id, or None if this MLflow has no models.

        `new`: the run was made a moment ago, so that it has none yet.
        """
        if not self.is_kept:
            return None
        try:
            known = [] if new else self._of(run_id)
            for other in known[1:]:
                self._client.delete_logged_model(other.model_id)
            if known:
                made = known[0]
                self._client.set_logged_model_tags(made.model_id, dict(tags))
            else:
                external = {"mlflow.model.isExternal": "true"}  # its files are not in MLflow
                name = re.sub(r"[^\w-]+", "-", labels.run_name(trial)).strip("-") or "trial"
                described = {**tags, **external, "capsbench.kind": "weights"}
                settings = {"impl": trial.impl, "seed": str(trial.seed), **{k: str(v) for k, v in trial.params.items()}}
                made = self._client.create_logged_model(
                    self._experiment_id, name, run_id, described, settings, trial.model.kind
                )
            if str(made.status) != "READY":
                self._client.finalize_logged_model(made.model_id, "READY")
            self._link(run_id, made.model_id, new)
            return str(made.model_id)
        except NotImplementedError:
            self.is_kept = False
        except Exception as error:
            if getattr(error, "error_code", None) not in _ABSENT:
                raise
            self.is_kept = False
        return None

    def drop(self, run_id: str) -> None:
        """Deletes the model of a run that is deleted; what was registered stays."""
        if self.is_kept:
            for each in self._of(run_id):
                self._client.delete_logged_model(each.model_id)

    def read(self, run_id: str, parts: Sequence[Any]) -> None:
        """Says which data the run read (see `inputs`); again is as good as once. An MLflow before 2.4 cannot be told."""
        try:
            self._client.log_inputs(run_id, parts)
        except Exception as error:
            if getattr(error, "error_code", None) not in _ABSENT:
                raise

    def _link(self, run_id: str, model_id: str, new: bool) -> None:
        """Makes the model the run's output; MLflow would keep that twice."""
        from mlflow.entities import LoggedModelOutput

        outputs = None if new else self._client.get_run(run_id).outputs
        if not outputs or model_id not in {each.model_id for each in outputs.model_outputs}:
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])

    def _of(self, run_id: str) -> list[Any]:
        wanted = f"source_run_id = '{run_id}' AND tags.`capsbench.kind` = 'weights'"
        return list(self._client.search_logged_models([self._experiment_id], wanted))


def ends(rows: Sequence[Row]) -> set[Row]:
    """The rows that a trial ends with."""
    return {row for row in rows if not row.key.startswith("epoch/")}


def metrics(rows: Sequence[Row], trial: Trial, summary: Result, model_id: str | None) -> list[Any]:
    """The rows as MLflow's metrics; what the trial ended with is also the model's, on the images that it was measured on."""
    from mlflow.entities import Metric

    sha, of, own = digest(summary), names(trial), ends(rows)
    found: list[Any] = []
    for row in rows:
        whose: dict[str, Any] = {}
        if model_id and row in own:
            part = "test" if row.key in _ON_TEST else "validation" if row.key in _ON_VALIDATION else None
            whose = {
                "model_id": model_id,
                **({"dataset_name": of[part], "dataset_digest": sha} if part and sha else {}),
            }
        found.append(Metric(row.key, row.value, row.time_ms, row.step, **whose))
    return found
