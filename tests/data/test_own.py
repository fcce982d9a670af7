"""One's own pictures: what each format gives, how it is divided, stored and refused."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness import data
from harness.data.own import folder as own_folder
from harness.data.own import store
from harness.data.own.division import divided
from harness.errors import UserError
from harness.spec.trial import DataConfig, Division
from tests.helpers.pictures import COLOURS, arrays, class_folders, picture, save


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPSBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "pictures")


def found(name: str, path: Path | None = None, **settings: Any) -> DataConfig:
    return data.resolved(DataConfig(name=name, path=path and str(path), **settings))


def refused(name: str, path: Path | None = None, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        found(name, path, **settings)
    return str(error.value)


def every(dataset: data.Dataset) -> list[data.Split]:
    return [dataset.train, dataset.validation, dataset.test]


def prints(split: data.Split) -> set[bytes]:
    return {each.tobytes() for each in split.images}


# Folders


def test_a_folder_of_class_folders(folder: Path) -> None:
    config = found("folder", folder)
    assert config.own is not None
    assert (config.own.image, config.own.classes) == ((8, 8, 3), COLOURS)
    dataset = data.load(config)
    assert tuple(map(len, every(dataset))) == data.sizes(config) == (21, 3, 6)
    for split in every(dataset):
        assert split.images.dtype == np.uint8
        for image, label in zip(split.images, split.labels, strict=True):
            assert image.mean((0, 1)).argmax() == 2 - label  # the colour of its class
    originals = {np.asarray(Image.open(path)).tobytes() for path in folder.rglob("*.png")}
    shares = [prints(split) for split in every(dataset)]
    assert set.union(*shares) == originals
    assert sum(map(len, shares)) == len(originals)  # no picture twice
    assert dataset.test.labels.tolist() != sorted(dataset.test.labels.tolist())  # mixed: any first few are a fair batch


def test_folders_named_train_val_and_test_are_parts(tmp_path: Path) -> None:
    for number, (part, each) in enumerate((("Train", 4), ("val", 2), ("test", 3))):
        class_folders(tmp_path / "p" / part, each, first=100 * number)
    config = found("folder", tmp_path / "p")
    assert data.sizes(config) == (12, 6, 9)
    whole = data.load(config)
    test = {np.asarray(Image.open(path)).tobytes() for path in (tmp_path / "p" / "test").rglob("*.png")}
    assert prints(whole.test) == test
    with pytest.raises(UserError, match="takes none from elsewhere: its validation pictures have files of their own"):
        data.sizes(config.model_copy(update={"train": 13}))


def test_test_pictures_may_be_elsewhere(tmp_path: Path, folder: Path) -> None:
    test = class_folders(tmp_path / "other", 2, first=500)
    config = found("folder", folder, test_path=str(test))
    assert data.sizes(config) == (27, 3, 6)
    assert prints(data.load(config).test) == {np.asarray(Image.open(path)).tobytes() for path in test.rglob("*.png")}


def test_classes_choose_and_order_folders(folder: Path) -> None:
    config = found("folder", folder, classes=("red", "blue"))
    whole = data.load(config)
    assert data.class_names(config) == ("red", "blue")
    assert len(whole.train) + len(whole.validation) + len(whole.test) == 20
    assert all(whole.train.images[whole.train.labels == 0].mean((0, 1, 2)).argmax() == channel for channel in (0,))
    assert 'no folder "rde"; did you mean "red"?' in refused("folder", folder, classes=("rde", "blue"))


def _break(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda top: shutil.rmtree(top), "data.path: there is no folder"),
        (lambda top: [shutil.rmtree(top / name) for name in ("red", "green")], "one class folder only, blue"),
        (lambda top: (top / "black").mkdir(), "no picture in this class folder"),
        (lambda top: _break(top / "red" / "3.png"), "3.png: a PNG picture that ends early or is damaged"),
        (lambda top: (top / "red" / "x.png").write_text("<html>sign in"), "x.png: an HTML page"),
        (lambda top: (top / "red" / "x.jpg").write_text("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
        (lambda top: (top / "red" / "x.png").touch(), "x.png: an empty file (download or copy it again)"),
        (lambda top: (top / "red" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "x.png: a PNG picture that is damaged"),
        (
            lambda top: Image.new("RGB", (6, 6)).save(top / "red" / "x.png", "WEBP"),
            "x.png: a WebP picture (convert it to PNG)",
        ),
        (lambda top: (top / "red" / "x.webp").touch(), "a WEBP picture; PNG, JPEG, BMP and TIFF are read"),
        (lambda top: save(top / "red" / "x.png", picture(1, size=(9, 8))), "data.resize: the pictures have 2 different sizes"),
        (lambda top: (top / "red" / "x.png").symlink_to(top / "gone.png"), "gone.png, which is not there"),
        (lambda top: (top / "train").mkdir(), "has train beside blue, green, red: are these parts or classes?"),
        (lambda top: save(top / "red" / "x.tif", picture(1), save_all=True, append_images=[Image.new("RGB", (8, 8))]),
         "x.tif: 2 pictures in one file"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_as_expected_is_refused(folder: Path, change: Any, said: str) -> None:
    change(folder)
    assert said in refused("folder", folder)


def test_all_broken_pictures_are_named_at_once(folder: Path) -> None:
    for number in range(3):
        _break(folder / "red" / f"{number}.png")
    said = refused("folder", folder)
    assert all(f"{number}.png" in said for number in range(3))
    assert "3 of 30 pictures cannot be used" in said


def test_what_is_no_picture_is_left_out_and_told(folder: Path) -> None:
    for hidden in (".DS_Store", "Thumbs.db", "._1.png"):
        (folder / "red" / hidden).write_text("x")
    (folder / ".git").mkdir()
    (folder / "red" / "notes.txt").write_text("x")
    save(folder / "loose.png", picture(1))
    config = found("folder", folder)
    assert config.own is not None
    assert "left out: 1 file, .txt" in config.own.notes
    assert "left out: 1 file, pictures beside the class folders" in config.own.notes
    assert sum(data.sizes(config)) == 30


def test_pipes_and_folders_that_contain_themselves(folder: Path) -> None:
    os.mkfifo(folder / "red" / "pipe.png")
    (folder / "red" / "loop").symlink_to(folder / "red")
    config = found("folder", folder)
    assert config.own is not None
    assert "left out: 1 file, not a regular file" in config.own.notes
    assert sum(data.sizes(config)) == 30


def test_hints_for_another_place_or_format(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "outer").mkdir()
    folder.rename(tmp_path / "outer" / "pictures")
    assert f"one level down (blue, green, red): give {tmp_path / 'outer' / 'pictures'}" in refused(
        "folder", tmp_path / "outer"
    )
    flat = tmp_path / "outer" / "pictures" / "red"
    assert "holds 10 pictures, but no class folders" in refused("folder", flat)
    np.savez(tmp_path / "d.npz", images=arrays()[0], labels=arrays()[1])
    assert "is a NumPy archive (.npz); expected a folder" in refused("folder", tmp_path / "d.npz")
    assert "set data.name: npz" in refused("folder", tmp_path / "d.npz")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "is a link to" in refused("folder", tmp_path / "link")


# Pictures


def _one(tmp_path: Path, name: str, image: Image.Image, **options: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """The only picture of a class as it is trained on, beside a class of plain grey ones."""
    for number in range(3):
        save(tmp_path / "p" / "plain" / f"{number}.png", np.full((4, 6), 60 + number, np.uint8))
    (tmp_path / "p" / "odd").mkdir()
    image.save(tmp_path / "p" / "odd" / name, **options)
    config = found("folder", tmp_path / "p")
    assert config.own is not None
    whole = data.load(config)
    return whole.train.images[whole.train.labels == 0][0], config.own.notes


RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    coloured = Image.fromarray(np.stack([RAMP, RAMP // 2, 255 - RAMP], -1))
    image, _ = _one(tmp_path, "x.png", coloured.convert("P", palette=Image.Palette.ADAPTIVE, colors=24))
    np.testing.assert_allclose(image, np.asarray(coloured), atol=3)


def test_a_palette_of_greys_is_grey(tmp_path: Path) -> None:
    image, _ = _one(tmp_path, "x.png", Image.fromarray(RAMP).convert("P"))
    assert image.shape == (4, 6, 1)
    np.testing.assert_array_equal(image[..., 0], RAMP)


def test_transparency_is_laid_over_black(tmp_path: Path) -> None:
    alpha = np.where(RAMP < 120, 0, 255).astype(np.uint8)
    image, notes = _one(tmp_path, "x.png", Image.fromarray(np.stack([RAMP + 9, RAMP, RAMP, alpha], -1)))
    np.testing.assert_array_equal(image, np.stack([RAMP + 9, RAMP, RAMP], -1) * (alpha[..., None] > 0))
    assert "1 picture with transparency, laid over black" in notes


def test_16_bits_become_8(tmp_path: Path) -> None:
    image, notes = _one(tmp_path, "x.png", Image.fromarray(RAMP.astype(np.uint16) * 257))
    np.testing.assert_array_equal(image[..., 0], RAMP)
    assert "1 picture of 16 bits, divided by 257" in notes


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    plain = Image.fromarray(np.stack([RAMP, RAMP, 255 - RAMP], -1))
    image, notes = _one(tmp_path, "x.tif", plain.convert("CMYK"))
    np.testing.assert_allclose(image, np.asarray(plain), atol=2)
    assert any("in CMYK" in note for note in notes)


@pytest.mark.parametrize(("suffix", "tolerance"), [("tif", 0), ("png", 0), ("jpg", 12)])
def test_a_photograph_is_turned_upright(tmp_path: Path, suffix: str, tolerance: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = Image.fromarray(np.rot90(RAMP).copy())
    image, notes = _one(tmp_path, f"x.{suffix}", turned, exif=exif)
    np.testing.assert_allclose(image[..., 0], RAMP, atol=tolerance)
    assert any("EXIF" in note for note in notes)


def test_black_and_white_and_jpeg_and_bmp(tmp_path: Path) -> None:
    image, _ = _one(tmp_path, "x.bmp", Image.fromarray(RAMP > 100))
    np.testing.assert_array_equal(image[..., 0], np.where(RAMP > 100, 255, 0))
    Image.fromarray(RAMP).save(tmp_path / "p" / "odd" / "x.bmp", "JPEG", quality=95)  # whatever its name says
    config = found("folder", tmp_path / "p")
    whole = data.load(config)
    np.testing.assert_allclose(whole.train.images[whole.train.labels == 0][0][..., 0], RAMP, atol=12)


def test_channels(folder: Path) -> None:
    grey = data.load(found("folder", folder, channels=1)).train
    coloured = data.load(found("folder", folder)).train
    weights = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey.images[..., 0], coloured.images @ weights, atol=1)


def test_resize_crop_and_pad(tmp_path: Path) -> None:
    class_folders(tmp_path / "p", size=(12, 20))
    save(tmp_path / "p" / "red" / "tall.png", picture(9, 2, (30, 10)))

    def image(**settings: Any) -> tuple[int, ...]:
        config = found("folder", tmp_path / "p", **settings)
        shape = data.load(config).train.images.shape[1:]
        assert shape == data.shape(config)
        return shape

    assert image(resize=8) == (8, 8, 3)
    assert image(resize="6x9", crop=4) == (4, 4, 3)
    assert image(resize="6x9", pad="10x12", canvas=16) == (16, 16, 3)
    assert image(resize="6x9", fit="crop") == (6, 9, 3)
    padded = data.load(found("folder", tmp_path / "p", resize=10, fit="pad")).train.images
    assert (padded[:, 0].max((1, 2)) == 0).sum() >= len(padded) - 1  # all but the tall one have black above
    assert "data.crop: 40x40 pixels, but the images are 8x8" in refused("folder", tmp_path / "p", resize=8, crop=40)
    assert "data.pad: 4x4 pixels, but the images are 8x8" in refused("folder", tmp_path / "p", resize=8, pad=4)
    assert "data.fit: says how data.resize fits" in refused("folder", tmp_path / "p", fit="crop")


def test_built_in_images_are_cut_and_scaled_too() -> None:
    config = DataConfig(name="digits", crop="20x24", train=9, validation=3, test=4)
    plain = data.load(DataConfig(name="digits", train=9, validation=3, test=4))
    cut = data.load(config)
    assert data.shape(config) == (20, 24, 1)
    for ours, theirs in zip(every(cut), every(plain), strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images[:, 4:24, 2:26])
    assert "cut to the middle 20x24" in cut.provenance
    scaled = data.load(config.model_copy(update={"crop": None, "resize": 14})).train.images
    means = plain.train.images.reshape(9, 14, 2, 14, 2).mean((2, 4))
    assert np.abs(scaled[..., 0] - means).mean() < 12
    assert "digits has no such setting; it is for folder" in _said(DataConfig(name="digits", path="/x"))


def _said(config: DataConfig) -> str:
    with pytest.raises(UserError) as error:
        data.resolved(config)
    return str(error.value)


# Dividing


def test_the_division_is_stratified_fixed_and_drawn_by_its_own_seed() -> None:
    labels = np.repeat([0, 1, 2], [50, 10, 3])
    first = divided(labels, 0, None, [], Division())
    assert first.training.tolist() == divided(labels, 0, None, [], Division()).training.tolist()
    assert np.bincount(labels[first.test]).tolist() == [10, 2, 1]
    assert np.bincount(labels[first.training[-first.validation :]]).tolist() == [4, 1, 1]
    assert sorted([*first.training, *first.test]) == list(range(63))
    other = divided(labels, 0, None, [], Division(seed=1))
    assert sorted(other.test) != sorted(first.test)
    assert np.bincount(labels[other.test]).tolist() == [10, 2, 1]
    none = divided(labels, 0, 7, [], Division(validation=0))
    assert (len(none.training), none.validation, sorted(none.test)) == (63, 0, list(range(7)))
    lone = divided(np.array([0, 1, 1]), 0, None, [], Division(test=0.9))
    assert 0 in lone.training  # the only picture of its class


def test_copies_of_a_picture_stay_together() -> None:
    labels = np.zeros(40, np.int64)
    copies = [[index, index + 20] for index in range(20)]
    for seed in range(3):
        drawn = divided(labels, 0, None, copies, Division(seed=seed, test=0.5))
        parts = [{*drawn.test}, {*drawn.training[-drawn.validation :]}, {*drawn.training[: -drawn.validation]}]
        assert all(sum({*pair} <= part for part in parts) == 1 for pair in copies)
        assert len(parts[0]) == 20


def test_pictures_in_two_places_are_told(tmp_path: Path) -> None:
    top = tmp_path / "p"
    class_folders(top / "train", 4)
    class_folders(top / "test", 3, first=100)
    shutil.copy(top / "train" / "red" / "0.png", top / "test" / "red" / "again.png")
    shutil.copy(top / "train" / "red" / "1.png", top / "train" / "blue" / "wrong.png")
    config = found("folder", top)
    assert config.own is not None
    told = "\n".join(config.own.notes)
    assert "1 of the 10 test pictures are training pictures too" in told
    assert "again.png" in told
    assert "1 pictures are there under several classes" in told
    assert "wrong.png" in told


# Storing


def test_decoded_once(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = found("folder", folder)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)  # nothing can be decoded any more
    assert found("folder", folder) == first
    moved = folder.rename(folder.with_name("moved"))
    again = found("folder", moved)
    assert again.own == first.own
    assert len(list((cache / "own").iterdir())) == 1
    shutil.rmtree(moved)
    assert data.load(again).sha256 == data.load(first).sha256


def test_other_pictures_are_other_data(folder: Path) -> None:
    first = found("folder", folder)
    save(folder / "red" / "0.png", picture(99, 2))
    second = found("folder", folder)
    assert first.own
    assert second.own
    assert first.own.sha256 != second.own.sha256
    Image.open(folder / "red" / "1.png").save(folder / "red" / "1.png", compress_level=1)  # the same pixels
    third = found("folder", folder)
    assert third.own is not None
    assert third.own.sha256 == second.own.sha256
    assert third.own.files_sha256 != second.own.files_sha256


def test_a_damaged_store_is_made_anew_or_refused(folder: Path, cache: Path) -> None:
    config = found("folder", folder)
    kept = data.load(config).sha256
    stored = next((cache / "own").glob("*/training-images.npy"))
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    with pytest.raises(UserError, match=r"training-images\.npy: corrupt"):
        data.load(config)
    data.ensure(config, progress=False)
    assert data.load(config).sha256 == kept
    next((cache / "own").glob("*/training-labels.npy")).write_bytes(b"short")
    assert found("folder", folder) == config
    assert data.load(config).sha256 == kept
    shutil.rmtree(cache / "own")
    save(folder / "red" / "0.png", picture(99, 2))
    with pytest.raises(UserError, match="other pictures than those that this trial was planned with"):
        data.ensure(config, progress=False)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="stored neither there nor in"):
        data.load(config)


def test_files_that_change_while_they_are_read(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect = own_folder.collect

    def slow(config: DataConfig) -> Any:
        found = collect(config)
        save(folder / "red" / "0.png", picture(99, 2))
        return found

    monkeypatch.setattr(own_folder, "collect", slow)
    assert "the files changed while they were read" in refused("folder", folder)
    monkeypatch.undo()
    monkeypatch.setenv("CAPSBENCH_DATA", str(cache))
    assert sum(data.sizes(found("folder", folder))) == 30


def test_pictures_too_large_to_be_decoded_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MOST_BYTES", 5000.0)
    assert "data.resize: 30 pictures of 8x8 take 0.0 GB decoded; at most" in refused("folder", folder)
    assert sum(data.sizes(found("folder", folder, resize=6))) == 30


def test_a_half_written_store_is_completed(folder: Path, cache: Path) -> None:
    first = found("folder", folder)
    next((cache / "own").glob("*/facts.json")).unlink()
    assert found("folder", folder) == first


def test_a_data_directory_that_cannot_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAPSBENCH_DATA", str(tmp_path / "file"))
    config = found("folder", folder)  # in the user's cache instead
    assert len(data.load(config).train) == 21
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "your own pictures cannot be stored" in refused("folder", folder)


# Arrays


def test_npz_by_the_usual_names(tmp_path: Path) -> None:
    images, labels = arrays()
    same: list[dict[str, Any]] = [
        {"images": images, "labels": labels},
        {"x": images, "y": labels},
        {"X": images[..., None], "Y": labels[:, None]},
        {"data": images, "targets": np.eye(3)[labels]},
        {"arr_0": images, "arr_1": labels.astype(np.uint8)},
    ]
    for number, each in enumerate(same):
        np.savez(tmp_path / f"{number}.npz", **each)
        config = found("npz", tmp_path / f"{number}.npz")
        whole = data.load(config)
        assert config.own is not None
        assert config.own.classes == ("0", "1", "2")
        assert set.union(*map(prints, every(whole))) == {image.tobytes() for image in images}
        for image, label in zip(whole.train.images, whole.train.labels, strict=True):
            assert image.mean() // 67 == label


def test_npz_with_parts_and_class_names(tmp_path: Path) -> None:
    images, labels = arrays(20)
    np.savez(
        tmp_path / "d.npz", x_train=images[:40], y_train=labels[:40], val_images=images[40:50], val_labels=labels[40:50],
        xTest=images[50:], yTest=labels[50:], class_names=np.array(["dark", "middle", "light"]),
    )  # fmt: skip
    config = found("npz", tmp_path / "d.npz")
    assert data.sizes(config) == (40, 10, 10)
    assert data.class_names(config) == ("dark", "middle", "light")
    assert data.class_names(found("npz", tmp_path / "d.npz", classes=("a", "b", "c", "d"))) == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("images", "note"),
    [
        (lambda images: images, None),
        (lambda images: images / np.float32(255), "pixels from 0 to 1 were multiplied by 255"),
        (lambda images: images.astype(np.float64), None),
        (lambda images: images + 0.25, "as fractions were rounded"),
        (lambda images: images.astype(np.int64), None),
        (lambda images: images.astype(np.uint16) * 257, "16-bit pixels"),
        (lambda images: np.repeat(images[:, None], 3, 1), "channels come first"),
    ],
)
def test_pixels_of_any_scale_give_the_same_pictures(tmp_path: Path, images: Any, note: str | None) -> None:
    plain, labels = arrays()
    np.savez(tmp_path / "d.npz", images=images(plain), labels=labels)
    config = found("npz", tmp_path / "d.npz", channels=1)
    assert config.own is not None
    assert set.union(*map(prints, every(data.load(config)))) == {image.tobytes() for image in plain}
    assert note is None or any(note in each for each in config.own.notes)


def _npz(path: Path, **given: Any) -> Path:
    np.savez(path, **given)
    return path


def test_npz_files_that_are_refused(tmp_path: Path) -> None:
    images, labels = arrays()
    path = tmp_path / "d.npz"
    ragged = np.array([images[0], images[1, :3]], object)
    for said, given in {
        "holds Python objects (pickled), which are not read": {"images": ragged, "labels": labels[:2]},
        "30 pictures, but 29 labels": {"images": images, "labels": labels[1:]},
        "no labels for images": {"images": images},
        "no array of pictures by its name; found foo (30x6x6)": {"foo": images, "labels": labels},
        "pixels from -1 to": {"images": images / 127.5 - 1, "labels": labels},
        "pixels that are no numbers (NaN or infinite)": {"images": images * np.float32(np.nan), "labels": labels},
        "pixels from 0 to 999; expected": {
            "images": np.where(np.arange(6) == 3, 999, images.astype(int)),
            "labels": labels,
        },
        "pixels from 0 to 1e+06": {"images": np.full(images.shape, 1_000_000), "labels": labels},
        "4 channels (30x6x6x4): remove the last one": {"images": np.repeat(images[..., None], 4, 3), "labels": labels},
        "all pictures have the label 0": {"images": images, "labels": labels * 0},
        "labels that are not whole numbers, such as 0.5": {"images": images, "labels": labels + 0.5},
        "an array of one number; expected pictures": {"images": np.uint8(3), "labels": labels},
        "labels of 30x2; expected one label a picture": {"images": images, "labels": np.stack([labels, labels], 1)},
        "no class has more than one; add pictures": {"images": images, "labels": np.arange(30)},
        "no class has more than one (copies of a picture count once)": {"images": images * 0, "labels": labels},
        "which is no square": {"images": images.reshape(30, 36)[:, :35], "labels": labels},
        "pictures of different sizes": {
            "images": images,
            "labels": labels,
            "test_images": images[:, :5],
            "test_labels": labels,
        },
    }.items():
        assert said in refused("npz", _npz(path, **given)), said
    assert "data.classes: 2 names, for labels from 0 to 1" in refused(
        "npz", _npz(path, images=images, labels=labels), classes=("a", "b")
    )
    path.write_bytes(path.read_bytes()[:500])
    assert "truncated: an NPZ file whose end is missing" in refused("npz", path)
    path.write_text("<!DOCTYPE html><title>404")
    assert "an HTML page" in refused("npz", path)
    np.save(tmp_path / "d.npy", images)
    assert "a NumPy array (.npy); expected an NPZ file" in refused("npz", tmp_path / "d.npy")
    assert "there is no file" in refused("npz", tmp_path / "d.npx")
    assert 'did you mean "d.npz"?' in refused("npz", tmp_path / "d.npx")


def test_labels_with_gaps_and_text(tmp_path: Path) -> None:
    images, labels = arrays()
    config = found("npz", _npz(tmp_path / "gaps.npz", images=images, labels=labels * 5 + 1))
    assert config.own is not None
    assert config.own.classes == ("1", "6", "11")
    assert "labels from 1 to 11 stand for 3 classes, which keep them as names" in config.own.notes
    named = found("npz", _npz(tmp_path / "text.npz", images=images, labels=np.array(["cat", "ape", "dog"])[labels]))
    assert data.class_names(named) == ("ape", "cat", "dog")
    bytes_ = found("npz", _npz(tmp_path / "b.npz", images=images, labels=np.array([b"\xfe", b"\xff", b"c"])[labels]))
    assert data.class_names(bytes_) == ("\\xfe", "\\xff", "c")
    whole = data.load(named)
    assert {int(image.mean() // 67) for image in whole.train.images[whole.train.labels == 1]} == {0}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\nb", r"'a\nb' has U+000A in its name"),
        ("\x1b[31m", "has U+001B"),
        ("a\u2028b", "has U+2028"),
        ("\udcff", r"'\udcff' has bytes that are not UTF-8"),
        ("Käse, 👩\u200d🔬 <b>$x_1$", None),
    ],
)
def test_class_names_that_cannot_be_shown_are_refused(folder: Path, name: str, said: str | None) -> None:
    (folder / "red").rename(folder / name)
    if said is None:
        assert name in data.class_names(found("folder", folder))
    else:
        assert said in refused("folder", folder)


# CSV


def table(path: Path, first: bool = True, header: str | None = None, separator: str = ",", names: Any = None) -> Path:
    images, labels = arrays()
    said = labels if names is None else np.array(names)[labels]
    rows = [
        separator.join(map(str, [label, *image.ravel()] if first else [*image.ravel(), label]))
        for image, label in zip(images, said, strict=True)
    ]
    pixels = [f"pixel{number}" for number in range(36)]
    if header:
        rows.insert(0, separator.join([header, *pixels] if first else [*pixels, header]))
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("form", [
    {}, {"first": False}, {"header": "label"}, {"header": "digit", "first": False}, {"separator": ";"}, {"separator": "\t"},
    {"header": "what", "names": ["ape", "cat", "dog"]},
])  # fmt: skip
def test_csv_of_any_form(tmp_path: Path, form: dict[str, Any]) -> None:
    config = found("csv", table(tmp_path / "d.csv", **form))
    whole = data.load(config)
    assert set.union(*map(prints, every(whole))) == {image.tobytes() for image in arrays()[0]}
    for image, label in zip(whole.train.images, whole.train.labels, strict=True):
        assert image.mean() // 67 == label
    assert data.class_names(config) == tuple(form.get("names", "012"))


def test_csv_columns_that_number_the_rows_are_no_pixels(tmp_path: Path) -> None:
    lines = table(tmp_path / "d.csv", header="label").read_text().splitlines()
    numbered = [f"{number},{line}" for number, line in enumerate(lines[1:])]
    (tmp_path / "id.csv").write_text("\n".join(["id," + lines[0], *numbered]))
    ours, plain = (data.load(found("csv", tmp_path / name)) for name in ("id.csv", "d.csv"))
    assert ours.sha256 == plain.sha256


def test_csv_gzipped_and_a_test_file(tmp_path: Path) -> None:
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(table(tmp_path / "d.csv", header="label").read_bytes()))
    config = found("csv", tmp_path / "d.csv.gz", test_path=str(tmp_path / "d.csv"))
    assert config.own is not None
    assert data.sizes(config) == (27, 3, 30)
    assert any("30 of the 30 test pictures are training pictures too" in note for note in config.own.notes)


def test_csv_files_that_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "d.csv", header="label")
    lines = path.read_text().splitlines()

    def rewritten(*changed: str) -> str:
        (tmp_path / "x.csv").write_text("\n".join(changed))
        return refused("csv", tmp_path / "x.csv")

    assert "x.csv:3: 36 columns; expected 37" in rewritten(*lines[:2], lines[2].partition(",")[2], *lines[3:])
    assert "line 2, column 2: 'x' is no number" in rewritten(lines[0], "0,x," + ",".join(["1"] * 35), *lines[2:])
    assert "line 4, column 37: '' is no number" in rewritten(
        *lines[:2], "", lines[2].rpartition(",")[0] + ",", *lines[3:]
    )  # after an empty line
    assert "a header, but no row below it" in rewritten(lines[0])
    assert "2 columns; expected a CSV file" in rewritten("a,b", "1,2")
    assert "an empty file" in rewritten("")
    assert "UTF-16 text" in _bytes(tmp_path, "\n".join(lines).encode("utf-16"))
    assert "a zip archive" in _bytes(tmp_path, b"PK\x03\x04" + b"x" * 200)
    assert "data.shape: 5x5 is 25 pixels, but" in refused("csv", path, shape="5x5")
    cut = [line.rpartition(",")[0] for line in lines]
    assert "has 35 columns of pixels, which is no square" in rewritten(*cut)
    assert 'has no column "lable"; did you mean "label"?' in refused("csv", path, label_column="lable")
    test = tmp_path / "test.csv"
    test.write_text("\n".join(line.partition(",")[2] for line in lines))
    assert "no labels in it, so it cannot be tested on (Kaggle's test.csv" in refused("csv", path, test_path=str(test))


def _bytes(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "b.csv").write_bytes(content)
    return refused("csv", tmp_path / "b.csv")


def test_csv_in_colour_needs_its_shape(tmp_path: Path) -> None:
    images = np.stack([picture(number, number % 3, (4, 4)) for number in range(30)])
    rows = [",".join(map(str, [number % 3, *image.ravel()])) for number, image in enumerate(images)]
    (tmp_path / "c.csv").write_text("\n".join(rows))
    assert "(4x4x3 would fit)" in refused("csv", tmp_path / "c.csv")
    config = found("csv", tmp_path / "c.csv", shape="4x4x3")
    assert set.union(*map(prints, every(data.load(config)))) == {image.tobytes() for image in images}


# IDX


def idx(array: np.ndarray) -> bytes:
    return (
        struct.pack(">BBBB", 0, 0, 8, array.ndim)
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )


def test_idx_two_files_or_four(tmp_path: Path) -> None:
    images, labels = arrays()
    top = tmp_path / "i"
    top.mkdir()
    (top / "train-images-idx3-ubyte").write_bytes(idx(images))
    (top / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    config = found("idx", top)
    assert data.sizes(config) == (21, 3, 6)
    assert set.union(*map(prints, every(data.load(config)))) == {image.tobytes() for image in images}
    (top / "t10k-images.idx3-ubyte").write_bytes(idx(images[:5]))
    assert "no labels beside it; expected t10k-labels.idx1-ubyte" in refused("idx", top)
    (top / "t10k-labels.idx1-ubyte").write_bytes(idx(labels[:5]))
    assert data.sizes(found("idx", top)) == (27, 3, 5)
    (top / "train-images-idx3-ubyte").write_bytes(idx(images) + b"xy")
    assert "2 bytes too long" in refused("idx", top)
    (top / "train-images-idx3-ubyte").write_bytes(idx(images)[:-100])
    assert "truncated: 996 of 1,096 bytes" in refused("idx", top)
    (top / "train-images-idx3-ubyte").write_text("version https://git-lfs.github.com/spec/v1")
    assert "a Git LFS pointer" in refused("idx", top)
    assert "no IDX files of pictures" in refused("idx", _empty(tmp_path))


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


# A function


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the working directory, as the command finds it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mypictures", raising=False)
    np.savez(tmp_path / "a.npz", images=arrays()[0], labels=arrays()[1])
    path = tmp_path / "mypictures.py"
    path.write_text(
        "import numpy as np\n"
        "with np.load('a.npz') as a:\n    X, Y = a['images'], a['labels']\n"
        "def tuple_():\n    return X, Y\n"
        "def keras():\n    return (X[:20], Y[:20]), (X[20:], Y[20:])\n"
        "def dictionary():\n    return {'images': X, 'labels': Y, 'classes': ['a', 'b', 'c']}\n"
        "def nothing(): ...\n"
        "def broken():\n    raise KeyError('no such')\n"
        "def ragged():\n    return [[1, 2], [3]], [0, 1]\n"
        "def leaves():\n    raise SystemExit(3)\n"
        "def chatty():\n    print('loading')\n    return X, Y\n"
        "VALUE = 3\n"
    )
    return path


def test_what_a_function_prints_is_no_result(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found("module", module="mypictures:chatty")
    assert capsys.readouterr() == ("", "loading\n")


def test_a_function_gives_arrays(mine: Path) -> None:
    assert data.sizes(found("module", module="mypictures:tuple_")) == (21, 3, 6)
    assert data.sizes(found("module", module="mypictures:keras"))[2] == 10
    assert data.class_names(found("module", module="mypictures:dictionary")) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("mypictures", "does not name a function: expected package.module:function"),
        ("mypictures:none", "mypictures has no none"),
        ("mypictures:VALUE", "has a VALUE of type int, no function"),
        ("mypictures:nothing", "returned nothing (None); expected a dictionary"),
        ("mypictures:broken", "failed: KeyError: 'no such'"),
        ("mypictures:ragged", "images is no array"),
        ("mypictures:leaves", "failed: SystemExit: 3"),
        ("mypictures.py:tuple_", "for the file mypictures.py that is mypictures:tuple_"),
        ("nowhere:f", "importing nowhere failed: ModuleNotFoundError"),
    ],
)
def test_a_function_that_does_not_work_is_refused(mine: Path, module: str, said: str) -> None:
    assert said in refused("module", module=module)


def test_settings_that_do_not_fit_the_format(folder: Path) -> None:
    assert "data.path: missing; folder needs a folder" in refused("folder")
    assert "data.module: missing" in refused("module")
    assert "data.label_column: folder has no such setting; it has channels" in refused(
        "folder", folder, label_column="first"
    )
    with pytest.raises(UserError, match=r"data.test_from: folder is no data set of its own; .* data.test_path"):
        data.require("folder", "data.test_from")


def test_facts_say_where_everything_is(folder: Path, cache: Path) -> None:
    config = found("folder", folder)
    assert config.own is not None
    facts = json.loads((cache / "own" / config.own.key / "facts.json").read_text())
    assert facts["classes"] == [*COLOURS]
    assert facts["counts"] == {"train": 30}
