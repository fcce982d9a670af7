"""Operations against a count made by hand, and time estimates against the journals they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.cost import estimate, memory
from harness.cost.estimate import estimate_s
from harness.cost.operations import forward_flops, step_flops
from harness.journal.results import finished_trials
from harness.models.capsnet import spectral_products
from harness.spec import ModelSpec
from harness.spec.trial import Trial
from impls.spectral import spectral
from tests.helpers.executor_helpers import MODEL, tiny_trial

PAPER = ModelSpec(image=(28, 28, 1), classes=10)


def test_the_papers_model_by_hand() -> None:
    """Section 4, layer by layer, in multiplications with their additions."""
    conv1 = 20 * 20 * 256 * 9 * 9 * 1
    primary = 6 * 6 * 256 * 9 * 9 * 256
    votes = 1152 * 10 * 8 * 16
    routing = 3 * 1152 * 10 * 16 + 2 * 1152 * 10 * 16  # three weighted sums; agreement after the first two
    decoder = 10 * 16 * 512 + 512 * 1024 + 1024 * 784
    assert forward_flops(PAPER) == 2 * (conv1 + primary + votes + routing + decoder)
    # backward: for every product two more, of which the first layer's one for the images is not wanted
    step = 128 * (3 * forward_flops(PAPER) - 2 * conv1)
    assert step_flops(PAPER, 128) == step
    assert step / 1e9 == pytest.approx(153, rel=0.01)
    assert 128 * 3 * 2 * primary / step == pytest.approx(0.96, abs=0.01)


def test_what_costs_and_what_does_not() -> None:
    pairs = 1152 * 10 * 16
    other = PAPER.model_copy(update={"routing": 5})
    assert forward_flops(other) - forward_flops(PAPER) == 2 * pairs * 4  # a sum and an agreement per iteration
    bare = PAPER.model_copy(update={"decoder": False})
    assert forward_flops(PAPER) - forward_flops(bare) == 2 * (160 * 512 + 512 * 1024 + 1024 * 784)
    colour = PAPER.model_copy(update={"image": (28, 28, 3), "decoder": False})
    assert forward_flops(colour) - forward_flops(bare) == 2 * (20 * 20 * 256 * 81 * 2)
    assert step_flops(PAPER, 64) * 2 == step_flops(PAPER, 128)


def test_matmul_rate_is_a_rate() -> None:
    assert 1e8 < estimate.matmul_flops_per_s(256) < 1e15


def test_memory_by_hand() -> None:
    """The paper's model: 8,215,568 weights; 20x20x256 and 1152x8 values an image; 148 products of the spectra."""
    weights, kept, votes = 8_215_568, 20 * 20 * 256 + 1152 * 8, 1152 * 10 * 16
    assert spectral_products(PAPER) == 148 == len(spectral((20, 20), 9, 2).analysis)
    assert spectral_products(PAPER.model_copy(update={"image": (29, 36, 1)})) == len(spectral((21, 28), 9, 2).analysis)
    least = memory.least_bytes(PAPER, 128)
    assert least == 4 * (4 * weights + 128 * 2 * kept)
    assert memory.least_bytes(PAPER, 128, item_bytes=8) == 2 * least
    spectra = 148 * (1024 * 256 + 128 * (1024 + 256))
    assert memory.step_bytes(PAPER, 128) == 400e6 + least + 4 * (128 * votes + spectra)
    assert 0.9e9 < memory.step_bytes(PAPER, 128) < 1.8e9  # what the implementations were measured to take
    for there in (1e9, 1e10):
        batch = memory.largest_batch(PAPER, there)
        assert memory.step_bytes(PAPER, batch) <= there < memory.step_bytes(PAPER, batch + 8)
    assert memory.largest_batch(PAPER, 1e8) == 0


def changed(trial: Trial, **sections: dict[str, Any]) -> Trial:
    return trial.model_copy(
        update={name: getattr(trial, name).model_copy(update=values) for name, values in sections.items()}
    )


