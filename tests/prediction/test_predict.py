"""What is predicted is what the network says, whatever the batches; doubtful backgrounds are noticed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness import registry
from harness.errors import UserError
from harness.parity import probe_weights
from harness.prediction.pictures import Item, Picture, Unreadable
from harness.prediction.predict import Prediction, Predictor, Problem, Seen, predictions, score_name
from harness.prediction.trained import Trained, implementation, of_file, of_trial, some_images
from harness.spec import ModelSpec
from harness.spec.trial import DataConfig
from harness.views.prediction import as_csv, as_json, draw_sheet
from harness.weights.files import save_checkpoint, save_weights
from tests.conftest import ROOT
from tests.helpers.impl_helpers import FRAMEWORKS, THREADS, batch_of, loaded, small_model

RUN, TRIAL = ROOT / "tests" / "runs" / "quickstart-0.1", "7e07"
CNN = ModelSpec(kind="cnn", image=(9, 7, 2), classes=4, cnn_channels=(5, 4), cnn_kernel=(3, 2), cnn_units=(9,))
MODELS = {
    "capsnet": small_model(), "official": small_model(profile="official"), "no decoder": small_model(decoder=False),
    "pairs": small_model(overlaid=2), "cnn": CNN, "cnn pairs": ModelSpec(**{**CNN.model_dump(), "overlaid": 2}),
}  # fmt: skip


def trained(model: ModelSpec, data: DataConfig | None = None) -> Trained:
    return Trained(model, probe_weights(model, 3), Path("weights.safetensors"), {}, data, "numpy")


def items(images: np.ndarray) -> list[Item]:
    return [Item(f"{index}.png", partial(Picture, pixels)) for index, pixels in enumerate(images)]


def said(which: Trained, found: list[Item], impl: str = "numpy", batch: int = 64) -> list[Prediction | Problem]:
    predictor = Predictor(which, registry.resolve(impl), THREADS)
    return list(predictions(predictor, found, "pad", False, batch))


def scores(found: list[Prediction | Problem]) -> np.ndarray:
    return np.stack([each.scores for each in found if isinstance(each, Prediction)])


@pytest.mark.parametrize("name", MODELS)
def test_as_the_specification_says(name: str) -> None:
    model = MODELS[name]
    images, _ = batch_of(model, 5)
    digits = images if model.overlaid == 1 else np.stack([images, np.zeros_like(images)], axis=1)
    expected = loaded("numpy", model, probe_weights(model, 3), precision="fp32").forward(digits)
    found = said(trained(model), items(images), batch=2)  # the last batch is not full
    np.testing.assert_allclose(scores(found), expected.lengths, rtol=1e-5, atol=1e-6)
    for index, each in enumerate(found):
        assert isinstance(each, Prediction)
        assert each.classes.tolist() == np.argsort(-expected.lengths[index], kind="stable")[: model.overlaid].tolist()
        assert (each.pixels == images[index]).all()
        if expected.reconstruction is None:
            assert each.reconstruction is None
        else:
            drawn = expected.reconstruction[index].reshape(-1, *model.image)
            assert each.reconstruction is not None
            np.testing.assert_allclose(each.reconstruction, drawn, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", FRAMEWORKS)
def test_every_framework_says_the_same(impl: str) -> None:
    pytest.importorskip({"tf": "tensorflow"}.get(impl, impl))
    for model in (MODELS["pairs"], CNN):
        images, _ = batch_of(model, 3)
        expected, found = (said(trained(model), items(images), each) for each in ("numpy", impl))
        np.testing.assert_allclose(scores(found), scores(expected), rtol=1e-4, atol=1e-5)


def test_a_picture_that_cannot_be_read_leaves_the_others_alone() -> None:
    def broken() -> Picture:
        raise Unreadable("damaged: really")

    images, _ = batch_of(CNN, 4)
    whole = items(images)
    found = said(trained(CNN), [*whole[:1], Item("bad.png", broken), *whole[1:]], batch=2)
    assert [type(each) for each in found] == [Prediction, Problem, Prediction, Prediction, Prediction]
    assert found[1] == Problem("bad.png", "damaged: really")
    np.testing.assert_allclose(scores(found), scores(said(trained(CNN), whole)), rtol=1e-6)
    assert said(trained(CNN), [Item("bad.png", broken)]) == [Problem("bad.png", "damaged: really")]


@pytest.mark.parametrize(
    ("error", "said"),
    [(MemoryError("Unable to allocate 9 TiB"), "a smaller --batch than 2"), (ValueError("x\ny"), "ValueError: x y")],
)
def test_an_implementation_that_fails_is_named(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(_self: object, _images: np.ndarray) -> None:
        raise error

    monkeypatch.setattr(registry.specification(), "forward", forward)
    predictor = Predictor(trained(CNN), registry.resolve("numpy"), THREADS)
    with pytest.raises(UserError, match=f"numpy cannot compute predictions: .*{said}"):
        list(predictions(predictor, items(batch_of(CNN, 5)[0]), None, False, 2))


def test_scores_have_their_names() -> None:
    for name, normalised in (("capsnet", True), ("cnn", False), ("cnn pairs", False), ("pairs", True)):
        which = trained(MODELS[name])
        images, _ = batch_of(which.model, 2)
        found = as_json(which, said(which, items(images)))
        assert found["score"] == score_name(which.model) == ("capsule length" if normalised else "probability")
        row = found["predictions"][0]
        assert ("normalised" in row) == normalised
        several = which.model.overlaid > 1
        assert isinstance(row["class"], list) == isinstance(row["score"], list) == several
        if name == "cnn":
            assert sum(row["scores"]) == pytest.approx(1, abs=1e-5)
        if not several:
            assert row["score"] == max(row["scores"]) == row["scores"][row["class"]]
    assert "softmax" in as_json(trained(CNN), [])["score_means"]
    assert "sigmoid" in as_json(trained(MODELS["cnn pairs"]), [])["score_means"]
    assert "do not add up to 1" in as_json(trained(MODELS["capsnet"]), [])["score_means"]


def test_csv_has_one_line_a_picture_and_stable_columns() -> None:
    which = trained(MODELS["pairs"])
    images, _ = batch_of(which.model, 2)
    header, first, _, last = as_csv(which, [*said(which, items(images)), Problem('a,"b".png', "why")]).splitlines()
    assert header == "file,class,name,score,normalised,score_0,score_1,score_2,score_3,fitted,problem"
    assert first.startswith("0.png,")
    assert " + " in first.split(",")[1]
    assert last == '"a,""b"".png",,,,,,,,,,why'


@pytest.mark.parametrize("name", ["pairs", "cnn"])
def test_a_sheet_shows_pictures_with_names_of_any_kind(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    which = trained(MODELS[name])
    images, _ = batch_of(which.model, 12)
    found = [
        replace(each, name=r"$\frac$[b] 図.png") for each in said(which, items(images)) if isinstance(each, Prediction)
    ]
    draw_sheet(which, [*found, Problem("bad.png", "why")], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 5000


# The trained model


def test_a_trial_and_its_file_are_the_same_model(tmp_path: Path) -> None:
    of_run = of_trial(RUN, TRIAL, "best")
    path = RUN / "trials" / "7e07db8f14b8" / "best.safetensors"
    in_place, copied = of_file(path), tmp_path / "copied.safetensors"
    copied.write_bytes(path.read_bytes())
    for which in (in_place, of_file(copied)):
        assert which.model == of_run.model
        assert all((which.weights[name] == array).all() for name, array in of_run.weights.items())
        assert which.facts["trial"] == "7e07db8f14b8"
        assert which.class_names == tuple("0123456789")
        assert which.impl == "numpy"


def refused(path: Path) -> str:
    with pytest.raises(UserError) as refusal:
        of_file(path)
    return str(refusal.value)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    model, path = small_model(), tmp_path / "w.safetensors"
    weights = probe_weights(model, 0)
    facts = {"model": model.model_dump(mode="json")}
    save_weights(path, weights, facts)
    assert of_file(path).model == model
    assert of_file(path).class_names == ("0", "1", "2", "3")
    save_weights(path, weights | {"conv1.w": weights["conv1.w"][:2]}, facts)
    assert "conv1.w is 2x5x1x6, expected 5x5x1x6" in refused(path)
    save_weights(path, weights | {"conv1.b": weights["conv1.b"] * np.float32(np.nan)}, facts)
    assert "conv1.b has 6 of 6 values that are not finite" in refused(path)
    save_weights(path, weights)
    assert "does not say which model" in refused(path)
    save_weights(path, weights, {"model": {**facts["model"], "kernel": 99}})
    assert "its header describes no model" in refused(path)
    moments = loaded("numpy", model, weights).dump_moments()
    save_checkpoint(path, weights, moments)
    assert "a checkpoint, to resume from; give weights.safetensors" in refused(path)
    path.write_bytes(path.read_bytes()[:-9])
    assert "no readable safetensors file" in refused(path)


def test_which_implementation_computes() -> None:
    which = of_trial(RUN, TRIAL, "last")
    assert implementation(which, None)[0].name == "numpy"
    assert implementation(which, "numpy")[1] is None
    elsewhere = replace(which, impl="their_package.nets:Net")
    entry, why = implementation(elsewhere, None)
    assert entry.name in (*FRAMEWORKS, "numpy")
    assert why is not None
    assert 'trained by their_package.nets:Net, which is not here (implementation "their_package.nets:Net"' in why
    with pytest.raises(UserError, match='did you mean "torch"'):
        implementation(which, "toch")


# Backgrounds


def doubt(which: Trained, level: int, inverted: bool = False) -> str | None:
    seen = Seen()
    for _ in range(3):
        pixels = np.full(which.model.image, level, np.uint8)
        pixels[3, 3] = 128  # otherwise blank
        seen.see(pixels)
    found = seen.doubts(which, inverted)
    assert len(found) < 2
    return found[0] if found else None


def test_a_light_background_is_doubted_beside_dark_digits() -> None:
    which = of_trial(RUN, TRIAL, "last")
    assert doubt(which, 0) is None
    assert doubt(which, 40) is None
    told = doubt(which, 250)
    assert told is not None
    assert "3 of 3 pictures have a light background (level 250 of 255), where the images of digits have 0 to 0" in told
    assert told.endswith("try --invert")
    assert (doubt(which, 250, inverted=True) or "").endswith("leave out --invert")


def test_where_the_data_set_is_not_here_its_background_is_not_known(tmp_path: Path) -> None:
    absent = DataConfig(name="mnist", dir=str(tmp_path))
    assert "its data are not here" in (doubt(trained(small_model((28, 28, 1)), absent), 250) or "")
    assert doubt(trained(small_model((28, 28, 1)), absent), 3) is None
    assert doubt(trained(small_model((32, 32, 3))), 250) is None  # a colour photograph may be light


def test_blank_pictures_are_noticed() -> None:
    seen = Seen()
    for level in (0, 9):
        pixels = np.zeros((28, 28, 1), np.uint8)
        pixels[4:7] = level
        seen.see(pixels)
    found = seen.doubts(of_trial(RUN, TRIAL, "last"), False)
    assert found == ["1 of 2 pictures are a single colour: nothing is in them"]


def test_real_images_are_the_data_set_s_own(tmp_path: Path) -> None:
    which = of_trial(RUN, TRIAL, "last")
    images, whose = some_images(which.model, which.data, 7)
    assert (images.shape, whose) == ((7, 28, 28, 1), "digits, test images")
    images, whose = some_images(which.model, DataConfig(name="mnist", dir=str(tmp_path)), 4)
    assert (images.shape, whose) == ((4, 28, 28, 1), "drawn images: the data set is not here")
