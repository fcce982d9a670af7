"""`data.augment.crop: random`: training images are kept whole, for patches that each epoch cuts anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness import data
from harness.errors import UserError
from harness.spec.trial import Augment, DataConfig

DIGITS: dict[str, Any] = {"name": "digits", "train": 20, "validation": 4, "test": 6}
RANDOM = DataConfig(**DIGITS, crop=20, augment=Augment(crop="random"))


def test_only_training_images_are_kept_whole() -> None:
    found, middle = data.load(RANDOM), data.load(DataConfig(**DIGITS, crop=20))
    assert (data.shape(RANDOM), data.margin(RANDOM)) == ((20, 20, 1), (8, 8))
    assert found.train.images.shape == (20, 28, 28, 1)
    for part in ("validation", "test"):
        assert (getattr(found, part).images == getattr(middle, part).images).all()
    assert (data.shown(RANDOM, found.train).images == middle.train.images).all()
    assert found.sha256 != middle.sha256
    assert "training images anywhere" in found.provenance
    assert data.margin(DataConfig(**DIGITS, crop=20)) == (0, 0)


def test_own_pictures_are_stored_whole(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPSBENCH_DATA", str(tmp_path))
    pictures = np.random.default_rng(0).integers(0, 256, (40, 12, 14, 3)).astype(np.uint8)
    np.savez(tmp_path / "own.npz", images=pictures, labels=np.arange(40) % 4)
    asked = DataConfig(name="npz", path=str(tmp_path / "own.npz"), crop="8x9")
    config = data.resolved(asked.model_copy(update={"augment": Augment(crop="random")}))
    found, middle = data.load(config), data.load(data.resolved(asked))
    assert (data.shape(config), data.margin(config)) == ((8, 9, 3), (4, 5))
    assert found.train.images.shape[1:] == (12, 14, 3)
    assert (found.test.images == middle.test.images).all()
    assert (data.shown(config, found.train).images == middle.train.images).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": None}, "data.crop cuts, but that is not set"),
        ({"pad": 40}, "drop data.pad"),
        ({"canvas": 40}, "drop data.canvas"),
        ({"crop": 28}, "there is but one patch"),
        ({"resize": 300}, "280x280 pixels larger than data.crop"),
        ({"crop": 30}, "at most that"),
    ],
)
def test_what_leaves_no_patch_is_refused(changes: dict[str, Any], said: str) -> None:
    config = RANDOM.model_copy(update=changes)
    for needed in (data.shape, data.margin, data.load):
        with pytest.raises(UserError, match=r"data\.(augment\.)?crop") as refused:
            needed(config)
        assert said in str(refused.value)
