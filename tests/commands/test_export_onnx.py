"""ONNX files: ONNX Runtime computes from them what the specification does, without this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from harness.commands import export as command
from harness.commands.export import export
from harness.errors import UserError
from harness.journal.kept import find_trial
from harness.parity import probe_weights
from harness.prediction.trained import of_trial, some_images
from harness.spec import ModelSpec
from tests.conftest import ROOT
from tests.helpers.impl_helpers import batch_of, loaded, small_model
from tests.helpers.run_helpers import capsbench

RUN, TRIAL = ROOT / "tests" / "runs" / "quickstart-0.1", "7e07db8f14b8"
WIDE = {"image": (9, 7, 2), "classes": 4, "cnn_channels": (5, 4), "cnn_kernel": (3, 2), "cnn_units": (9, 6)}
MODELS = {
    "capsnet": small_model(), "once": small_model(routing=1), "official": small_model((13, 16, 3), profile="official"),
    "no decoder": small_model(decoder=False, routing=2), "pairs": small_model((14, 13, 2), overlaid=2),
    "none of the above": small_model(none_of_the_above=True),
    "cnn": ModelSpec(kind="cnn", **WIDE), "pooled": ModelSpec(kind="cnn", cnn_pool=2, **WIDE),
    "cnn pairs": ModelSpec(kind="cnn", overlaid=2, dropout=0.0, **WIDE),
}  # fmt: skip


@pytest.fixture(scope="module")
def exporter() -> ModuleType:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from impls.onnx import export

    return export


@pytest.mark.parametrize("name", MODELS)
def test_every_output_is_the_specification_s(name: str, exporter: Any, tmp_path: Path) -> None:
    model = MODELS[name]
    weights = probe_weights(model, 3)
    (tmp_path / "config.json").write_text(json.dumps({"model": model.model_dump(mode="json"), "trained": {"epoch": 2}}))
    assert exporter.export(model, weights, tmp_path) == ["model.onnx"]
    digits = np.stack([batch_of(model, 3, seed)[0] for seed in range(model.overlaid)], axis=1)
    expected = loaded("numpy", model, weights).forward(digits.reshape(3, *model.several, *model.image))
    pixels = np.minimum(digits.astype(np.float32).sum(1), 255) / 255
    net = exporter.recipe.load(tmp_path)
    for count in (3, 1):  # any batch size
        found = net(np.ascontiguousarray(pixels[:count].transpose(0, 3, 1, 2)))
        scores = "probabilities" if model.kind == "cnn" else "lengths"
        np.testing.assert_allclose(found[scores], expected.lengths[:count], rtol=1e-4, atol=1e-6)
        assert all(array.dtype == np.float32 for array in found.values())
        if model.kind == "cnn":
            assert set(found) == {"probabilities", "logits"}
            odds = np.exp(found["logits"])
            shares = odds / (1 + odds if model.overlaid > 1 else odds.sum(1, keepdims=True))
            np.testing.assert_allclose(shares, expected.lengths[:count], rtol=1e-4, atol=1e-6)
            continue
        assert expected.digit is not None
        np.testing.assert_allclose(found["capsules"], expected.digit[:count], rtol=1e-4, atol=1e-6)
        assert ("reconstruction" in found) == model.decoder == (expected.reconstruction is not None)
        if expected.reconstruction is not None:
            drawn = np.moveaxis(found["reconstruction"], -3, -1)
            np.testing.assert_allclose(drawn, expected.reconstruction[:count], rtol=1e-4, atol=1e-5)


def test_a_trial_as_a_user_exports_it(exporter: Any, tmp_path: Path) -> None:
    import onnx

    exported = export(RUN, TRIAL, "onnx", "best", tmp_path / "out")
    assert exported.files == ["model.py", "config.json", "model.onnx"]
    assert exported.checked is not None
    assert exported.checked["of"] == "digits, test images"
    assert exported.checked["max_error"] < 1e-5
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 13)]
    facts = {each.key: json.loads(each.value) for each in model.metadata_props}
    assert facts == json.loads((tmp_path / "out" / "config.json").read_text())
    assert facts["trained"]["trial"] == TRIAL
    which = of_trial(RUN, TRIAL, "best")
    images, _ = some_images(which.model, which.data, 16)
    np.save(tmp_path / "pixels.npy", images.transpose(0, 3, 1, 2) / np.float32(255))
    script = """
import sys
sys.modules["harness"] = sys.modules["impls"] = sys.modules["onnx"] = None  # importing them is an error
sys.path.insert(0, "")
import numpy as np
from model import load
np.savez("found.npz", **load()(np.load("../pixels.npy")))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = loaded("numpy", which.model, which.weights).forward(images)
    with np.load(tmp_path / "out" / "found.npz") as found:
        np.testing.assert_allclose(found["lengths"], expected.lengths, rtol=1e-4, atol=1e-6)


def test_a_file_that_computes_something_else_is_refused(
    exporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = find_trial(RUN, TRIAL)
    right = exporter.export
    monkeypatch.setattr(
        exporter, "export", lambda model, weights, folder: right(model, probe_weights(trial.model, 1), folder)
    )
    with pytest.raises(UserError, match="do not compute what the specification does"):
        command.export(RUN, TRIAL, "onnx", out=tmp_path)


def test_without_onnx_the_extra_is_named(tmp_path: Path) -> None:
    done = capsbench(tmp_path, "export", RUN, TRIAL, "--to", "onnx", "--out", "out", hide="onnx,onnxruntime")
    assert done.returncode == 2
    assert '--to onnx: not installed: onnx, onnxruntime; pip install "capsbench[onnx]"' in done.stderr
