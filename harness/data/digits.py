"""scikit-learn's bundled digits: 1,797 real handwritten 8x8 digits, scaled up to 28x28. The default: no download."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.base import Info, Split, order
from harness.data.files import MissingFiles

if TYPE_CHECKING:
    from jaxtyping import UInt8

_SCALE, _PAD, _LEVELS = 3, 2, 16  # 8 * 3 + 2 * 2 = 28; pixels are 0..16


def enlarge(images: UInt8[np.ndarray, "N 8 8"]) -> UInt8[np.ndarray, "N 28 28"]:
    """Bilinear scaling by 3 with aligned pixel centres, then a border of 2 zeros; 0..16 becomes 0..255.

    Computed in integers (ninths of a level), so that every machine gets the same bytes.
    """
    ninths = _stretch(_stretch(images.astype(np.int64), axis=1), axis=2)
    full = _LEVELS * _SCALE**2
    pixels = (ninths * 255 + full // 2) // full
    return np.pad(pixels, ((0, 0), (_PAD, _PAD), (_PAD, _PAD))).astype(np.uint8)


def _stretch(values: np.ndarray, axis: int) -> np.ndarray:
    """`_SCALE` times as long along `axis`, and `_SCALE` times as large."""
    size: int = values.shape[axis]
    # Output pixel o has its centre at (o + 1/2) / 3 - 1/2 = (o - 1) / 3 of the input; the edge continues outwards.
    position = np.arange(size * _SCALE) - 1
    low, weight = position // _SCALE, position % _SCALE
    near, far = (np.take(values, np.clip(index, 0, size - 1), axis) for index in (low, low + 1))
    weight = np.expand_dims(weight, tuple(range(1, values.ndim - axis)))
    return near * (_SCALE - weight) + far * weight


class _Digits:
    info = Info(
        name="digits",
        image=(28, 28, 1),
        classes=10,
        train=1_257,
        validation=180,
        test=360,
        embedded=True,
        source="scikit-learn's bundled digits (the test part of UCI optdigits), 8x8 scaled up to 28x28",
        licence="CC BY 4.0",
        citation="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998",
    )

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Has nothing to fetch. Raises `UserError` if scikit-learn is not installed."""
        _scikit_learn()

    def read(self, directory: Path) -> tuple[Split, Split]:
        """Stratified by one fixed permutation: every fifth digit of a class for test, every eighth other held out."""
        table = _table()
        labels = table[:, -1].astype(np.int64)
        digits = Split(enlarge(table[:, :-1].reshape(-1, 8, 8))[..., np.newaxis], labels)
        drawn = order(len(labels))
        by_class = drawn[np.argsort(labels[drawn], kind="stable")]
        test, rest = by_class[::5], np.delete(by_class, np.s_[::5])
        validation, train = rest[::8], np.delete(rest, np.s_[::8])
        # Restore the order of the file: it mixes the classes, so the first images of a split are a fair batch.
        training_part = np.concatenate([np.sort(train), np.sort(validation)])
        return digits.take(training_part), digits.take(np.sort(test))


def _table() -> UInt8[np.ndarray, "1797 65"]:
    """64 pixels and the label of each digit."""
    # Straight from scikit-learn's file: importing scikit-learn would cost every trial seconds.
    path = _scikit_learn() / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        return np.loadtxt(path, delimiter=",", dtype=np.float64).astype(np.uint8)
    pixels, labels = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    return np.column_stack([pixels, labels]).astype(np.uint8)


def _scikit_learn() -> Path:
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingFiles("digits come with scikit-learn, which is not installed: pip install scikit-learn")
    return Path(spec.submodule_search_locations[0])


SOURCE = _Digits()
