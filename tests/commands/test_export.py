"""Exports: they load without this project, and predict what the specification predicts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.commands.export import export
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.kept import find_trial
from harness.parity import probe_weights
from harness.spec import ModelSpec
from harness.weights.files import load_weights, save_weights
from tests.helpers.event_helpers import event
from tests.helpers.impl_helpers import FRAMEWORKS, batch_of, build, small_model, start_tensorflow
from tests.helpers.run_helpers import SMALL, capsbench, write_suite

# What a user writes, in a process that cannot import this project: native weights, and the program that needs no code.
SCRIPTS = {
    "torch": """
import torch
from model import load
nchw = torch.tensor(pixels).permute(0, 3, 1, 2)
net = load()
assert set(net.state_dict()) == set(torch.load("weights.pt", weights_only=True))
scores, others = net(nchw)  # lengths and capsules, or probabilities and logits
program = torch.export.load("program.pt2").module()
arrays = dict(scores=scores, others=others, program=program(nchw)[0], one=program(nchw[:1])[0])
for digit in range(digits):
    predicted = scores.topk(digits).indices[:, digit]
    arrays[f"image{digit}"] = net.reconstruct(others, predicted).permute(0, 2, 3, 1)
arrays = {name: tensor.detach().numpy() for name, tensor in arrays.items()}
""",
    "tf": """
import tensorflow as tf
from model import load
net = load()
scores, others = net(pixels)
program = tf.saved_model.load("saved_model")
arrays = dict(scores=scores, others=others, program=program.serve(pixels)[0], one=program.serve(pixels[:1])[0])
for digit in range(digits):
    arrays[f"image{digit}"] = net.reconstruct(others, tf.math.top_k(scores, digits).indices[:, digit])
""",
    "jax": """
import jax, jax.export
import model as standalone
model, params = standalone.load()
scores, others = getattr(standalone, model["kind"])(model, params, pixels)  # capsnet or cnn
program = jax.export.deserialize(open("program.bin", "rb").read())
arrays = dict(scores=scores, others=others, program=program.call(pixels)[0], one=program.call(pixels[:1])[0])
for digit in range(digits):
    predicted = jax.lax.top_k(scores, digits)[1][:, digit]
    arrays[f"image{digit}"] = standalone.reconstruct(model, params, others, predicted)
