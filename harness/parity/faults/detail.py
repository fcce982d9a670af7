"""Faults that affect only a part: one class, one capsule, one side of a ReLU, some pixels, half the precision."""

from __future__ import annotations

from harness.parity.faults.fault import Fault, any_model, has_capsules, has_decoder
from harness.parity.faults.mutate import Edit, in_impl, in_layers, in_model
from harness.parity.faults.plan import official

_MISSED, _IMAGINED = "present * missed", "MARGIN_LAMBDA * (1 - present) * imagined, axis"
_ABOVE, _BELOW = "F.relu(MARGIN_PLUS - lengths)", "F.relu(lengths - MARGIN_MINUS)"
_SUM = f"return xp.sum({_MISSED} + {_IMAGINED}=1)"
_TERMS = "margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction"
_EPSILON = "from harness.spec import SQUASH_EPSILON, Epsilon"
_LENGTHS = "xp.sqrt(xp.sum(v * v, axis=-1) + SQUASH_EPSILON)"
_SQUASHED = "u = F.squash(primary, conventions.squash_epsilon)"
_LAST = 'F.sigmoid(operand(inputs[-1]) @ w["dec3.w"] + w["dec3.b"])'
_HIDDEN = 'F.relu(operand(inputs[-1]) @ w[f"{layer}.w"] + w[f"{layer}.b"])'
_PIXELS = "pixels = self.xp.astype(digits, self.dtype) / 255"
_COUPLING = "coupling = softmax(logits, leak)"
_PRESENT = ".max(one_hot(labels, like), axis=1)"


def _pixels(divisor: str) -> tuple[Edit, ...]:
    return (in_impl(_PIXELS, _PIXELS.replace("255", divisor)),)


# The specification's gradients are written by hand: each fault has the one that a framework would derive from it.
_BACK_MARGIN = "2 * (MARGIN_LAMBDA * (1 - present) * imagined - present * missed)"
_BACK_LENGTH = "grad_v = F.lengths_vjp(acts.v, grad_length, acts.conventions.length_epsilon)"
_BACK_ABOVE, _BACK_BELOW = "F.relu(MARGIN_PLUS - length),", "F.relu(length - MARGIN_MINUS)\n"
_BACK_SIGMOID = "grad = grad * pixels * (1 - pixels)"
_BACK_GRID = "grad_grid = xp.reshape(F.squash_vjp("
_BACK_BIAS = 'grads["primary.b"] = xp.sum(grad_grid, axis=(0, 1, 2))'

