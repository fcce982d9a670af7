"""Published figures are shown beside the cells that meet their conditions, and beside no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.analysis.cells import of_run
from harness.analysis.published import Beside, beside, facts_of, meets, published
from harness.journal.journal import Journal
from harness.spec.trial import Trial
from harness.suite.suite import load_suite
from tests.conftest import ROOT
from tests.helpers.seeds_helpers import events_of, make_trial, write_run

PAPER = {(1, False): (0.34, 0.032), (1, True): (0.29, 0.011), (3, False): (0.35, 0.036), (3, True): (0.25, 0.005)}
"""Table 1 of the paper: (routing, reconstruction) -> MNIST test error in %, standard deviation."""


def of(trial: Trial, tmp_path: Path, epoch_s: float = 300.0) -> list[Beside]:
    run_dir = write_run(tmp_path / "run", [(trial, events_of(0.31, epoch_s))])
    return beside(of_run(Journal(run_dir)))


@pytest.mark.parametrize(("routing", "decoder"), PAPER)
def test_table_1_stands_beside_its_own_settings(routing: int, decoder: bool, tmp_path: Path) -> None:
    found = of(make_trial(routing=routing, decoder=decoder), tmp_path)
    (paper,) = [each for each in found if each.source.paper]
    assert (paper.figure.value, paper.figure.sd, paper.figure.n) == (*PAPER[routing, decoder], 3)
    assert paper.source.link == "https://arxiv.org/abs/1710.09829"
    assert paper.ours is not None
    assert paper.ours.mean == 0.31
    assert paper.unlike == [
        "training images: 60,000 there, 55,000 here",
        "epochs: not stated there, 30 here",
        "batch: not stated there, 128 here",
        "profile: not stated there, paper here",
    ]


def test_epochs_that_differ_are_said(tmp_path: Path) -> None:
    found = of(make_trial(epochs=50, routing=3), tmp_path)
    (keras,) = [
        each for each in found if each.source.title == "XifengGuo/CapsNet-Keras" and each.figure.metric != "epoch_s"
    ]
    assert keras.figure.value == 0.34
    assert not [text for text in keras.unlike if text.startswith("epochs")]
    assert "batch: 100 there, 128 here" in keras.unlike
    assert "learning rate times 0.9 each epoch; validated on the test images" in keras.unlike


def test_times_are_of_as_many_images_and_of_another_machine(tmp_path: Path) -> None:
    found = of(make_trial(routing=3), tmp_path, epoch_s=275.0)  # 200 images a second
    times = {each.figure.machine: each for each in found if each.figure.metric == "epoch_s"}
    assert {machine: each.figure.value for machine, each in times.items()} == {
        "GTX 1070": 100,
        "GTX 1080 Ti": 80,
        "GTX 1050": 180,
        "Titan XP": 120,
        "a GPU of Google Colab": 448,
    }
    for machine, each in times.items():
        assert each.ours is not None
        assert each.ours.mean == pytest.approx(300)
        assert f"another machine: {machine}" in each.unlike


@pytest.mark.parametrize(
    "trial",
    [
        make_trial(data={"name": "digits"}),
        make_trial(data={"name": "mnist", "test": 1000}),
        make_trial(data={"name": "mnist", "canvas": 40}),
        make_trial(data={"name": "mnist", "crop": 24}),
        make_trial(conv_channels=128),
        make_trial(routing=10),
        make_trial(digit_dim=8),
    ],
    ids=[
        "other digits",
        "a cut of the test images",
        "canvas",
        "crop",
        "fewer channels",
        "routing 10",
        "smaller capsules",
    ],
)
def test_nothing_else_is_compared(trial: Trial, tmp_path: Path) -> None:
    assert of(trial, tmp_path) == []


def test_other_data_and_networks_wait_for_theirs() -> None:
    facts = facts_of(make_trial())
    affnist: dict[str, Any] = {"data.name": "mnist-expanded", "data.test_from": "affnist-gen", "data.test": 320_000}

    def values(**changes: Any) -> set[float]:
        changed = facts | {key.replace("__", "."): value for key, value in changes.items()}
        return {figure.value for figure, source in published() if source.paper and meets(changed, figure.conditions)}

    assert values() == {0.25}
    assert values(**{key.replace(".", "__"): value for key, value in affnist.items()}) == {21.0}
    assert values(data__name="multimnist") == {5.2}
    assert values(data__test_from="affnist") == set()
    cnn: dict[str, Any] = {
        "model__cnn_pool": 1,
        "model__cnn_channels": [256, 256, 128],
        "model__cnn_kernel": 5,
        "model__cnn_units": [328, 192],
    }
    assert values(model__kind="cnn", **cnn) == {0.39}


@pytest.mark.parametrize(
    ("suite", "figures"),
    [
        ("multimnist", {5.2, 7.5, 8.1}),
        ("svhn", {4.3}),
        ("affnist", {21.0, 34.0}),
        ("mnist", {0.25}),
        ("paper", {0.39, 0.34, 0.29, 0.35, 0.25}),
    ],
)
def test_suites_of_the_papers_experiments_have_its_figures_beside_them(suite: str, figures: set[float]) -> None:
    trials = load_suite(ROOT / "suites" / f"{suite}.yaml").trials(0, lambda _: {})
    facts = [facts_of(trial) for trial in trials]
    found = {
        figure.value
        for figure, source in published()
        if source.paper and any(meets(each, figure.conditions) for each in facts)
    }
    assert found == figures


def test_every_figure_says_who_and_where_and_knows_the_settings_it_names() -> None:
    known = facts_of(make_trial()).keys() | {
        "data.test_from",
        "model.cnn_channels",
        "model.cnn_kernel",
        "model.cnn_pool",
        "model.cnn_units",
        "model.dropout",
    }
    assert len(published()) == 30
    for figure, source in published():
        assert source.title
        assert figure.where
        assert figure.conditions.keys() | figure.setup.keys() <= known
        assert {"data.name", "model.kind"} <= figure.conditions.keys()
