"""Ordinary PyTorch and Keras models in many styles, matched without an adapter: right ones pass, wrong ones are named.

Each file of models is examined in its own process, because precision is a global setting of a framework.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers.run_helpers import ROOT

FIXED = "it always makes 3 routing iterations, and no argument changes that"
TORCH = (
    "Plain", "DimensionList", 'TypeList={"arguments": {"num_iterations": 3}}', "ChannelsLast", "AllAlike", "WithLoss",
    "made", "ForGpu", "Coloured", "ByImage", "OnlyForward", "ReturnsLoss", "WrongSoftmax", "WrongLoss", "TwoFaults",
    "Neighbours", "Early", "Detached", "raises", "NeedsMore", "NoWeights", "OneConvolution", "FailsForward", "not_a_model",
    "scripted", "Plian", 'EarlyForGood={"sizes": {"routing": 3}}',
)  # fmt: skip
KERAS = ("pair", "Subclass", "wrong", "unbuilt")


def examined(file: str, names: tuple[str, ...]) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.ordinary.all_of", f"tests/ordinary/{file}", *names],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def torch_models() -> dict[str, Any]:
    return examined("torch_models.py", TORCH)


@pytest.fixture(scope="module")
def keras_models() -> dict[str, Any]:
    return examined("keras_models.py", KERAS)


def all_is_right(result: dict[str, Any]) -> None:
    assert result["failed"] == []
    assert result["raised"] == ""
    layers = result["found"]["layers"]
    assert [row["layer"] for row in layers][:4] == ["conv1", "primary convolution", "primary capsules", "votes"]
    assert all(row["ok"] and row["own"] is not None and row["fed"] is not None for row in layers)
    assert sum(row["layer"].startswith("coupling") for row in layers) == 3
    assert {"forward.digit", "forward.coupling", "loss.total", "grad.conv1.w", "grad.digit.w"} <= set(result["checks"])


@pytest.mark.parametrize(
    ("name", "digit_w", "outputs", "calling"),
    [
        ("Plain", "(J, I, e, d)", {"digit", "coupling"}, "first"),
        ("DimensionList", "(1, I, J, e, d)", {"reconstruction", "lengths"}, "labels as one-hot"),
        ("TypeList", "(I, d, J e)", {"reconstruction", "lengths", "digit"}, "and labels as classes"),
        ("ChannelsLast", "(I, J, d, e)", {"lengths"}, "last"),
        ("AllAlike", "(1, J, I, e, d, 1)", {"digit"}, "first"),
        ("made", "(J, I, e, d)", {"digit", "coupling"}, "first"),
        ("ForGpu", "(J, I, e, d)", {"digit", "coupling"}, "first"),
        ("Coloured", "(J, I, e, d)", {"digit", "coupling"}, "first"),
        ("ByImage", "(J, I, e, d)", {"digit", "coupling"}, "first"),
    ],
)
def test_right_models_pass_in_whatever_style(
    torch_models: dict[str, Any], name: str, digit_w: str, outputs: set[str], calling: str
) -> None:
    result = torch_models[name]
    all_is_right(result)
    rows = {row[0]: row for row in result["found"]["weights"]}
    assert digit_w in rows["digit.w"][2]
    assert "by effect" in rows["digit.w"][2]
    assert "by effect" in rows["primary.w"][2]
    assert set(result["found"]["outputs"]) == outputs
    assert calling in result["found"]["calling"]


def test_a_decoder_outside_of_the_forward_pass_is_checked(torch_models: dict[str, Any]) -> None:
    result = torch_models["Plain"]
    assert {"forward.reconstruction", "grad.dec3.w"} <= set(result["checks"])
    assert any("called as reconstruct" in note for note in result["found"]["notes"])


def test_pixels_of_several_channels_are_put_in_order(torch_models: dict[str, Any]) -> None:
    assert torch_models["Coloured"]["found"]["model"]["image"] == [14, 14, 3]
    assert "forward.reconstruction" in torch_models["Coloured"]["checks"]


def test_routing_is_checked_at_other_counts_where_it_can_be_set(torch_models: dict[str, Any]) -> None:
    for name in ("Plain", "TypeList"):
        assert torch_models[name]["skipped"] == {}
        assert {"r1.digit", "r2.digit", "r3.digit"} <= set(torch_models[name]["checks"])
    assert torch_models["DimensionList"]["skipped"]["L2 with 1 iterations"] == FIXED


def test_what_has_no_meaning_is_named_and_ignored(torch_models: dict[str, Any]) -> None:
    assert torch_models["ChannelsLast"]["found"]["unknown"] == ["strange (7, 23)"]
    assert torch_models["ChannelsLast"]["found"]["model"]["decoder"] is False


def test_without_a_loss_it_says_so_and_gradients_are_checked(torch_models: dict[str, Any]) -> None:
    notes = " ".join(torch_models["Plain"]["found"]["notes"])
    assert "its loss was not checked" in notes
    assert "--loss" in notes


def test_a_model_that_lets_no_gradient_through_is_compared_up_to_there(torch_models: dict[str, Any]) -> None:
    result = torch_models["OnlyForward"]
    assert "no gradient flows" in result["raised"]
    assert result["failed"] == []
    assert {"r3.digit", "forward.coupling"} <= set(result["checks"])


def test_losses_are_found_and_only_their_total_is_shown(torch_models: dict[str, Any]) -> None:
    for name, note in (("WithLoss", "its loss: loss"), ("ReturnsLoss", "its loss: the number that it returns")):
        all_is_right(torch_models[name])
        assert any(each.startswith(note) for each in torch_models[name]["found"]["notes"])
        assert "loss.margin" not in torch_models[name]["checks"]


def test_a_wrong_loss_fails_and_nothing_below_it(torch_models: dict[str, Any]) -> None:
    result = torch_models["WrongLoss"]
    assert result["failed"][0] == "loss.total"
    assert all(row["ok"] for row in result["found"]["layers"])


def faults(result: dict[str, Any]) -> list[str]:
    return [row["layer"] for row in result["found"]["layers"] if row["at_fault"]]


def test_a_wrong_softmax_is_the_first_layer_that_parts_ways(torch_models: dict[str, Any]) -> None:
    assert faults(torch_models["WrongSoftmax"]) == [f"coupling, iteration {i}" for i in (1, 2, 3)]
    assert torch_models["WrongSoftmax"]["suspects"] == ["the softmax over the input capsules"]


def test_one_fault_does_not_hide_the_next(torch_models: dict[str, Any]) -> None:
    """Fed with what is right, all between the two is right."""
    assert faults(torch_models["TwoFaults"]) == ["primary capsules", "decoder"]
    between = [row for row in torch_models["TwoFaults"]["found"]["layers"] if row["layer"].startswith("output")]
    assert all(not row["ok"] and row["fed"] < 1e-12 for row in between)


def test_capsules_of_neighbouring_places_are_named(torch_models: dict[str, Any]) -> None:
    result = torch_models["Neighbours"]
    assert faults(result) == ["primary capsules"]
    assert next(row["note"] for row in result["found"]["layers"] if row["at_fault"]) == "grouped otherwise"
    assert result["suspects"] == ["primary capsules grouped from spatial neighbours"]


def test_iterations_that_are_not_made_are_named(torch_models: dict[str, Any]) -> None:
    assert faults(torch_models["Early"]) == ["routing iteration 2"]
    layers = {row["layer"]: row for row in torch_models["Early"]["found"]["layers"]}
    assert layers["lengths"]["fed"] < 1e-12
    assert layers["decoder"]["fed"] < 1e-12


def test_iterations_are_told_where_nothing_in_the_model_does(torch_models: dict[str, Any]) -> None:
    result = torch_models["EarlyForGood"]
    assert faults(result) == ["routing iteration 2"]
    assert "r3.digit" in result["failed"]
    assert any("it was seen to make 3" in note for note in torch_models["ChannelsLast"]["found"]["notes"])


def test_a_gradient_that_does_not_flow_fails_at_l4_alone(torch_models: dict[str, Any]) -> None:
    result = torch_models["Detached"]
    assert faults(result) == []
    assert {name.partition(".")[0] for name in result["failed"]} == {"grad"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("raises", r"raises() raised RuntimeError: no luck (line "),
        ("NeedsMore", "needs num_frobs, of which nothing is known: pass --model-args"),
        ("NoWeights", "the model has no weights"),
        ("OneConvolution", "found as convolutions: only.weight (10, 1, 3, 3); expected"),
        ("FailsForward", "called with 7 images of 14x14x1 it raised ValueError: not today (line "),
        ("not_a_model", "gave a dict; expected a torch.nn.Module"),
        ("scripted", "TorchScript"),
        ("Plian", 'has no "Plian"; did you mean "Plain"?'),
    ],
)
def test_what_cannot_be_checked_says_what_was_found(torch_models: dict[str, Any], name: str, says: str) -> None:
    assert says in torch_models[name]["error"]


@pytest.mark.parametrize("name", ["pair", "Subclass"])
def test_right_keras_models_pass(keras_models: dict[str, Any], name: str) -> None:
    all_is_right(keras_models[name])


def test_keras_compiled_loss_is_the_models_own(keras_models: dict[str, Any]) -> None:
    assert "its loss: the one that it was compiled with" in keras_models["pair"]["found"]["notes"]
    assert {"r1.digit", "r2.coupling"} <= set(keras_models["pair"]["checks"])


def test_a_wrong_softmax_in_keras_is_named(keras_models: dict[str, Any]) -> None:
    assert faults(keras_models["wrong"]) == [f"coupling, iteration {i}" for i in (1, 2, 3)]
    assert keras_models["wrong"]["suspects"] == ["the softmax over the input capsules"]


def test_a_keras_model_that_is_not_built(keras_models: dict[str, Any]) -> None:
    assert "give it an Input" in keras_models["unbuilt"]["error"]
