"""Pictures are found, read and fitted as documented, and whatever is none is named."""

from __future__ import annotations

import gzip
import importlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import UserError
from harness.prediction.fitting import Framing, border, fitted
from harness.prediction.pictures import Picture, Unreadable, find
from harness.prediction.trained import Trained
from harness.spec.trial import DataConfig
from tests.helpers.impl_helpers import small_model

pillow: Any = pytest.importorskip("PIL.Image")
GREY = np.arange(28 * 28, dtype=np.uint32).reshape(28, 28).astype(np.uint8)


def saved(path: Path, array: np.ndarray, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(array).save(path, **how)
    return path


def only(path: Path) -> Picture:
    [item] = find([path])
    return item.read()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "tif"])
def test_lossless_formats_keep_every_pixel(suffix: str, tmp_path: Path) -> None:
    picture = only(saved(tmp_path / f"a.{suffix}", GREY))
    assert picture.pixels.shape == (28, 28, 1)
    assert (picture.pixels[..., 0] == GREY).all()
    assert picture.notes == ()


def test_jpeg_and_odd_names(tmp_path: Path) -> None:
    flat = np.full((20, 30, 3), (200, 30, 60), np.uint8)
    path = saved(tmp_path / "ünï [1] #%.JPG", flat, quality=100)
    assert np.abs(only(path).pixels.astype(int) - flat).max() <= 3
    assert only(path.rename(tmp_path / "without_suffix")).pixels.shape == (20, 30, 3)


def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", GREY).rename(os.fsdecode(bytes(tmp_path) + b"/\xff.png"))
    [item] = find([tmp_path])
    assert item.name.encode().endswith(b"\\udcff.png")
    assert (item.read().pixels[..., 0] == GREY).all()


def test_pixel_formats(tmp_path: Path) -> None:
    deep = saved(tmp_path / "deep.png", np.array([[0, 257, 65535]], np.uint16))
    assert only(deep).pixels.ravel().tolist() == [0, 1, 255]
    assert only(deep).notes == ("of 16 bits, divided by 257",)
    bits = tmp_path / "bits.png"
    pillow.fromarray(GREY).convert("1").save(bits)
    assert set(np.unique(only(bits).pixels)) == {0, 255}
    palette = tmp_path / "palette.png"
    pillow.fromarray(np.stack([GREY] * 3, -1)).quantize(256).save(palette)
    assert (only(palette).pixels[..., 0] == GREY).all()
    ink = np.full((4, 4, 4), (255, 255, 255, 0), np.uint8)
    ink[1, 1, 3] = 255  # white ink on nothing
    picture = only(saved(tmp_path / "clear.png", ink))
    assert picture.pixels[0, 0].tolist() == [0, 0, 0]
    assert picture.pixels[1, 1].tolist() == [255, 255, 255]
    assert picture.notes == ("with transparency, laid over black",)
    floats = saved(tmp_path / "floats.tiff", np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4))
    with pytest.raises(Unreadable, match="floating-point pixels from -1 to 1"):
        only(floats)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = pillow.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    wide = np.zeros((10, 20), np.uint8)
    wide[:5] = 255
    picture = only(saved(tmp_path / "turned.jpg", wide, exif=exif, quality=100))
    assert picture.pixels.shape[:2] == (20, 10)
    assert picture.notes == ("turned upright as their EXIF data say",)
    assert picture.pixels[:, -1].mean() > 200  # its top is now at the right


def test_a_folder_is_walked_in_order_and_each_picture_counts_once(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.PNG", "a.jpeg", ".hidden.png", ".cache/x.png"]
    for name in names:
        saved(tmp_path / "in" / name, GREY, format="PNG")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    found = find([tmp_path / "in" / "b" / "2.png", tmp_path / "in"])
    assert [str(Path(item.name).relative_to(tmp_path / "in")) for item in found] == ["b/2.png", "a.jpeg", "b/10.PNG"]


def test_arrays(tmp_path: Path) -> None:
    images = np.stack([GREY, GREY.T])
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "one.npy", GREY)
    np.save(tmp_path / "colour.npy", np.stack([GREY] * 3, -1))
    np.savez(tmp_path / "b.npz", y=np.arange(2), x_test=images[..., None] / 255)
    head = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 28, 28)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(head + images.tobytes())
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
    for name in ("a.npy", "b.npz", "t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"):
        first, second = find([tmp_path / name])
        assert second.name == f"{tmp_path / name}[1]"
        assert (first.read().pixels[..., 0] == GREY).all()
        assert (second.read().pixels[..., 0] == GREY.T).all()
    assert only(tmp_path / "one.npy").pixels.shape == (28, 28, 1)
    assert only(tmp_path / "colour.npy").pixels.shape == (28, 28, 3)


