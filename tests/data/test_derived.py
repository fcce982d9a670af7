"""Data sets made from another one's images: positions, transforms, cached files, and testing on another set."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from harness import data
from harness.data import affine, affnist_gen, mnist_expanded
from harness.data.base import Info, Split, uniform
from harness.data.divide import select
from harness.data.files import CorruptFile, MissingFiles
from harness.data.packed import Pack
from harness.errors import UserError
from harness.spec.trial import Augment, DataConfig
from harness.suite.suite import load_suite
from harness.weights import initial_weights
from harness.worker import training as trial
from tests.helpers.data_helpers import Few, tree
from tests.helpers.impl_helpers import batch_of, loaded, small_model

DIGITS = data.source("digits").read(Path())[1]


def few(count: int) -> Split:
    return DIGITS.take(np.arange(count))


def mapped(images: np.ndarray) -> bool:
    base: Any = images
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


# --- Digits at random on a canvas ---


def expanded() -> mnist_expanded.Expanded:
    return mnist_expanded.Expanded(
        dataclasses.replace(mnist_expanded.SOURCE.info, name="wide", train=9, validation=3, test=4), Few()
    )


def test_expanded() -> None:
    before, after = Few().read(Path()), expanded().read(Path())
    for part, (small, wide) in enumerate(zip(before, after, strict=True)):
        assert wide.images.shape == (len(small), 40, 40, 1)
        assert np.array_equal(wide.labels, small.labels)
        for index, (digit, canvas) in enumerate(zip(small.images, wide.images, strict=True)):
            assert canvas.sum(dtype=int) == digit.sum(dtype=int) > 0  # nothing is cut off
            found = [
                (row, column)
                for row in range(13)
                for column in range(13)
                if np.array_equal(canvas[row : row + 28, column : column + 28], digit)
            ]
            if part == 0 and index < 9:
                assert (6, 6) in found  # for training in the middle: shifted anew each epoch
            else:
                assert len(found) == 1
    again = expanded().read(Path())
    assert all(np.array_equal(a.images, b.images) for a, b in zip(after, again, strict=True))


def test_places_are_uniform_over_all_169() -> None:
    places = mnist_expanded._places(16_900, 1)
    counts = np.bincount(places[:, 0] * 13 + places[:, 1], minlength=169)
    assert len(counts) == 169
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert not np.array_equal(places[:100], mnist_expanded._places(100, 0))
    assert np.array_equal(places[:100], mnist_expanded._places(100, 1))


def test_a_training_image_is_shifted_as_the_set_is_meant(tmp_path: Path) -> None:
    assert data.shift(DataConfig(name="mnist-expanded")) == 6
    assert data.shift(DataConfig(name="mnist-expanded", augment=Augment(shift=0))) == 0
    assert data.shift(DataConfig(name="mnist")) == 0
    assert data.shift(DataConfig(name="mnist", augment=Augment(shift=2))) == 2
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ndata: {name: mnist-expanded, test_from: affnist-gen}\ngrid: {impl: [numpy]}\n")
    (made,) = load_suite(path).trials(0, lambda _: {})
    assert made.data.augment.shift == 6
    assert made.model.image == (40, 40, 1)


def test_expanded_is_mnist(mnist_dir: Path) -> None:
    whole = data.load(DataConfig(name="mnist-expanded", dir=str(mnist_dir)))
    assert [len(split) for split in (whole.train, whole.validation, whole.test)] == [50_000, 10_000, 10_000]
    small = data.load(DataConfig(name="mnist", validation=10_000, dir=str(mnist_dir)))
    assert np.array_equal(whole.train.images[:, 6:34, 6:34], small.train.images)
    assert np.array_equal(whole.validation.labels, small.validation.labels)
    sums = (split.images.sum((1, 2, 3), dtype=int) for split in (whole.test, small.test))
    assert np.array_equal(*sums)


# --- affNIST's recipe ---


def test_the_ranges_of_the_transforms() -> None:
    draws = np.concatenate([uniform(1, 2, (2000, 4)), np.zeros((1, 4)), np.full((1, 4), 1 - 2.0**-53)])
    found = affine.matrices(draws)
    angle = np.degrees(np.arctan2(found[:, 1, 0], found[:, 0, 0]))
    turned_back = np.stack([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    across = np.hypot(found[:, 0, 0], found[:, 1, 0])
    down = turned_back[0] * found[:, 1, 1] - turned_back[1] * found[:, 0, 1]
    shear = (turned_back[0] * found[:, 0, 1] + turned_back[1] * found[:, 1, 1]) / down
    for values, low, high in (angle, -20, 20), (shear, -0.2, 0.2), (across, 0.8, 1.2), (down, 0.8, 1.2):
        assert values[-2] == pytest.approx(low)
        assert values[-1] == pytest.approx(high)
        assert scipy.stats.kstest(values[:-2], "uniform", (low, high - low)).pvalue > 1e-3


def test_without_a_transform_a_digit_stays_upright_in_the_middle() -> None:
    images = np.zeros((1, 28, 28), np.uint8)
    images[0, 10:18, 10] = np.arange(100, 180, 10)  # an L
    images[0, 17, 10:18] = 250
    out = affine.render(images, np.full((1, 6), 0.5))
    assert np.array_equal(out, np.pad(images, [(0, 0), (6, 6), (6, 6)]))


def test_digits_are_resampled_bilinearly_and_whole() -> None:
    """Against SciPy's interpolation in floating point, on a canvas 10 pixels wider on each side."""
    digits, draws = few(60), uniform(3, 4, (60, 6))
    draws[:20, 4:], draws[20:40, 4:] = 0, 1 - 2.0**-53  # in two of the corners
    images = digits.images[..., 0]
    out = affine.render(images, draws)
    forward = affine.matrices(draws[:, :4])
    places = affine._places(images, forward, draws[:, 4:])
    for index, image in enumerate(images):
        # SciPy's axes are rows, then columns.
        inverse = np.linalg.inv(forward[index])[::-1, ::-1]
        origin = 13.5 - inverse @ (places[index][::-1] + 10)
        exact = scipy.ndimage.affine_transform(
            np.pad(image, 20).astype(float), inverse, origin + 20, output_shape=(60, 60), order=1
        )
        inside = exact[10:50, 10:50]
        assert np.abs(out[index] - inside).max() <= 3  # levels of 255: 8-digit weights
        assert exact.sum() == pytest.approx(inside.sum(), abs=1e-9)  # all of the digit is on the canvas
        ink: Any = exact > 0
        first, last = ink.any(axis=0).argmax(), 59 - ink.any(axis=0)[::-1].argmax()
        if index < 20:
            assert first <= 12  # and reaches its border
        elif index < 40:
            assert last >= 47


