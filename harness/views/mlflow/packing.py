"""A trained model packed as MLflow's pyfunc, in a folder: weights, code, signature, example, requirements.

The folder is loaded in a process of its own and compared with the specification, before anybody gets it.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np

import harness
from harness import models, registry
from harness.errors import UserError
from harness.machine.surroundings import child_environment
from harness.models import probing
from harness.prediction import pyfunc
from harness.prediction.trained import Trained, some_images
from harness.views.mlflow.client import quiet_environment

_IMAGES = 16
_TOLERANCE = {"bf16": 3e-2}  # of a length in 0..1, by precision
_STRICT = 1e-4
_NOT_PACKED = {  # rooms that a prediction does without; `_checked` would find one that is missed
    "analysis", "commands", "demo", "diagnosis", "executors", "export", "faults", "jobs", "ordinary", "publishing", "search",
    "storage", "views", "worker", "__pycache__",
}  # fmt: skip
_CHECK = """\
import sys
import numpy as np
from mlflow.pyfunc import load_model
found = load_model(sys.argv[1]).predict(np.load(sys.argv[2]))
np.savez(sys.argv[3], **found)
"""


def packed(trained: Trained, impl: str, folder: Path, facts: Mapping[str, str]) -> float:
    """Writes the model, computed by `impl`, to `folder`; returns how far its lengths are from the specification's.

    `facts` go into the model's metadata. Raises `UserError` if it cannot be loaded, or does not answer as the specification
    does, on some test images of the trial's data set, or drawn ones.
    """
    os.environ.update(quiet_environment())
    save: Any = cast(Any, importlib.import_module("mlflow.pyfunc")).save_model
    scratch = folder.parent
    data, code = scratch / "data", scratch / "code"
    data.mkdir()
    pyfunc.pack(trained, impl, data)
    root = Path(harness.__file__).parent.parent
    for package in ("harness", "impls"):  # so that the model runs where capsbench is not installed
        shutil.copytree(root / package, code / package, ignore=_only_code)
    images = some_images(trained.model, trained.data, _IMAGES)[0]
    save(
        folder, loader_module=pyfunc.MODULE, data_path=str(data), code_paths=[str(code / "harness"), str(code / "impls")],
        signature=_signature(trained), input_example=images[:1], pip_requirements=requirements(impl),
        metadata={"capsbench": dict(facts)},
    )  # fmt: skip
    return _checked(trained, impl, images, folder, scratch)


def requirements(impl: str) -> list[str]:
    """What a model needs from PyPI: capsbench's own needs, NumPy first, and the framework's packages, as they are here."""
    needs = [re.split(r"[\s<>=!~\[;(]", each, maxsplit=1)[0] for each in registry.NEEDS]
    found = [*needs, *registry.resolve(impl).distributions]
    known = {name: version.partition("+")[0] for name in found if (version := _version(name))}  # PyPI has no 2.13.0+cpu
    pinned = {name.lower(): f"{name}=={version}" for name, version in known.items()}
    return [f"mlflow=={_version('mlflow')}", *pinned.values()]


def sign(folder: Path, model_id: str, run_id: str, location: str) -> None:
    """Writes into the model whose it is, as MLflow does for models that it logs itself."""
    from mlflow.models import Model

    path = folder / "MLmodel"
    model: Any = cast(Any, Model).load(str(path))
    model.model_id, model.model_uuid, model.run_id, model.artifact_path = model_id, model_id, run_id, location
    model.save(str(path))


def _signature(trained: Trained) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    model = trained.model
    several = (model.overlaid,) if model.overlaid > 1 else ()
    capsules = models.of(model)
    outputs = [
        TensorSpec(np.dtype(np.float32), (-1, model.classes), "lengths" if capsules.has_capsules else "probabilities"),
        TensorSpec(np.dtype(np.int64), (-1, *several), "class"),
    ]
    if capsules.output_shapes(model, 1).get("reconstruction"):
        outputs.append(TensorSpec(np.dtype(np.float32), (-1, *several, *model.image), "reconstruction"))
    return ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, *model.image))]), Schema(outputs))  # pyright: ignore


def _checked(trained: Trained, impl: str, images: np.ndarray, folder: Path, scratch: Path) -> float:
    """The largest difference of a length, over the images, between the packed model and the specification."""
    given, answers = scratch / "images.npy", scratch / "answers.npz"
    np.save(given, images)
    env = child_environment(os.environ, keep=("MLFLOW_",)) | quiet_environment() | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", "-c", _CHECK, str(folder), str(given), str(answers)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=scratch)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise UserError(f"--register: {_who(trained, impl)} cannot be served: {lines[-1][:300]}")
    with np.load(answers) as found:
        scores = found["lengths" if models.of(trained.model).has_capsules else "probabilities"]
    shown = np.zeros((len(images), *trained.model.several, *trained.model.image), np.uint8)
    (shown if trained.model.overlaid == 1 else shown[:, 0])[:] = images
    expected = probing.specification(trained.model, trained.weights).forward(shown).lengths
    error = float(np.abs(scores - expected).max())
    if not error <= _TOLERANCE.get(trained.precision, _STRICT):
        raise UserError(
            f"--register: {_who(trained, impl)} does not answer as the specification does: lengths differ "
            f"by up to {error:.1e} on {len(images)} images, {_TOLERANCE.get(trained.precision, _STRICT):g} is allowed"
        )
    return error


def _who(trained: Trained, impl: str) -> str:
    return f"trial {trained.facts.get('trial')} in {impl}"


def _only_code(folder: str, names: Sequence[str]) -> list[str]:
    """What of a package is not copied: other rooms, caches, and whatever is no code."""
    inside = Path(folder)
    return [each for each in names if each in _NOT_PACKED or not (each.endswith(".py") or (inside / each).is_dir())]


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None