def test_arrays_as_training_takes_them(tmp_path: Path) -> None:
    np.save(tmp_path / "first.npy", np.stack([GREY, GREY, GREY])[None].astype(np.uint16) * 257)
    picture = only(tmp_path / "first.npy")
    assert (picture.pixels == GREY[..., None]).all()
    assert picture.notes == ("channels came first; they were put last", "16-bit pixels were divided by 257 to 0..255")


def refused(path: Path) -> str:
    with pytest.raises(UserError) as refusal:
        find([path])
    return str(refusal.value)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a file but a pipe" in refused(tmp_path / "pipe.png")
    saved(tmp_path / "seven.png", GREY)
    assert 'no such file; did you mean "seven.png"?' in refused(tmp_path / "sven.png")
    assert "there is no folder" in refused(tmp_path / "nowhere" / "seven.png")
    (tmp_path / "link.png").symlink_to("gone.png")
    assert "a link to gone.png, which does not exist" in refused(tmp_path / "link.png")
    (tmp_path / "circle.png").symlink_to("circle.png")
    assert "cannot be read" in refused(tmp_path / "circle.png")
    assert "cannot be read" in refused(tmp_path / ("x" * 300))
    (tmp_path / "page.png").write_text("<html>please log in</html>")
    assert "an HTML page" in refused(tmp_path / "page.png")
    assert "expected a PNG, JPEG, BMP or TIFF picture, or an array" in refused(tmp_path / "page.png")
    pages = [pillow.fromarray(GREY)] * 2
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert "2 pictures in one file" in refused(tmp_path / "pages.tif")
    (tmp_path / "empty").mkdir()
    assert "it is empty" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "a.heic").write_bytes(b"x")
    assert "its files: 1 of .heic" in refused(tmp_path / "empty")
    np.savez(tmp_path / "two.npz", a=GREY, b=GREY)
    assert "which of its arrays are the images? It has a, b" in refused(tmp_path / "two.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    assert "not a readable NumPy file" in refused(tmp_path / "cut.npz")
    np.save(tmp_path / "wide.npy", np.array([[0.0, 300.0]]))
    assert "float64 values from 0 to 300" in refused(tmp_path / "wide.npy")
    np.save(tmp_path / "nan.npy", np.array([[0.0, np.nan]]))
    assert "values from nan to nan" in refused(tmp_path / "nan.npy")
    np.save(tmp_path / "flat.npy", np.zeros(7))
    assert "an array of shape (7,)" in refused(tmp_path / "flat.npy")
    np.save(tmp_path / "none.npy", np.zeros((0, 28, 28), np.uint8))
    assert "it holds no images" in refused(tmp_path / "none.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    assert "not a readable NumPy file" in refused(tmp_path / "objects.npy")
    (tmp_path / "labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 2) + b"\0\1")
    assert "an IDX file of labels, not images" in refused(tmp_path / "labels-idx1-ubyte")


def test_a_damaged_picture_is_found_when_it_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    whole = saved(tmp_path / "whole.png", noise)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    [item] = find([tmp_path / "cut.png"])
    with pytest.raises(Unreadable, match="ends early or is damaged"):
        item.read()


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    [item] = find([tmp_path])
    with pytest.raises(Unreadable, match="a pipe or a device"):
        item.read()


# Fitting


def fit(array: np.ndarray, image: tuple[int, int, int] = (28, 28, 1), **how: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    return fitted(Picture(array if array.ndim == 3 else array[..., None]), image, **how)


def test_a_picture_that_fits_is_unchanged() -> None:
    pixels, notes = fit(GREY)
    assert (pixels[..., 0] == GREY).all()
    assert notes == ()


def test_size_and_aspect_ratio() -> None:
    tall = np.zeros((56, 28), np.uint8)
    tall[:, 10:18] = 255
    tall[[0, -1]] = tall[:, [0]] = tall[:, [-1]] = 7
    pixels, notes = fit(tall)
    assert notes == ("56x28 resized to 28x14, padded to 28x28",)
    assert set(np.unique(pixels[:, :7])) == set(np.unique(pixels[:, 21:])) == {7}  # the colour of its border
    assert pixels[14, 14, 0] > 200
    pixels, notes = fit(tall, fit="crop")
    assert (pixels.shape, notes) == ((28, 28, 1), ("56x28, cut to 28x28",))
    assert (pixels[..., 0] == tall[14:42]).all()
    pixels, notes = fit(tall, fit="stretch")
    assert (pixels.shape, notes) == ((28, 28, 1), ("56x28 stretched to 28x28",))
    small, notes = fit(np.full((14, 14), 9, np.uint8))
    assert notes == ("14x14 resized to 28x28",)
    assert (small == 9).all()
    for shape in ((1, 4000), (3000, 2), (1, 1)):
        for how in ("pad", "crop", "stretch"):
            assert fit(np.zeros(shape, np.uint8), fit=how)[0].shape == (28, 28, 1)


def test_resizing_keeps_where_things_are_and_how_bright() -> None:
    picture = np.zeros((280, 280), np.uint8)
    picture[40:80, 200:240] = 200
    pixels, _ = fit(picture)
    rows, columns = np.nonzero(pixels[..., 0] > 100)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 7, 20, 23)
    assert pixels.astype(float).sum() == pytest.approx(picture.astype(float).sum() / 100, rel=0.03)


def test_colour_and_grey() -> None:
    red = np.zeros((28, 28, 3), np.uint8)
    red[..., 0] = 255
    pixels, notes = fit(red)
    assert notes == ("colour to grey",)
    assert (pixels == 76).all()  # 0.299 of 255
    assert fit(np.stack([GREY] * 3, -1))[1] == ()  # grey stored as colour: nothing is lost
    pixels, notes = fit(GREY, (28, 28, 3))
    assert notes == ("grey to colour",)
    assert (pixels == GREY[..., None]).all()
    with pytest.raises(Unreadable, match="it has 4 channels, the model takes 3"):
        fit(np.zeros((28, 28, 4), np.uint8), (28, 28, 3))


def test_invert_comes_last_and_is_told() -> None:
    sheet = np.full((56, 28), 255, np.uint8)
    pixels, notes = fit(sheet, invert=True)
    assert (pixels == 0).all()
    assert notes == ("56x28 resized to 28x14, padded to 28x28", "inverted")
    assert border(pixels).tolist() == [0]


def test_pictures_are_framed_as_the_data_set_s_images_were() -> None:
    def framing(**how: Any) -> Framing:
        image = (40, 40, 1) if "canvas" in how else (24, 24, 1)
        model = small_model(image, kernel=9)
        found = Trained(model, {}, Path(), {}, DataConfig(name="digits", **how)).framing
        assert found is not None
        return found

    pixels, notes = fit(GREY, (40, 40, 1), framing=framing(canvas=40))
    assert notes == ("centred on black, 40x40",)
    assert (pixels[6:34, 6:34, 0] == GREY).all()
    assert pixels.astype(int).sum() == GREY.astype(int).sum()
    pixels, notes = fit(np.full((56, 56), 255, np.uint8), (40, 40, 1), framing=framing(canvas=40), invert=True)
    assert notes == ("56x56 resized to 28x28", "inverted", "centred on black, 40x40")
    assert not pixels.any()
    assert fit(np.full((40, 40), 7, np.uint8), (40, 40, 1), framing=framing(canvas=40))[1] == ()
    pixels, notes = fit(GREY, (24, 24, 1), framing=framing(crop=24))
    assert notes == ("cut to the middle 24x24",)
    assert (pixels[..., 0] == GREY[2:26, 2:26]).all()
    scaled = framing(resize=24, fit="stretch")
    tall = np.repeat(np.arange(96, dtype=np.uint8)[:, None], 48, 1)
    pixels, notes = fit(tall, (24, 24, 1), framing=scaled)
    assert notes == ("scaled to 24x24",)
    assert (pixels[..., 0] == np.asarray(pillow.fromarray(tall).resize((24, 24), pillow.Resampling.BILINEAR))).all()
    assert fit(tall, (24, 24, 1), fit="pad", framing=scaled)[1] == ("96x48 resized to 24x12, padded to 24x24",)


def test_pillow_as_the_reference_for_grey() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    expected = np.asarray(importlib.import_module("PIL.Image").fromarray(colours).convert("L"))
    assert (fit(colours)[0][..., 0] == expected).all()