def test_a_digit_that_cannot_be_whole_or_is_blank() -> None:
    for image in (np.full((1, 28, 28), 255, np.uint8), np.zeros((1, 28, 28), np.uint8)):
        out = affine.render(image, np.array([[0.99, 0.99, 0.99, 0.99, 0.2, 0.9]]))
        assert (out[0, 18:22, 18:22] == image.max()).all()


def test_the_same_bytes_everywhere() -> None:
    blocks = list(affine.transformed(few(40), 2))
    images = np.concatenate([block.images for block in blocks])
    labels = np.concatenate([block.labels for block in blocks])
    assert images.shape == (40 * 32, 40, 40, 1)
    assert np.array_equal(labels, np.tile(few(40).labels, 32))
    assert (
        hashlib.sha256(images.tobytes()).hexdigest()
        == "1a345b3fb0f348ea7602fcee0483a7aab597e83f16d24a55f9f67ab6f4df2684"
    )
    assert len({image.tobytes() for image in images}) == len(images)
    other = next(affine.transformed(few(40), 1)).images
    assert not (other == images[:40]).all(axis=(1, 2, 3)).any()


# --- affnist-gen ---


def generated(digits: Few | None = None, **changes: object) -> affnist_gen.Generated:
    info = dataclasses.replace(
        affnist_gen.SOURCE.info, name="gen", train=9 * 32, validation=3 * 32, test=4 * 32, **changes
    )
    return affnist_gen.Generated(info, digits or Few())


def test_generated_parts(tmp_path: Path) -> None:
    source = generated()
    source.ensure_test(tmp_path, progress=False)
    assert sorted(tree(tmp_path)) == ["gen/test-images.npy", "gen/test-labels.npy", "gen/test.json"]
    with pytest.raises(MissingFiles, match=r"its training part is not in .*`capsbench data fetch gen` makes it"):
        source.read(tmp_path)
    source.ensure(tmp_path, progress=False)
    training, test = source.read(tmp_path)
    assert mapped(training.images)
    assert mapped(test.images)
    digits = Few().read(tmp_path)
    expected = [
        affine.transformed(digits[0].take(np.arange(9)), 0),
        affine.transformed(digits[0].take(np.arange(9, 12)), 1),
    ]
    together = np.concatenate([block.images for blocks in expected for block in blocks])
    assert np.array_equal(training.images, together)
    assert np.array_equal(test.labels, np.tile(digits[1].labels, 32))
    whole = select(source.info, DataConfig(name="gen"), training, test)
    assert all(mapped(split.images) for split in (whole.train, whole.validation, whole.test))
    assert np.array_equal(whole.validation.labels, np.tile(digits[0].labels[9:], 32))
    assert whole.provenance.startswith("generated here from MNIST")