""",
}
LOAD = """
import json, os, sys
import numpy as np
sys.modules["harness"] = sys.modules["impls"] = None  # importing them is an error
sys.path.insert(0, "")
script = sys.argv[1]
for folder in sys.argv[2:]:
    pixels = np.load(folder + ".npy")
    os.chdir(folder)
    model = json.load(open("config.json"))["model"]
    digits = model["overlaid"] if model["kind"] == "capsnet" else 0  # to reconstruct
    sys.modules.pop("model", None)
    exec(script)
    np.savez(folder + ".npz", **{name: np.asarray(array) for name, array in arrays.items()})
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three small trials, a CapsNet of each profile and a CNN, with the weights of both their epochs."""
    folder = tmp_path_factory.mktemp("run")
    suite = write_suite(
        folder,
        train={"epochs": 2, "keep_every": 1},
        parity={"gate": False},
        model=SMALL["model"] | {"cnn_channels": [3], "cnn_units": [5, 4]},
        grid={"impl": ["numpy"], "model.kind": ["capsnet", "cnn"], "model.profile": ["paper", "official"]},
    )
    done = capsbench(folder, "run", suite, "--executor", "inline", "--no-mlflow")
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "small"


def trial_ids(run_dir: Path) -> list[str]:
    return Journal(run_dir).trial_ids()


def with_several_digits(run_dir: Path, folder: Path) -> Path:
    """That run beside two trials of other images, which show two digits: a CapsNet and a CNN with all that it may have."""
    shutil.copytree(run_dir, folder)
    capsnet = small_model((8, 9, 1), kernel=3, overlaid=2, none_of_the_above=True)
    cnn = ModelSpec(
        kind="cnn",
        image=(9, 7, 2),
        classes=4,
        overlaid=2,
        cnn_channels=(5, 4),
        cnn_kernel=(3, 2),
        cnn_pool=2,
        cnn_units=(9,),
    )
    journal, trial = Journal(folder), find_trial(folder, trial_ids(folder)[0])
    for number, model in enumerate((capsnet, cnn)):
        other = trial.model_copy(update={"id": f"several{number}", "model": model})
        journal.trial_dir(other.id).mkdir()
        (journal.trial_dir(other.id) / "trial.json").write_text(other.model_dump_json())
        save_weights(journal.trial_dir(other.id) / "weights.safetensors", probe_weights(model, 3), other.facts())
        with journal.open():
            journal.append(other.id, event({"kind": "result", "weights": "weights.safetensors"}))
    return folder


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_export_loads_without_this_project(run_dir: Path, tmp_path: Path, framework: str) -> None:
    made = with_several_digits(run_dir, tmp_path / "run")
    trials = {id: find_trial(made, id) for id in trial_ids(made)}
    assert [(trial.model.kind, trial.model.overlaid) for trial in trials.values()] == [
        ("capsnet", 1),
        ("capsnet", 1),
        ("cnn", 1),
        ("capsnet", 2),
        ("cnn", 2),
    ]
    if framework == "tf":
        start_tensorflow()
    images: dict[str, np.ndarray] = {}
    for id, trial in trials.items():
        digits = np.stack([batch_of(trial.model, 3, seed)[0] for seed in range(trial.model.overlaid)], axis=1)
        images[id] = digits.reshape(3, *trial.model.several, *trial.model.image)
        np.save(tmp_path / f"{id}.npy", np.minimum(digits.astype(np.float32).sum(1), 255) / 255)
        exported = export(made, id, framework, out=tmp_path / id)
        assert sorted(exported.files) == sorted(path.name for path in (tmp_path / id).iterdir())
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, SCRIPTS[framework], *(tmp_path / id for id in trials)],
        cwd=tmp_path,
        env=outside | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

    for id, trial in trials.items():
        found = np.load(tmp_path / f"{id}.npz")
        specification = build("numpy", trial.model)
        specification.load(load_weights(made / "trials" / id / "weights.safetensors"))
        outputs = specification.forward(images[id])
        for name in ("scores", "program"):
            np.testing.assert_allclose(found[name], outputs.lengths, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["one"], outputs.lengths[:1], rtol=1e-4, atol=1e-6)
        if trial.model.kind == "capsnet":
            assert outputs.reconstruction is not None
            drawn = np.stack([found[f"image{digit}"] for digit in range(trial.model.overlaid)], axis=1)
            expected = outputs.reconstruction.reshape(drawn.shape)
            np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-6)
        else:
            odds = np.exp(found["others"])
            expected = odds / (1 + odds if trial.model.overlaid > 1 else odds.sum(1, keepdims=True))
            np.testing.assert_allclose(expected, outputs.lengths, rtol=1e-4, atol=1e-6)


def test_which_weights_are_exported(run_dir: Path, tmp_path: Path) -> None:
    id = trial_ids(run_dir)[0]
    best = json.loads((run_dir / "trials" / id / "result.json").read_text())["best_epoch"]
    for weights, epoch in (("last", 2), ("best", best), ("1", 1), ("2", 2)):
        exported = export(run_dir, id[:5], "jax", weights)
        assert exported.folder == run_dir / "exports" / f"{id}-jax-{weights}"
        assert exported.trained["epoch"] == epoch
        config = json.loads((exported.folder / "config.json").read_text())
        assert (config["trained"], config["model"]["profile"]) == (exported.trained, "paper")
        kept = load_weights(run_dir / "trials" / id / f"weights-{epoch:04d}.safetensors")
        with np.load(exported.folder / "weights.npz") as arrays:
            assert set(arrays) == set(kept)
            assert all((arrays[name] == kept[name]).all() for name in kept)


def refused(*arguments: Any) -> str:
    with pytest.raises(UserError) as refusal:
        export(*arguments)
    return str(refusal.value)


def test_what_cannot_be_exported_is_refused_with_what_can(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no runs/ could be suggested
    id = trial_ids(run_dir)[0]
    assert f'did you mean "{run_dir}"?' in refused(run_dir.with_name("smal"), id, "jax")
    none = (
        "is not a run directory: it has no plan.json. Give the folder that `run` named; `capsbench run SUITE` makes one"
    )
    assert none in refused(tmp_path, id, "jax")
    typo = ("0" if id[0] != "0" else "1") + id[1:]
    assert f'has no trial "{typo}"; did you mean "{id}"? Its trials:\n' in refused(run_dir, typo, "jax")
    assert "numpy, model.kind capsnet, model.profile official, seed 0" in refused(run_dir, "", "jax")
    assert 'has no weights "9": that epoch\'s were not kept (train.keep_every). Valid: 1, 2, best, last.' in refused(
        run_dir, id, "jax", "9"
    )
    assert 'no weights "bets"; did you mean "best"?' in refused(run_dir, id, "jax", "bets")


def test_no_validation_images_no_best_weights(run_dir: Path, tmp_path: Path) -> None:
    id, made = trial_ids(run_dir)[0], tmp_path / "small"
    shutil.copytree(run_dir, made)
    (made / "trials" / id / "best.safetensors").unlink()  # as of a trial without such images
    assert "it had no validation images (data.validation)" in refused(made, id, "torch", "best")


def test_the_command_and_its_complaints(run_dir: Path, tmp_path: Path) -> None:
    id = trial_ids(run_dir)[0]
    wrong = capsbench(tmp_path, "export", run_dir, id, "--to", "tensorflow", "--json")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert 'unknown --to "tensorflow"' in json.loads(wrong.stdout)["error"]
    absent = capsbench(tmp_path, "export", run_dir, id, "--to", "jax", hide="jax")
    assert absent.returncode == 2
    assert "--to jax: not installed: jax" in absent.stderr
    done = capsbench(tmp_path, "export", run_dir, id, "--to", "jax", "--weights", "best", "--out", "here", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == ["model.py", "config.json", "weights.npz", "program.bin"]
    assert (tmp_path / "here" / "model.py").exists()
