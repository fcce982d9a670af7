"""Trained models in MLflow's registry: a trial's weights as a pyfunc that answers, with everything said about it.

Each registered model has a version for each implementation, under an alias of its name. Files come from `packing`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import __version__, models
from harness.analysis.labels import spoken
from harness.errors import UserError
from harness.journal.results import Result
from harness.prediction.trained import Trained
from harness.text import number
from harness.views.mlflow import database
from harness.views.mlflow.client import connect, reason
from harness.views.mlflow.packing import packed, sign
from harness.views.mlflow.where import Where, is_folder, redact
from harness.weights import digest

_BAD_NAME = re.compile(r"[/:%'\"\\]|[\x00-\x1f\x7f]")
_MOST = 200  # characters of a name
_SUITE, _SHAPE = "capsbench.suite", "capsbench.shape"
_UNKNOWN = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True)
class Chosen:
    """A trial that is to be registered: its weights ("best", "last" or an epoch), and what is to compute with them."""

    result: Result
    trained: Trained
    weights: str
    impl: str
    why: str  # why this trial


@dataclass(frozen=True)
class Registered:
    """A version in the registry. `max_error`: the largest difference of a length to the specification; `is_new`: made now."""

    name: str
    version: str
    alias: str
    trial: str
    trained_by: str
    computes: str
    weights: str
    test_err_pct: float | None
    max_error: float | None
    why: str
    is_new: bool

    @property
    def uri(self) -> str:
        """What `mlflow models serve -m` takes."""
        return f"models:/{self.name}@{self.alias}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "uri": self.uri}


def default_name(suite: str) -> str:
    """The registered model of a suite, if no other name is given."""
    return f"capsbench-{_BAD_NAME.sub('-', suite)}"[:_MOST]


def require_name(name: str) -> None:
    """Raises `UserError` for what cannot be a registered model's name."""
    if not name.strip() or name != name.strip() or _BAD_NAME.search(name) or name in (".", ".."):
        raise UserError(
            f'--register "{name}": a model\'s name has no / : % \' " \\, and neither begins nor ends with a space; '
            f"such as {default_name('mnist')}"
        )
    if len(name) > _MOST:
        raise UserError(f"--register: a name of {len(name)} characters; at most {_MOST}")


def require_free(where: Where, out: Path, name: str) -> None:
    """Raises `UserError` if there is no registry at this MLflow, or if the name is that of somebody else's model."""
    if is_folder(where.uri):
        raise UserError(
            f"--register: MLflow at {where} is a folder, which is no registry of models: --mlflow-uri names a database, such "
            "as sqlite:////folder/mlflow.db, or a server"
        )
    if (path := database.path_of(where.uri)) and not path.exists():
        return
    try:
        known = _there(connect(where.uri, out), name)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"--register: MLflow at {where} has no registry of models that can be used: {reason(error, where.uri)}"
        ) from error
    if known is not None and _SUITE not in known.tags:
        raise UserError(
            f'--register {name}: the registry has a model "{name}" that is not of capsbench; choose another name: '
            "--register NAME"
        )


