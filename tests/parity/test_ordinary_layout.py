"""Which axes an array can have, and arrays converted there and back."""

from __future__ import annotations

import numpy as np
import pytest

from harness.parity.ordinary.finder import _reordering
from harness.parity.ordinary.layout import layouts

SIZES = {"I": 12, "J": 5, "d": 2, "e": 3}


@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((12, 5, 2, 3), (("I",), ("J",), ("d",), ("e",))),
        ((1, 12, 5, 3, 2, 1), ((), ("I",), ("J",), ("e",), ("d",), ())),
        ((5, 2, 3, 12), (("J",), ("d",), ("e",), ("I",))),
    ],
)
def test_axes_of_different_sizes_are_told_by_shape(shape: tuple[int, ...], groups: tuple[tuple[str, ...], ...]) -> None:
    assert [each.groups for each in layouts(shape, SIZES)] == [groups]


def test_merged_axes_have_two_orders() -> None:
    assert {each.groups for each in layouts((12, 2, 15), SIZES)} == {
        (("I",), ("d",), ("J", "e")),
        (("I",), ("d",), ("e", "J")),
    }


def test_one_axis_in_several_dimensions() -> None:
    """Twelve capsules as 3 x 2 x 2; neighbouring dimensions are never merged into axes of any order."""
    assert {each.groups for each in layouts((7, 3, 2, 2, 5), {"B": 7, "I": 12, "J": 5})} == {(("B",), ("I",), ("J",))}


def test_equal_sizes_are_ambiguous() -> None:
    assert len(list(layouts((4, 4), {"d": 4, "e": 4}))) == 2


def test_what_does_not_fit_has_no_layout() -> None:
    assert not list(layouts((12, 5, 6, 2), SIZES))


def test_there_and_back() -> None:
    array = np.random.default_rng(0).random((12, 2, 15))
    for layout in layouts(array.shape, SIZES):
        ordered = layout.arrange(array, SIZES, ("I", "J", "d", "e"))
        assert ordered.shape == (12, 5, 2, 3)
        assert np.array_equal(layout.restore(ordered, SIZES, ("I", "J", "d", "e")).reshape(array.shape), array)
    first = next(layouts((12, 2, 15), SIZES)).arrange(array, SIZES, ("I", "J", "d", "e"))
    assert first[3, 4, 1, 2] == array[3, 1, 4 * 3 + 2]


def test_values_in_another_order_are_followed() -> None:
    values = np.random.default_rng(1).random((5, 30))
    order = np.random.default_rng(2).permutation(30)
    found = _reordering(values, values[:, order])
    assert found is not None
    assert np.array_equal(found, order)
    assert _reordering(values, values**2) is None