DETAIL_FAULTS = (
    Fault(
        "missed-dropped",
        "a margin loss without the term of m+",
        "L3",
        (
            in_model(f"xp.sum({_MISSED}", f"xp.sum(0 * {_MISSED}"),
            in_model(_BACK_MARGIN, _BACK_MARGIN.replace("- present", "- 0 * present")),
        ),
        has_capsules,
    ),
    Fault(
        "imagined-dropped",
        "a margin loss without the term of m-",
        "L3",
        (
            in_model(_IMAGINED, f"0 * {_IMAGINED}"),
            in_model(_BACK_MARGIN, _BACK_MARGIN.replace("MARGIN_LAMBDA", "0")),
        ),
        has_capsules,
    ),
    Fault(
        "no-relu-above-m-plus",
        "a margin loss that pulls back capsules longer than m+",
        "L3",
        (
            in_model(f"{_ABOVE} **", "(MARGIN_PLUS - lengths) **"),
            in_model(_BACK_ABOVE, "(MARGIN_PLUS - length),"),
        ),
        has_capsules,
    ),
    Fault(
        "no-relu-below-m-minus",
        "a margin loss that lengthens capsules shorter than m-",
        "L3",
        (
            in_model(f"{_BELOW} **", "(lengths - MARGIN_MINUS) **"),
            in_model(_BACK_BELOW, "(length - MARGIN_MINUS)\n"),
        ),
        has_capsules,
    ),
    Fault(
        "first-class-without-margin",
        "a margin loss that leaves out the first class",
        "L3",
        (
            in_model(_SUM, _SUM.replace("xp.sum(", "xp.sum((").replace(", axis=1)", ")[:, 1:], axis=1)")),
            in_model(_BACK_LENGTH, f"grad_length[:, 0] = 0\n    {_BACK_LENGTH}"),
        ),
        has_capsules,
    ),
    Fault(
        "last-label-absent",
        "a last class that is taken for absent where it is there",
        "L3",
        (in_layers(_PRESENT, f"{_PRESENT} * (array_namespace(like).arange(like.shape[1]) < like.shape[1] - 1)"),),
        has_capsules,
    ),
    Fault(
        "last-primary-capsule-ignored",
        "a last primary capsule that has no votes",
        "L2",
        (
            in_model(_SQUASHED, f"{_SQUASHED}\n    u[:, -1] = 0"),
            in_model(_BACK_GRID, f"grad_u[:, -1] = 0\n    {_BACK_GRID}"),
        ),
        has_capsules,
    ),
    Fault(
        "last-primary-bias-unused",
        "a primary convolution whose last bias is not added",
        "L2",
        (
            in_model(
                '* model.primary_scale + w["primary.b"]',
                '* model.primary_scale + w["primary.b"] * (xp.arange(len(w["primary.b"])) < len(w["primary.b"]) - 1)',
            ),
            in_model(_BACK_BIAS, f"{_BACK_BIAS}\n    grads['primary.b'][-1] = 0"),
        ),
        has_capsules,
    ),
    Fault(
        "last-pixel-left-out",
        "a reconstruction loss that leaves out the last pixel",
        "L3",
        (
            in_model(
                "xp.sum(xp.reshape(squares, (digits.shape[0], -1)), axis=1)",
                "xp.sum(xp.reshape(squares, (digits.shape[0], -1))[:, :-1], axis=1)",
            ),
            in_model(_BACK_SIGMOID, f"xp.reshape(grad, (count, -1))[:, -1] = 0\n        {_BACK_SIGMOID}"),
        ),
        has_decoder,
    ),
    Fault(
        "reconstruction-reported-weighted",
        "a reconstruction loss that is reported with its weight",
        "L3",
        (in_model(_TERMS, f"{_TERMS.removesuffix('reconstruction')}RECONSTRUCTION_WEIGHT * reconstruction"),),
        has_decoder,
    ),
    Fault(
        "margin-reported-unscaled",
        "a margin loss that is reported without its scale",
        "L3",
        (in_model(_TERMS, _TERMS.replace(", margin,", ", margin / model.margin_scale,")),),
        official,
    ),
    Fault(
        "squash-epsilon-1e-7",
        "an epsilon of 1e-7 in squash and lengths",
        "L2",
        (in_layers(_EPSILON, f"{_EPSILON}\n\nSQUASH_EPSILON = 1e-7"),),
        has_capsules,
    ),
    Fault(
        "length-epsilon-1e-7",
        "an epsilon of 1e-7 in lengths",
        "L2",
        (in_layers(_LENGTHS, _LENGTHS.replace("SQUASH_EPSILON", "1e-7")),),
        has_capsules,
    ),
    Fault(
        "lengths-squared",
        "squared capsule lengths",
        "L2",
        (
            in_layers(_LENGTHS, _LENGTHS.removeprefix("xp.sqrt(").removesuffix(")")),
            in_model(_BACK_LENGTH, "grad_v = (2 * grad_length)[..., None] * acts.v"),
        ),
        has_capsules,
    ),
    Fault("pixels-by-256", "pixels divided by 256", "L2", _pixels("256")),
    Fault(
        "pixels-by-own-maximum",
        "images divided by their brightest pixel",
        "L2",
        _pixels("digits.max(axis=(2, 3, 4), keepdims=True).clip(1)"),
    ),
    Fault(
        "pixels-by-batch-maximum",
        "images divided by the batch's brightest pixel",
        "L2",
        _pixels("max(1, int(digits.max()))"),
    ),
    Fault(
        "pixels-in-bfloat16",
        "pixels in bfloat16",
        "L2",
        (in_impl(_PIXELS, f"{_PIXELS}\n        pixels = F.rounded(pixels, 8)"),),
        any_model,
    ),
    Fault(
        "coupling-in-float16",
        "coupling coefficients in float16",
        "L2",
        (in_layers(_COUPLING, "coupling = rounded(softmax(logits, leak), 11)"),),
        has_capsules,
    ),
    Fault(
        "decoder-relu-last",
        "a ReLU before the decoder's sigmoid",
        "L3",
        (
            in_model(_LAST, _LAST.replace("sigmoid(", "sigmoid(F.relu(") + ")"),
            in_model(_BACK_SIGMOID, f"{_BACK_SIGMOID} * (pixels > 0.5)"),
        ),
        has_decoder,
    ),
    Fault(
        "decoder-hidden-without-relu",
        "no ReLU in the decoder's first layer",
        "L3",
        (
            in_model(_HIDDEN, _HIDDEN.replace("F.relu(", '(F.relu if layer != "dec1" else exact)(')),
            in_model('if layer != "dec1":', 'if layer == "dec3":'),
        ),
        has_decoder,
    ),
    Fault(
        "sigmoid-clipped",
        "a sigmoid whose input is clipped at -4 and 4",
        "L3",
        (
            in_model(_LAST, _LAST.replace("sigmoid(", "sigmoid((").removesuffix(")") + ").clip(-4, 4))"),
            in_model(_BACK_SIGMOID, f"{_BACK_SIGMOID} * (abs(xp.log(pixels / (1 - pixels))) < 3.999999)"),
        ),
        has_decoder,
    ),
)
