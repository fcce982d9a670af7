"""Networks with typical habits and several faults at once: all are named, none falsely, and conventions separately."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import data
from harness.commands.common import suite_or_built_in
from harness.commands.parity import _COMPACT
from harness.parity import Ladder
from harness.parity.diagnosis.diagnose import Diagnosis, diagnose
from harness.parity.faults.capsnet import FAULTS
from harness.spec import Loss, OptimSpec, Runtime
from tests.helpers import networks as networks
from tests.helpers.networks import Habits, adapter
from tests.helpers.run_helpers import capsbench

SAYS = {fault.name: fault.says for fault in FAULTS}
SOFTMAXED, IMPLICIT = (
    "a softmax over the lengths",
    "the softmax over the images of the batch, as an implicit axis may be",
)
WITHOUT = [SAYS["squash-without-epsilon"], SAYS["length-without-epsilon"]]
DESCRIBED: dict[str, tuple[list[str], list[str]]] = {
    # class of tests.helpers.networks: faults, conventions
    "Softmaxes": ([SAYS["softmax-over-inputs"], SOFTMAXED, *WITHOUT], []),
    "Neighbours": ([SAYS["spatial-grouping"], SAYS["primary-relu"]], ["squash_epsilon=1e-7"]),
    "Detached": (
        [SAYS["spatial-grouping"], SAYS["detached-iterations"], SAYS["sum-over-images"]],
        ["squash_epsilon=1e-7@outside"],
    ),
    "Shared": ([SAYS["squash-wrong-axis"], SAYS["shared-logits"], SAYS["mask-by-longest-in-training"]], []),
    "Returns": ([SAYS["early-return"], IMPLICIT, SAYS["mask-missing"]], []),
    "OnlyEpsilon": ([], ["squash_epsilon=1e-7"]),
    "Means": ([SAYS["margin-mean-over-classes"], SAYS["reconstruction-mean"], *WITHOUT], []),
}
BY_NAME = {
    "Softmaxes": networks.A, "Neighbours": networks.B, "Detached": networks.C, "Shared": networks.D,
    "Returns": networks.E, "OnlyEpsilon": networks.ONLY_EPSILON, "Means": networks.MEANS,
}  # fmt: skip
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All described networks in one command, as a user's own module: class -> report, and the exit code."""
    folder = tmp_path_factory.mktemp("networks")
    shutil.copy(Path(networks.__file__), folder / "nets.py")
    impls = [argument for name in DESCRIBED for argument in ("--impl", f"nets:{name}")]
    done = capsbench(folder, "parity", *impls, "--precision", "fp64", "--json", "--no-mlflow")
    reports = {report["impl"].partition(":")[2]: report for report in json.loads(done.stdout)["reports"]}
    return {**reports, "command": {"code": done.returncode, "stderr": done.stderr}}


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_command_names_all_faults_and_no_other(name: str, reported: dict[str, dict[str, Any]]) -> None:
    faults, conventions = DESCRIBED[name]
    report = reported[name]
    assert sorted(report["suspects"]) == sorted(faults)
    assert report["conventions"] == conventions
    assert report["unexplained"] == []
    assert report["verdict"] == ("FAILED" if faults else "right with conventions")


def test_the_command_says_what_is_right_with_conventions(reported: dict[str, dict[str, Any]]) -> None:
    assert reported["OnlyEpsilon"]["ok"]
    assert all(check["ok"] for check in reported["OnlyEpsilon"]["checks"])
    said = reported["command"]["stderr"]
    assert (
        "nets:OnlyEpsilon fp64: right with conventions: squash adds 1e-7 inside the root "
        "(accepted with --accept squash_epsilon=1e-7)" in said
    )
    assert f"(1) {SAYS['spatial-grouping']}, (2) {SAYS['detached-iterations']}, (3)" in said
    assert "squash adds 1e-7 outside the root (accepted with --accept squash_epsilon=1e-7@outside)" in said
    assert "Parity: 6 of 7 failed, 1 right with conventions." in said
    assert reported["command"]["code"] == 1


def test_what_is_accepted_is_what_it_is_compared_with(tmp_path: Path) -> None:
    """Without a second climb; and another epsilon than that is none that was accepted."""
    shutil.copy(Path(networks.__file__), tmp_path / "nets.py")
    command = ("parity", "--impl", "nets:OnlyEpsilon", "--precision", "fp64", "--no-mlflow", "--json")
    done = capsbench(tmp_path, *command, "--accept", "squash_epsilon=1e-7")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reports"][0]["conventions"] == ["squash_epsilon=1e-7"]
    done = capsbench(tmp_path, *command, "--accept", "squash_epsilom=1e-7")
    assert done.returncode == 2
    assert 'unknown convention "squash_epsilom"; did you mean "squash_epsilon"' in done.stderr


def found_of(habits: Habits, precision: str, wrap: Any = lambda impl: impl) -> tuple[Diagnosis, float]:
    """The diagnosis of a network on what the command compares without a suite, and the seconds that it took."""
    suite = suite_or_built_in(None, _COMPACT, ())
    train = data.load(suite.data).train
    model = data.model(suite.data, suite.model)
    runtime = Runtime.model_validate({"precision": precision, "threads": 1})
    impl = wrap(adapter(habits)(model, OptimSpec(), runtime))
    ladder = Ladder(impl, model, OptimSpec(), runtime, train.images[:7], train.labels[:7])
    with np.errstate(all="ignore"):
        ladder.climb()
        start = time.process_time()
        return diagnose(ladder), time.process_time() - start