def register(
    chosen: Chosen, name: str, run_id: str, experiment_id: str, where: Where, out: Path, run_dir: str
) -> Registered:
    """Makes a version of the registered model `name`, unless there is one of the same weights already.

    Args:
        run_id: the trial's run in MLflow.
        run_dir: where the run directory is, to be told.

    Raises `UserError` if the model does not load or does not answer as the specification does, and if MLflow refuses it.
    """
    trained = chosen.trained
    try:
        client = connect(where.uri, out)
        known = _there(client, name)
        _require_alike(known, name, trained)
        tags = _tags(chosen, run_dir)
        alias = alias_of(chosen)
        if (version := _same(client, name, run_id, tags) if known else None) is not None:
            client.set_registered_model_alias(name, alias, version.version)
            error = version.tags.get("max_error")
            return _told(chosen, name, str(version.version), alias, float(error) if error else None, is_new=False)
        with tempfile.TemporaryDirectory(prefix="capsbench-register-") as scratch:
            folder = Path(scratch) / "model"
            error = packed(trained, chosen.impl, folder, tags)
            tags |= {"max_error": f"{error:.1e}"}
            title, described = re.sub(r"[^\w-]+", "-", f"{name}-{alias}"), {**tags, "capsbench.kind": "pyfunc"}
            made = client.create_logged_model(experiment_id, title, run_id, described, {}, "pyfunc")
            try:
                sign(folder, made.model_id, run_id, made.artifact_location)
                client.log_model_artifacts(made.model_id, str(folder))
            except BaseException:  # half a model would stay there as a pending one
                with suppress(Exception):
                    client.delete_logged_model(made.model_id)
                raise
            client.finalize_logged_model(made.model_id, "READY")
            from mlflow.entities import LoggedModelOutput

            client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
        if known is None:
            client.create_registered_model(name, {_SUITE: tags[_SUITE], _SHAPE: _shape(trained)}, _about(trained))
        version = client.create_model_version(
            name, made.artifact_location, run_id, tags, description=_described(chosen), model_id=made.model_id
        )
        versions = json.dumps([{"name": name, "version": str(version.version)}])
        client.set_logged_model_tags(made.model_id, {"mlflow.modelVersions": versions})  # a server does that by itself
        client.set_registered_model_alias(name, alias, version.version)
        return _told(chosen, name, str(version.version), alias, error, is_new=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--register: MLflow at {where} did not take the model: {reason(error, where.uri)}") from error


def alias_of(chosen: Chosen) -> str:
    """The alias of these versions: "torch"; "torch-in-numpy" where another implementation computes."""
    trained_by, computes = chosen.result.impl, chosen.impl
    name = trained_by if trained_by == computes else f"{trained_by}-in-{computes}"
    found = re.sub(r"[^\w-]+", "-", name).strip("-")[:_MOST] or "model"
    return f"impl-{found}" if re.fullmatch(r"latest|v\d+", found, re.IGNORECASE) else found


def _there(client: Any, name: str) -> Any:
    try:
        return client.get_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", None) == _UNKNOWN:
            return None
        raise


def _require_alike(known: Any, name: str, trained: Trained) -> None:
    if known is None:
        return
    if _SUITE not in known.tags:
        raise UserError(
            f'--register {name}: the registry has a model "{name}" that is not of capsbench; choose another name'
        )
    if (there := known.tags.get(_SHAPE)) != _shape(trained):
        raise UserError(
            f'--register {name}: the versions of "{name}" take {there}, and this model takes {_shape(trained)}: whoever uses '
            "them would fail. Choose another name: --register NAME"
        )


def _shape(trained: Trained) -> str:
    model = trained.model
    return f"images {'x'.join(map(str, model.image))}, {model.classes} classes, {model.kind}" + (
        f", {model.overlaid} overlaid" if model.overlaid > 1 else ""
    )


def _same(client: Any, name: str, run_id: str, tags: Mapping[str, str]) -> Any:
    """The version of this run with these weights and this implementation; None if there is none."""
    wanted = {key: tags[key] for key in ("capsbench.trial", "weights_sha256", "computes", "capsbench.version")}
    quoted = name.replace("'", "''")
    found = client.search_model_versions(f"name = '{quoted}'", max_results=1000)
    own = (each for each in found if each.run_id == run_id and each.status == "READY")
    return next((each for each in own if wanted.items() <= dict(each.tags).items()), None)


def _tags(chosen: Chosen, run_dir: str) -> dict[str, str]:
    result, trained = chosen.result, chosen.trained
    best = chosen.weights == "best"
    known: dict[str, Any] = {
        "capsbench.version": __version__,
        _SUITE: trained.facts.get("suite"),
        "capsbench.trial": result.id,
        "capsbench.run_dir": run_dir or None,
        "trained_by": result.impl,
        "computes": chosen.impl,
        "seed": result.seed,
        "weights": chosen.weights,
        "weights_sha256": digest(trained.weights),
        "epoch": result.best_epoch if best else result.epochs_trained if chosen.weights == "last" else chosen.weights,
        "parity": {None: "not checked", True: "good", False: "failed"}[result.parity_ok],
        "parity_max_rel_err": result.parity_max_rel_err,
        "test_err_pct": tested_pct(result, chosen.weights),
        "val_err_pct": validated_pct(result, chosen.weights),
        "data": trained.data and trained.data.name,
        "data_sha256": result.data_sha256,
        "chosen": chosen.why,
    }
    return {key: str(value) for key, value in known.items() if value is not None}


def tested_pct(result: Result, weights: str) -> float | None:
    """In percent, of these weights; None of an epoch's, which nobody has tested."""
    return {"best": result.best_test_err_pct, "last": result.test_err_pct}.get(weights)


def validated_pct(result: Result, weights: str) -> float | None:
    """In percent, of these weights."""
    wanted = result.best_epoch if weights == "best" else result.epochs_trained if weights == "last" else int(weights)
    return next((each.get("val_err_pct") for each in result.epochs if each.get("epoch") == wanted), None)


def _told(chosen: Chosen, name: str, version: str, alias: str, error: float | None, *, is_new: bool) -> Registered:
    result = chosen.result
    return Registered(
        name, version, alias, result.id, result.impl, chosen.impl, chosen.weights, tested_pct(result, chosen.weights),
        error, chosen.why, is_new,
    )  # fmt: skip


def _about(trained: Trained) -> str:
    """The registered model's description."""
    has = models.of(trained.model).has_capsules
    return (
        f"Models of capsbench. Input: images (N, {', '.join(map(str, trained.model.image))}), values 0 to 255. Output: "
        f"`{'lengths' if has else 'probabilities'}`, `class` and, with a decoder, `reconstruction`. Each implementation's "
        "version has an alias of its name."
    )


def _described(chosen: Chosen) -> str:
    """The version's description: what it is, what computes, how good."""
    result, error = chosen.result, tested_pct(chosen.result, chosen.weights)
    parity = {None: "not checked", True: "good", False: "failed"}[result.parity_ok]
    return (
        f"Trial {result.id} of suite {chosen.trained.facts.get('suite')}, seed {result.seed}: trained by "
        f"{spoken(result.impl)}, computed by {spoken(chosen.impl)}; {chosen.weights} weights, {chosen.why}. "
        f"Test error {number(error)}%. Parity: {parity}."
    )


def serve_command(found: Registered, where: Where) -> str:
    """What serves this version on this machine, in a shell; a password in the address has to be put in again."""
    here = Path(sys.executable).parent
    told = [
        f"MLFLOW_TRACKING_URI={shlex.quote(redact(where.uri))}",
        "mlflow models serve",
        "-m",
        shlex.quote(found.uri),
    ]
    if shutil.which("mlflow") is None and (here / "mlflow").exists():  # and what it starts is there, too
        told.insert(0, f"PATH={shlex.quote(str(here))}:$PATH")
    return " ".join([*told, "--env-manager local --port 5001"])
