"""`capsbench parity --model` and `capsbench parity A B` as a user meets them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.commands.cli import main, parser
from harness.errors import UserError
from harness.parity.ordinary.images import fitted
from tests.helpers.impl_helpers import small_model
from tests.helpers.run_helpers import ROOT, capsbench
from tests.ordinary.torch_models import DimensionList

TORCH = ROOT / "tests" / "ordinary" / "torch_models.py"
KERAS = ROOT / "tests" / "ordinary" / "keras_models.py"


def parity(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return capsbench(folder, "parity", *arguments)


def test_a_right_model_passes(tmp_path: Path) -> None:
    ran = parity(tmp_path, "--model", f"{TORCH}:Plain", "--no-mlflow", "--json")
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert document["ok"]
    assert [report["precision"] for report in document["reports"]] == ["fp64", "fp32"]
    levels = {check["level"] for report in document["reports"] for check in report["checks"]}
    assert levels == {"L1", "L2", "L3", "L4"}
    assert document["reports"][0]["impl"] == "model:torch_models.py:Plain"
    assert document["model"]["model"]["primary_types"] == 3
    assert "No layer parts ways." in ran.stderr


def test_a_wrong_model_fails_and_its_first_layer_is_named(tmp_path: Path) -> None:
    ran = parity(tmp_path, "--model", f"{TORCH}:TwoFaults", "--precision", "fp64", "--no-mlflow")
    assert ran.returncode == 1
    assert "The first layer that parts ways: primary capsules; wrong by themselves too: decoder." in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr


def test_a_suite_overrides_what_is_found(tmp_path: Path) -> None:
    options = ("--precision", "fp64", "--level", "L1", "--no-mlflow", "--json", "-s", "model.routing=2")
    ran = parity(tmp_path, "--model", f"{TORCH}:Plain", *options)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["model"]["model"]["routing"] == 2


def test_a_model_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time, torch\ndef build():\n    time.sleep(600)\n")
    ran = parity(tmp_path, "--model", "slow.py:build", "--time-limit", "5")
    assert ran.returncode == 2
    assert "not examined within the time limit of 5 s" in ran.stderr


def test_packages_that_the_network_does_not_need_need_not_be_there(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom no_such_vision import datasets, transforms\nimport no_such_plots.pyplot as plt\n"
        f"import sys; sys.path.append({str(TORCH.parent)!r})\nfrom torch_models import Plain\n"
    )
    ran = parity(tmp_path, "--model", "net.py:Plain", "--precision", "fp64", "--level", "L1", "--no-mlflow")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "nothing.py:Net"], 'no file "nothing.py"'),
        (["--model", "net"], "expected file.py:name or package.module:name"),
        (["--model", "net.py:Net", "--model-args", "{"], "--model-args: not JSON"),
        (["--model", "net.py:Net", "--model-args", "[1]"], "expected an object"),
        (["--model", "net.py:Net", "--weights", "conv1.w"], "expected CANONICAL=OWN"),
        (["--model", "net.py:Net", "--weights", "w=x"], '"w" names no weight'),
        (["--model", "net.py:Net", "--impl", "torch"], "cannot be given together"),
        (["--model", "net.py:Net", "-s", "train.lr=1"], "expected model.KEY"),
        (["--loss", "loss"], "--model FILE.py:NAME"),
        (["a.py:A", "b.npz"], "--model FILE.py:NAME, and two files"),
        (["torch", "torhc"], 'did you mean "torch"?'),
        (["--model", "json:dumps"], "imports neither torch nor keras"),
    ],
)
def test_bad_requests_say_what_to_do(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["parity", *arguments])
    assert ended.value.code == 2
    assert says in " ".join(capsys.readouterr().err.split())


def compared(folder: Path, *arguments: object) -> tuple[int, dict[str, Any], str]:
    ran = parity(folder, *arguments, "--json")
    assert ran.stdout, ran.stderr
    return ran.returncode, json.loads(ran.stdout), ran.stderr


def test_two_models_of_different_frameworks_are_equal(tmp_path: Path) -> None:
    """PyTorch's and Keras's, without the specification: layers, loss and gradients."""
    code, document, told = compared(tmp_path, f"{KERAS}:pair", f"{TORCH}:WithLoss")
    assert code == 0, told
    assert [row["layer"] for row in document["layers"]][-2:] == ["lengths", "decoder"]
    assert {"loss", "gradient of conv1.w", "gradient of dec3.b"} <= {row["name"] for row in document["values"]}


def test_two_models_that_differ_are_told_where(tmp_path: Path) -> None:
    code, document, told = compared(tmp_path, f"{TORCH}:Plain", f"{TORCH}:WrongSoftmax")
    assert code == 1
    assert next(row["layer"] for row in document["layers"] if row["at_fault"]) == "coupling, iteration 1"
    assert "The first layer that parts ways: coupling, iteration 1" in told


def test_a_model_beside_an_implementation(tmp_path: Path) -> None:
    code, document, told = compared(tmp_path, f"{TORCH}:Plain", "numpy")
    assert code == 0, told
    assert {"output capsules, iteration 3", "decoder"} <= {row["layer"] for row in document["layers"]}


def test_models_of_different_architectures_are_refused(tmp_path: Path) -> None:
    ran = parity(tmp_path, f"{TORCH}:Plain", f"{TORCH}:AllAlike")
    assert ran.returncode == 2
    assert "different architectures: classes 10 and 4" in ran.stderr


def test_two_files_of_weights(tmp_path: Path) -> None:
    """The same in two formats are equal, one of them in half precision; of one changed tensor, it and what follows differ."""
    torch.manual_seed(0)
    half = {name: tensor.to(torch.bfloat16) for name, tensor in DimensionList().state_dict().items()}
    state = {name: tensor.to(torch.float32) for name, tensor in half.items()}
    torch.save({"state_dict": state}, tmp_path / "a.pt")
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    save_file(half, tmp_path / "b.safetensors")
    arrays["decoder.0.weight"] = arrays["decoder.0.weight"] * np.float32(1.01)
    np.savez(tmp_path / "c.npz", **arrays)
    np.savez(tmp_path / "short.npz", only=arrays["decoder.0.weight"])
    model = ("--model", f"{TORCH}:DimensionList")
    code, document, told = compared(tmp_path, *model, "a.pt", "b.safetensors")
    assert code == 0, told
    code, document, _ = compared(tmp_path, *model, "a.pt", "c.npz")
    assert code == 1
    assert [row["name"] for row in document["values"] if row["name"].startswith("weight") and not row["ok"]] == [
        "weight dec1.w"
    ]
    assert [row["layer"] for row in document["layers"] if not row["ok"]] == ["decoder"]
    ran = parity(tmp_path, *model, "a.pt", "short.npz")
    assert ran.returncode == 2
    assert 'it has no "route_weights"' in ran.stderr


def test_images_are_made_to_fit() -> None:
    model = small_model((13, 40, 3))
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)
    found, labels = fitted(images, np.array([0, 9, 3, 7, 5]), model)
    assert found.shape == (5, 13, 40, 3)
    assert labels.max() < model.classes
    assert np.array_equal(found[:, :, :28, 0], images[:, :13, :, 0])
    same, _ = fitted(images, np.array([0, 1, 2, 3, 0]), small_model((28, 28, 1)))
    assert same is images


def test_the_options_are_those_of_the_documents() -> None:
    text = (ROOT / "docs" / "parity.md").read_text()
    for option in ("--model", "--model-args", "--loss", "--loss-args", "--weights"):
        assert option in text
    with pytest.raises(UserError, match="--model"):
        parser(["parity"]).parse_args(["parity", "--modle", "x"])