def test_estimate_from_a_trial_like_it() -> None:
    trial = tiny_trial(epochs=10)  # 16 images to train on, none to validate, 16 to test
    known = [(tiny_trial(epochs=2, seed=1), {"img_per_s": 8.0, "compile_s": 5.0})]
    start_s = 5 + 5 / 2
    assert estimate_s(trial, known) == pytest.approx(start_s + (10 * 16 + 16 / 3) / 8)
    assert estimate_s(changed(trial, data={"validation": 30}), known) == pytest.approx(
        start_s + (10 * (16 + 10) + 16 / 3) / 8
    )
    gated = changed(trial, parity={"gate": True, "steps": 4})
    assert estimate_s(gated, known) == pytest.approx(start_s + (10 * 16 + 16 / 3 + 2 * 6 * trial.train.batch) / 8)


@pytest.mark.parametrize(
    "other",
    [
        tiny_trial(impl="SlowNet"),
        tiny_trial().model_copy(update={"cpus": 2}),
        tiny_trial().model_copy(update={"model": MODEL.model_copy(update={"routing": 2})}),
        changed(tiny_trial(), train={"batch": 4}),
        changed(tiny_trial(), runtime={"precision": "fp64"}),
    ],
    ids=["implementation", "cores", "model", "batch", "precision"],
)
def test_other_work_tells_nothing(other: Trial) -> None:
    trial = tiny_trial()
    misleading = [(other, {"img_per_s": 1e-6, "compile_s": 1e6}), (trial, {"img_per_s": None, "compile_s": None})]
    assert estimate_s(trial, misleading) == estimate_s(trial, [])


def test_estimate_without_history(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = tiny_trial(epochs=3)
    images = 3 * 16 + 16 / 3
    monkeypatch.setattr(estimate, "matmul_flops_per_s", lambda: 1e6)
    slow = estimate_s(trial, [])
    assert slow == pytest.approx(5 + images * step_flops(MODEL, 1) * 1.5 / 1e6)
    monkeypatch.setattr(estimate, "matmul_flops_per_s", lambda: 1e12)
    assert 5 < estimate_s(trial, []) < slow  # type: ignore[operator]
    assert estimate_s(trial.model_copy(update={"gpus": 1}), []) is None  # a CPU's rate says nothing of a GPU


def test_a_slow_start_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "matmul_flops_per_s", lambda: 1e12)
    seconds = [
        estimate_s(tiny_trial().model_copy(update={"impl": impl}), []) or 0
        for impl in sorted(
            registry.BUILT_IN, key=lambda impl: (impl != registry.SPECIFICATION, registry.resolve(impl).slow_start)
        )
    ]
    assert seconds == sorted(seconds)
    assert seconds[0] < 5 < seconds[1] < seconds[-1]


def test_history_is_what_finished(tmp_path: Path) -> None:
    def write(run: str, trial: Trial, status: str) -> None:
        folder = tmp_path / run / "trials" / trial.id
        folder.mkdir(parents=True)
        (folder / "trial.json").write_text(trial.model_dump_json())
        (folder / "result.json").write_text(json.dumps({"status": status, "img_per_s": 1.0}))

    assert list(finished_trials(tmp_path / "none")) == []
    write("a", tiny_trial(seed=1), "finished")
    write("b", tiny_trial(seed=2), "finished")
    write("b", tiny_trial(seed=3), "failed")
    write("b", tiny_trial(seed=4), "finished")
    (tmp_path / "b" / "trials" / "TinyNet-4" / "trial.json").write_text('{"id": "of another version"}')
    write("b", tiny_trial(seed=5), "finished")
    (tmp_path / "b" / "trials" / "TinyNet-5" / "result.json").write_text("torn")
    assert [(trial.seed, result["img_per_s"]) for trial, result in finished_trials(tmp_path)] == [(1, 1.0), (2, 1.0)]