def test_a_second_time_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated().ensure(tmp_path, progress=False)
    before = tree(tmp_path)
    monkeypatch.setattr(affnist_gen, "transformed", None)
    generated().ensure(tmp_path, progress=False)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("what", ["images", "labels"])
@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: content[:-1] + b"?", lambda _: b""])
def test_a_damaged_part_is_told_and_made_anew(what: str, spoil: object, tmp_path: Path) -> None:
    source = generated()
    source.ensure_test(tmp_path, progress=False)
    before = tree(tmp_path)
    path = tmp_path / "gen" / f"test-{what}.npy"
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(CorruptFile) as error:
        source.read_test(tmp_path)
    for words in (f"{path}: corrupt; SHA-256 expected", "`capsbench data fetch gen` makes it anew"):
        assert words in str(error.value)
    source.ensure_test(tmp_path, progress=False)
    assert tree(tmp_path) == before


def test_images_of_another_recipe_are_not_taken(tmp_path: Path) -> None:
    generated().ensure_test(tmp_path, progress=False)
    for other in (generated(files={"mnist": "other"}), generated(image=(39, 40, 1))):
        with pytest.raises(MissingFiles):
            other.read_test(tmp_path)


def pack(folder: Path, count: int = 4) -> Pack:
    return Pack(folder / "set", "test", (28, 28, 1), count, "r")


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[Split]:
        yield few(2)
        raise KeyboardInterrupt

    for before in ({}, None):
        if before is None:
            pack(tmp_path).write(iter([few(3), few(1)]), progress=False)
            path = tmp_path / "set" / "test-labels.npy"
            path.write_bytes(b"damaged, so that it is written again")
            before = tree(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            pack(tmp_path).write(failing(), progress=False)
        assert tree(tmp_path) == before


def test_what_is_written_has_as_many_images_as_it_says(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="set, test part: 5 images expected, found 4"):
        pack(tmp_path, 5).write(iter([few(4)]), progress=False)
    assert tree(tmp_path) == {}


def test_a_manifest_of_something_else(tmp_path: Path) -> None:
    pack(tmp_path).write(iter([few(4)]), progress=False)
    manifest = tmp_path / "set" / "test.json"
    assert set(json.loads(manifest.read_text())) == {"made", "images", "labels"}
    for text in ("", "[]", "{}", '{"made": "r; 4 images of 28x28x1"}'):
        manifest.write_text(text)
        with pytest.raises(MissingFiles):
            pack(tmp_path).read()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"(?s)file/gen cannot be written: Not a directory.*CAPSBENCH_DATA"):
        generated().ensure_test(tmp_path / "file", progress=False)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"name": "affnist-gen", "validation": 320_001},
            "data.validation: 320,001 .* has 320,000 .*32 images come from",
        ),
        ({"name": "affnist", "train": 1_600_001}, "data.train: 1,600,001 .* the splits would overlap"),
        ({"name": "mnist-expanded", "train": 50_001, "validation": 0}, "data.train: 50,001 .* places of their own"),
    ],
)
def test_parts_that_must_not_be_mixed(config: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        data.sizes(DataConfig.model_validate(config))


def test_fewer_validation_images_are_no_training_images(tmp_path: Path) -> None:
    source = generated()
    source.ensure(tmp_path, progress=False)
    parts = source.read(tmp_path)
    whole = select(source.info, DataConfig(name="gen", validation=10), *parts)
    assert (len(whole.train), len(whole.validation)) == (9 * 32, 10)
    assert np.array_equal(whole.train.images, parts[0].images[: 9 * 32])


# --- Testing on another set ---


def test_made_of_mnist() -> None:
    mnist = data.info("mnist").originals
    for name in ("mnist-expanded", "affnist", "affnist-gen"):
        assert data.info(name).originals == mnist


@pytest.mark.parametrize("name", ["affnist", "affnist-gen"])
def test_the_papers_protocol(name: str) -> None:
    config = DataConfig(name="mnist-expanded", test_from=name)
    assert data.sizes(config) == (50_000, 10_000, 320_000)
    assert data.sizes(config.model_copy(update={"test": 300}))[2] == 300
    assert data.sizes(DataConfig(name="mnist", canvas=40, test_from=name)) == (55_000, 5_000, 320_000)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "mnist", "test_from": "mnits"}, 'data.test_from: unknown data set "mnits"; did you mean "mnist"'),
        ({"name": "mnist", "test_from": "mnist"}, "data.test_from: mnist is the data set itself; leave it out"),
        ({"name": "mnist", "test_from": "kmnist"}, r"classes of kmnist \(o, ki, .*\) are not those of mnist \(0, 1"),
        ({"name": "mnist", "test_from": "affnist"}, "affnist are 40x40x1, those of mnist 28x28x1; data.canvas: 40"),
        ({"name": "mnist", "test_from": "svhn"}, "svhn are 32x32x3, .* as many channels"),
        ({"name": "mnist-expanded", "test_from": "affnist", "test": 320_001}, "data.test: .* affnist has 320,000"),
    ],
)
def test_a_test_set_that_does_not_fit(config: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        data.sizes(DataConfig.model_validate(config))
    path = tmp_path / "a.yaml"
    settings = ", ".join(f"{key}: {value}" for key, value in config.items())
    path.write_text(f"name: a\ndata: {{{settings}}}\ngrid: {{impl: [numpy]}}\n")
    with pytest.raises(UserError, match=words):
        load_suite(path)


def other_set(images: Split) -> tuple[Info, Split]:
    return dataclasses.replace(Few().info, name="other", source="the other", test=len(images)), images


def test_test_images_of_another_set(tmp_path: Path) -> None:
    training, own = Few().read(tmp_path)
    info, other = other_set(DIGITS.take(np.arange(10, 16)))
    config = DataConfig(name="few", test_from="other", test=5)
    whole = select(Few().info, config, training, other, info)
    assert (len(whole.train), len(whole.validation), len(whole.test)) == (9, 3, 5)
    assert (
        whole.provenance == "s: 9 of 12 training images, 3 others of them for validation; the other: 5 of 6 test images"
    )
    assert whole.sha256 != select(Few().info, DataConfig(name="few"), training, own).sha256


@pytest.mark.parametrize("index", [0, 8, 9, 11])
def test_test_images_that_are_trained_or_validated_on(index: int, tmp_path: Path) -> None:
    training, _ = Few().read(tmp_path)
    same = training.take(np.array([index]))
    images = np.concatenate([DIGITS.images[10:13], same.images])
    info, other = other_set(Split(images, np.concatenate([DIGITS.labels[10:13], same.labels])))
    with pytest.raises(
        UserError, match=r"data\.test_from: 1 test images of other are also .* of few; the splits overlap"
    ):
        select(Few().info, DataConfig(name="few", test_from="other"), training, other, info)


def test_without_validation_images(tmp_path: Path) -> None:
    info, other = other_set(DIGITS.take(np.arange(10, 16)))
    config = DataConfig(name="few", test_from="other", validation=0)
    whole = select(Few().info, config, Few().read(tmp_path)[0], other, info)
    assert (len(whole.train), len(whole.validation), len(whole.test)) == (12, 0, 6)


def test_test_images_made_of_training_images(tmp_path: Path) -> None:
    """Transformed, so that no two are the same byte for byte."""
    for made_of, overlap in ((("few test", "few training"), True), (("few training", "few test"), False)):
        info, other = other_set(DIGITS.take(np.arange(10, 16)))
        info = dataclasses.replace(info, made_of=made_of)
        config = DataConfig(name="few", test_from="other")
        if overlap:
            with pytest.raises(UserError, match=r"test images of other are made of the few training images.*overlap"):
                select(Few().info, config, Few().read(tmp_path)[0], other, info)
        else:
            assert len(select(Few().info, config, Few().read(tmp_path)[0], other, info).test) == 6


def test_evaluation_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    impl = loaded("numpy", model, initial_weights(model, 0))
    impl.compile(4)
    images, labels = batch_of(model, 22)
    split = Split(images, labels.astype(np.int64))
    at_once = trial._evaluate(impl, split, 4)
    sizes: list[int] = []
    evaluate = impl.evaluate
    monkeypatch.setattr(impl, "evaluate", lambda images, labels: sizes.append(len(labels)) or evaluate(images, labels))
    monkeypatch.setattr(trial, "_BLOCK", 10)
    in_blocks = trial._evaluate(impl, split, 4)
    assert sizes == [8, 8, 6]
    assert np.array_equal(in_blocks.predicted, at_once.predicted)
    assert dataclasses.astuple(in_blocks.loss) == pytest.approx(dataclasses.astuple(at_once.loss), rel=1e-12)


def test_released_images_are_read_again(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", few(4).images)
    images = np.load(tmp_path / "a.npy", mmap_mode="r")[1:]
    data.release(images)
    assert np.array_equal(images, few(4).images[1:])
    data.release(few(4).images)  # not mapped: nothing to let go of


def test_a_data_set_smaller_than_the_batch(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ndata: {name: mnist-expanded, train: 64}\ntrain: {batch: 65}\ngrid: {impl: [numpy]}\n")
    with pytest.raises(UserError, match=r"train\.batch: found 65, more than the 64 training images"):
        load_suite(path)
