"""Faults of the baseline CNN, as edits of the specification's source, and those that it shares with the CapsNet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.parity.faults.capsnet import FAULTS
from harness.parity.faults.fault import Fault, has_dropout
from harness.parity.faults.mutate import in_cnn
from harness.parity.faults.overlay import OVERLAY_FAULTS
from harness.spec import ModelSpec


def _one_digit(model: ModelSpec) -> bool:
    return model.overlaid == 1


def _uneven_dropout(model: ModelSpec) -> bool:
    return has_dropout(model) and model.dropout != 0.5


_CONVOLUTION = "return F.convolution(_padded(x, w.shape[0]), w, 1)"
_FLATTENED = "x = xp.reshape(x, (x.shape[0], -1))  # rows"
_DENSE = 'F.relu(operand(x) @ w[f"{layer}.w"] + w[f"{layer}.b"])'
_SCORES = "return F.softmax(acts.logits)"
_FACTOR = "factor = None if kept is None else kept / (1 - model.dropout)"
_MEAN = "xp.mean(cross_entropy("

_OWN = (
    Fault(
        "valid-padding",
        "convolutions with VALID padding",
        "L1",
        (in_cnn(_CONVOLUTION, "return F.convolution(x, w, 1)"),),
    ),
    Fault(
        "padding-on-one-side",
        "convolutions padded on one side alone",
        "L3",
        (in_cnn("before = (kernel - 1) // 2", "before = 0"),),
    ),
    Fault(
        "kernel-flipped",
        "flipped kernels (a true convolution)",
        "L3",
        (in_cnn(_CONVOLUTION, _CONVOLUTION.replace(", w, 1)", ", array_namespace(w).flip(w, axis=(0, 1)), 1)")),),
    ),
    Fault(
        "flattened-channels-first",
        "a grid that is flattened channels first (NCHW)",
        "L3",
        (in_cnn(_FLATTENED, _FLATTENED.replace("reshape(x,", "reshape(xp.permute_dims(x, (0, 3, 1, 2)),")),),
    ),
    Fault(
        "flattened-columns-first",
        "a grid that is flattened columns before rows",
        "L3",
        (in_cnn(_FLATTENED, _FLATTENED.replace("reshape(x,", "reshape(xp.permute_dims(x, (0, 2, 1, 3)),")),),
    ),
    Fault(
        "last-hidden-layer-without-relu",
        "no ReLU before the dropout",
        "L3",
        (in_cnn(_DENSE, _DENSE.replace("F.relu(", "(F.relu if layer != hidden[-1] else exact)(")),),
    ),
    Fault(
        "softmax-missing",
        "logits in the place of probabilities",
        "L3",
        (in_cnn(_SCORES, "return acts.logits"),),
        _one_digit,
    ),
    Fault(
        "softmax-over-images",
        "the softmax over the images",
        "L3",
        (in_cnn(_SCORES, "return F.softmax(acts.logits.T).T"),),
        _one_digit,
    ),
    Fault(
        "softmax-twice",
        "a cross-entropy that takes the softmax of probabilities",
        "L3",
        (in_cnn("cross_entropy(model, acts.logits,", "cross_entropy(model, scores(model, acts),"),),
        _one_digit,
    ),
    Fault(
        "sum-over-images",
        "losses summed over the images instead of averaged",
        "L3",
        (in_cnn(_MEAN, _MEAN.replace("mean", "sum")),),
    ),
    Fault(
        "units-dropped-in-evaluation",
        "dropout that goes on in evaluation",
        "L3",
        (
            in_cnn(
                _FACTOR,
                "factor = (xp.astype(xp.arange(x.shape[1]) % 2 == 0, x.dtype) if kept is None else kept) / (1 - model.dropout)",
            ),
        ),
        has_dropout,
    ),
    Fault(
        "scaled-in-evaluation",
        "dropout that scales in evaluation instead of training",
        "L3",
        (in_cnn(_FACTOR, "factor = 1 - model.dropout if kept is None else kept"),),
        has_dropout,
    ),
    Fault(
        "features-detached",
        "a gradient that stops before the convolutions",
        "L4",
        (in_cnn("grad = xp.reshape(grad, (count, *model.cnn_grids", "grad = xp.reshape(0 * grad, (count, *model.cnn_grids"),),
    ),
    Fault("dropout-missing", "no dropout", "L5", (in_cnn(_FACTOR, "factor = None"),), has_dropout),
    Fault(
        "dropout-not-scaled",
        "dropout without the scale 1 / (1 - rate)",
        "L5",
        (in_cnn(_FACTOR, "factor = kept"),),
        has_dropout,
    ),
    Fault(
        "dropout-scaled-by-rate",
        "dropout scaled by 1 / rate: the rate taken for the share that is kept",
        "L5",
        (in_cnn(_FACTOR, _FACTOR.replace("(1 - model.dropout)", "model.dropout")),),
        _uneven_dropout,
    ),
    Fault(
        "dropout-inverted",
        "dropout that keeps the units to be dropped",
        "L5",
        (in_cnn(_FACTOR, _FACTOR.replace("else kept", "else (1 - kept)")),),
        has_dropout,
    ),
)  # fmt: skip


def _shared() -> tuple[Fault, ...]:
    """The faults outside the network itself."""
    return _without_l2(fault for fault in FAULTS if all(edit.file == "impl.py" for edit in fault.edits))


def _without_l2(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """A CNN has no L2: faults that a CapsNet shows there show at L3."""
    return tuple(replace(fault, level="L3") if fault.level == "L2" else fault for fault in faults)


CNN_FAULTS = (*_OWN, *_shared())
KNOWN = (*CNN_FAULTS, *_without_l2(OVERLAY_FAULTS))
"""Those, and of images that show several digits."""
