"""Faults of networks whose images show several overlaid digits, as edits of the specification's source."""

from __future__ import annotations

from harness.parity.faults.fault import Fault, has_decoder
from harness.parity.faults.mutate import in_impl, in_layers, in_model
from harness.spec import ModelSpec


def _several(model: ModelSpec) -> bool:
    return model.overlaid > 1


def _decoded(model: ModelSpec) -> bool:
    return model.overlaid > 1 and has_decoder(model)


_OVERLAY = "return xp.minimum(xp.sum(pixels, axis=1), 1.0)"
_TARGET = "xp.reshape(digits, reconstruction.shape)"
_MASKED = "v[:, None, :, :] * mask[..., None]"

OVERLAY_FAULTS = (
    Fault(
        "overlay-not-clipped",
        "digits that are added without a limit at white",
        "L2",
        (in_layers(_OVERLAY, "return xp.sum(pixels, axis=1)"),),
        _several,
    ),
    Fault(
        "overlay-averaged",
        "digits that are averaged instead of added",
        "L2",
        (in_layers(_OVERLAY, "return xp.mean(pixels, axis=1)"),),
        _several,
    ),
    Fault(
        "first-label-alone",
        "a loss that knows the first digit's class alone",
        "L3",
        (in_layers(".max(one_hot(labels, like), axis=1)", ".max(one_hot(labels[:, :1], like), axis=1)"),),
        _several,
    ),
    Fault(
        "overlay-decoded",
        "a decoder that is to make the overlay instead of the digit",
        "L3",
        (in_model(_TARGET, "xp.reshape(0 * digits + F.overlay(digits)[:, None], reconstruction.shape)"),),
        _decoded,
    ),
    Fault(
        "capsules-decoded-together",
        "a decoder that sees the capsules of all digits at once",
        "L3",
        (in_model(_MASKED, "v[:, None, :, :] * (0 * mask + mask.max(axis=1, keepdims=True))[..., None]"),),
        _decoded,
    ),
    Fault(
        "digits-shifted-alike",
        "digits that are all shifted as the first is",
        "L5",
        (in_impl("shifts.reshape(-1, 2)", "(shifts - shifts + shifts[:, :1]).reshape(-1, 2)"),),
        _several,
    ),
)