@pytest.mark.parametrize("name", DESCRIBED)
def test_rounding_hides_no_fault(name: str) -> None:
    found, seconds = found_of(BY_NAME[name], "fp32")
    assert (sorted(found.suspects), list(found.conventions.named())) == (sorted(DESCRIBED[name][0]), DESCRIBED[name][1])
    assert found.unexplained == ()
    assert seconds < LIMIT_S


def total_alone(impl: Any) -> Any:
    """What a network tells of its loss, where that is a function of its author's."""
    both = impl.loss_and_grads
    impl.loss_and_grads = lambda images, labels: (Loss((found := both(images, labels))[0].total), found[1])
    return impl


@pytest.mark.parametrize("name", DESCRIBED)
def test_losses_are_named_by_their_total(name: str) -> None:
    found, seconds = found_of(BY_NAME[name], "fp64", total_alone)
    assert (sorted(found.suspects), list(found.conventions.named())) == (sorted(DESCRIBED[name][0]), DESCRIBED[name][1])
    assert found.unexplained == ()
    assert seconds < LIMIT_S


@pytest.mark.parametrize("wrap", [total_alone, lambda impl: impl])
def test_a_mask_of_what_is_longest_in_the_batch_is_named(wrap: Any) -> None:
    found, _ = found_of(networks.RELATIVE, "fp64", wrap)
    assert sorted(found.suspects) == sorted(
        [
            "a mask by the longest capsule after a softmax over the images of the batch",
            SAYS["mask-by-longest-in-training"],
            SAYS["margin-not-squared"],
            SAYS["reconstruction-mean"],
        ]
    )
    assert not found.unexplained


@pytest.mark.parametrize(
    ("weight", "said"),
    [(0.392 * 784 / 14**2, "a reconstruction loss of weight"), (0.0, "a loss without the reconstruction's")],
)
def test_another_weight_follows_from_the_total(weight: float, said: str) -> None:
    """A mean over pixels and a weight cannot be told from a sum and another."""
    found, _ = found_of(Habits(reconstruction="mean", weight=weight), "fp64", total_alone)
    assert len(found.suspects) == 1
    assert found.suspects[0].startswith(said)
    assert not found.unexplained


def test_a_network_that_shows_its_capsules_alone_is_diagnosed_all_the_same() -> None:
    """No lengths, no couplings, no reconstructions."""

    def wrap(impl: Any) -> Any:
        forward = impl.forward
        impl.forward = lambda images: replace(forward(images), lengths=None, coupling=None, reconstruction=None)
        return impl

    found, _ = found_of(networks.A, "fp64", wrap)
    assert sorted(found.suspects) == sorted(DESCRIBED["Softmaxes"][0])
    assert not found.unexplained


HABITS: dict[tuple[str, Any], str] = {
    ("grouping", "neighbours"): SAYS["spatial-grouping"],
    ("grouping", "dimensions"): SAYS["dimensions-before-types"],
    ("conv_relu", False): SAYS["conv1-without-relu"],
    ("primary_relu", True): SAYS["primary-relu"],
    ("squash_dim", 1): SAYS["squash-wrong-axis"],
    ("formula", "unit"): SAYS["squash-to-unit-length"],
    ("formula", "half"): "a squash with 0.5 + |s|^2 for 1 + |s|^2",
    ("softmax_dim", 2): SAYS["softmax-over-inputs"],
    ("softmax_dim", None): IMPLICIT,
    ("detach", True): SAYS["detached-iterations"],
    ("extra", 1): SAYS["one-iteration-more"],
    ("replaced", True): SAYS["logits-replaced"],
    ("with_input", True): SAYS["agreement-with-input"],
    ("shared", True): SAYS["shared-logits"],
    ("length_softmax", True): SOFTMAXED,
    ("shown", "longest"): SAYS["mask-by-longest-in-training"],
    ("transposed", True): SAYS["decoder-input-transposed"],
    ("sigmoid", False): SAYS["sigmoid-missing"],
    ("swapped", True): SAYS["margins-swapped"],
    ("squared", False): SAYS["margin-not-squared"],
    ("lam", 1.0): SAYS["lambda-dropped"],
    ("margin", "mean"): SAYS["margin-mean-over-classes"],
    ("reconstruction", "mean"): SAYS["reconstruction-mean"],
    ("weight", 1.0): SAYS["reconstruction-weight-dropped"],
    ("stopped", True): SAYS["reconstruction-detached"],
}
"""A field of `Habits` and its value -> the fault that it is."""


def drawn(seed: int) -> tuple[Habits, list[str], str]:
    """Two to five faults and an epsilon, drawn; the faults' names, and the convention's."""
    generator = random.Random(seed)
    while True:
        chosen = generator.sample(list(HABITS), generator.randint(2, 5))
        names = dict(chosen)
        # logits shared by the batch make a softmax over its images a constant, with which nothing is routed
        if len(names) == len(chosen) and not (names.get("shared") and names.get("softmax_dim", 0) is None):
            break
    epsilon, place = generator.choice([(1e-9, "inside"), (1e-7, "inside"), (1e-8, "outside"), (1e-6, "product")])
    if names.get("formula") == "unit":  # which this code writes without a place
        epsilon, place = 1e-9, "inside"
    convention = "" if epsilon == 1e-9 else f"squash_epsilon={epsilon:.0e}".replace("e-0", "e-")
    convention += "" if place == "inside" else f"@{place}"
    return replace(Habits(epsilon=epsilon, place=place), **names), sorted(HABITS[each] for each in chosen), convention


@pytest.mark.parametrize("seed", range(10))
def test_faults_that_were_drawn_are_named(seed: int) -> None:
    habits, faults, convention = drawn(seed)
    found, seconds = found_of(habits, "fp64")
    assert (sorted(found.suspects), ", ".join(found.conventions.named())) == (faults, convention)
    assert found.unexplained == ()
    assert seconds < LIMIT_S
