"""The CapsNet of Sabour, Frosst, Hinton, *Dynamic Routing Between Capsules*, NIPS 2017 (arXiv 1710.09829v2), section 4."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from harness.models import probing
from harness.models.base import Layer, ModelKind, ProbeStart, WeightRow
from harness.spec import MARGIN_MINUS, MARGIN_PLUS, Weights
from harness.spec.model import Count, ModelSpec

_CAPSULES = 1152  # of the paper's model
_SHARP = 20.0
_SHORT = 2.0**-10
_ROUNDS = 3  # of fitting lengths: the fit changes the routing
_MOST = 32.0  # by which a class's votes are made longer; none of ten classes needs as much


class CapsNetSpec(ModelSpec):
    """A CapsNet; the defaults are the paper's for MNIST."""

    kind: str = "capsnet"
    profile: Literal["paper", "official"] = "paper"  # the paper's text, or the authors' released code where it differs
    routing: Annotated[int, Field(ge=1, le=10)] = 3  # r of Procedure 1: r softmaxes and r squashes
    none_of_the_above: bool = False  # one more category in routing's softmaxes, with logit 0 and no capsule (section 7)
    decoder: bool = True
    conv_channels: Count = 256
    primary_types: Count = 32
    primary_dim: Count = 8
    digit_dim: Count = 16
    decoder_units: tuple[Count, Count] = Field(default=(512, 1024), strict=False)
    kernel: Count = 9  # of both convolutions; VALID padding, strides 1 and 2

    def check(self) -> None:
        smallest = 2 * self.kernel - 1
        height, width = self.image[:2]
        if min(height, width) < smallest:
            raise ValueError(
                f"images of {height}x{width} are too small for two {self.kernel}x{self.kernel} convolutions: "
                f"at least {smallest}x{smallest} pixels, or a smaller model.kernel"
            )

    @property
    def conv_grid(self) -> tuple[int, int]:
        """Height and width after conv1 (stride 1, VALID)."""
        height, width, _ = self.image
        return height - self.kernel + 1, width - self.kernel + 1

    @property
    def primary_grid(self) -> tuple[int, int]:
        """Height and width after the primary convolution (stride 2, VALID)."""
        height, width = self.conv_grid
        return (height - self.kernel) // 2 + 1, (width - self.kernel) // 2 + 1

    @property
    def primary_capsules(self) -> int:
        """Number of primary capsules I; capsule i = (h * grid_width + w) * types + type."""
        height, width = self.primary_grid
        return height * width * self.primary_types

    @property
    def primary_scale(self) -> float:
        """The factor of the primary convolution before its bias: in the released code, one over the number of types."""
        return 1 / self.primary_types if self.profile == "official" else 1.0

    @property
    def digit_bias(self) -> bool:
        """Whether the output capsules have a bias, added to s_j in every routing iteration (released code)."""
        return self.profile == "official"

    @property
    def margin_scale(self) -> float:
        """The factor of Eq. 4's sum over the classes: the released code halves it and takes the mean over the classes."""
        return 0.5 / self.classes if self.profile == "official" else 1.0

    @property
    def evaluation_mask(self) -> Literal["longest", "label"]:
        """The capsule that the decoder sees in evaluation: the longest (section 4.1), or the label's (released code).

        If an image shows several digits, it is also each label's: otherwise a reconstruction's digit would be unknown.
        """
        return "label" if self.profile == "official" or self.overlaid > 1 else "longest"

    @property
    def variant(self) -> str:
        return self.profile

    @property
    def loss_terms(self) -> tuple[str, ...]:
        return "total", "margin", "reconstruction"

    @property
    def recorded_terms(self) -> tuple[str, ...]:
        return self.loss_terms if self.decoder else ("total", "margin")


class CapsNetKind(ModelKind):
    """Two convolutions, primary capsules, output capsules by routing, a decoder."""

    name = "capsnet"
    spec = CapsNetSpec
    has_capsules = True
    can_decode = True
    decoder_settings = ("decoder_units",)
    size_settings = ("conv_channels", "primary_types")
    outputs = ("digit", "lengths", "coupling", "reconstruction")

    def title(self, model: ModelSpec) -> str:
        return f"profile {model.profile}"

    def label(self, model: ModelSpec) -> str:
        return f"r{model.routing}"

    def loss_label(self, model: ModelSpec) -> str:
        return "loss (margin + 0.0005 x reconstruction)" if model.decoder else "loss"

    def weights(self, model: ModelSpec) -> tuple[WeightRow, ...]:
        """6,804,224 parameters for the paper's MNIST model, 8,215,568 with decoder.

        Profile `official` has 160 more, the output capsules' biases. Sigmas are the released code's (0.05 for conv1, 0.1
        elsewhere), as are the capsules' biases of 0.1 in that profile; the paper gives none.
        """
        channels = model.image[2]
        primary = model.primary_types * model.primary_dim  # channel = type * primary_dim + dim
        k = model.kernel
        capsule_bias = 0.1 if model.profile == "official" else 0.0
        rows = [
            WeightRow("conv1.w", (k, k, channels, model.conv_channels), "y x channel filter", 0.05),
            WeightRow("conv1.b", (model.conv_channels,), "filter", 0.0),
            WeightRow("primary.w", (k, k, model.conv_channels, primary), "y x filter (type dim)", 0.1),
            WeightRow("primary.b", (primary,), "(type dim)", 0.0, capsule_bias),
            WeightRow(
                "digit.w", (model.primary_capsules, model.classes, model.primary_dim, model.digit_dim), "I J d e", 0.1
            ),
        ]
        if model.digit_bias:
            rows.append(WeightRow("digit.b", (model.classes, model.digit_dim), "J e", 0.0, capsule_bias))
        if model.decoder:
            for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(_decoder_widths(model)), start=1):
                rows.append(WeightRow(f"dec{layer}.w", (fan_in, fan_out), "in out", 0.1))
                rows.append(WeightRow(f"dec{layer}.b", (fan_out,), "out", 0.0))
        return tuple(rows)

    def layers(self, model: ModelSpec) -> list[Layer]:
        multiplied, k, capsules = self.products(model), model.kernel, model.primary_capsules
        found = [
            Layer("conv1", f"{k}x{k}, ReLU", (*model.conv_grid, model.conv_channels), multiplied["conv1"]),
            Layer(
                "primary",
                f"{k}x{k} stride 2, {model.primary_types} types of {model.primary_dim}D, squash",
                (capsules, model.primary_dim),
                multiplied["primary"],
            ),
            Layer(
                "digit",
                f"votes, routing x{model.routing}",
                (model.classes, model.digit_dim),
                multiplied["votes"] + multiplied["routing"],
            ),
        ]
        if model.decoder:
            widths = _decoder_widths(model)
            for number, what in enumerate(("one capsule, dense, ReLU", "dense, ReLU", "dense, sigmoid"), start=1):
                fan_in, fan_out = widths[number - 1 : number + 1]
                output = (*model.several, *(model.image if number == 3 else (fan_out,)))
                multiplications = model.overlaid * fan_in * fan_out  # for each digit that the image shows
                found.append(Layer(f"dec{number}", what, output, multiplications))
        return found

    def products(self, model: ModelSpec) -> dict[str, int]:
        """The convolutions as written; the votes and routing."""
        pairs = model.primary_capsules * model.classes * model.digit_dim
        height, width = model.conv_grid
        counted = {
            "conv1": height * width * model.conv_channels * model.kernel**2 * model.image[2],
            "primary": model.primary_capsules * model.primary_dim * model.kernel**2 * model.conv_channels,
            "votes": pairs * model.primary_dim,
            # each iteration sums the votes and, except for the last, computes the agreement
            "routing": pairs * (2 * model.routing - 1),
        }
        if model.decoder:
            first, second = model.decoder_units
            once = model.classes * model.digit_dim * first + first * second + second * model.pixels
            counted["decoder"] = model.overlaid * once  # for each digit that the image shows
        return counted

    def activations(self, model: ModelSpec) -> int:
        """The outputs of the convolutions; votes can be made for a few images at a time."""
        return math.prod(model.conv_grid) * model.conv_channels + model.primary_capsules * model.primary_dim

    def live_values(self, model: ModelSpec) -> int:
        """The output of the first convolution, and the votes."""
        return math.prod(model.conv_grid) * model.conv_channels + _votes(model)

    def scratch_values(self, model: ModelSpec, batch: int) -> int:
        """The whole batch's votes once, and the spectra of the primary convolution's input, kernel and output."""
        filters = model.primary_types * model.primary_dim
        inputs = 4 * model.conv_channels  # two by two phases
        spectra = spectral_products(model) * (inputs * filters + batch * (inputs + filters))
        return batch * _votes(model) + spectra

    def output_shapes(self, model: ModelSpec, count: int) -> dict[str, tuple[int, ...] | None]:
        return {
            "digit": (count, model.classes, model.digit_dim),
            "lengths": (count, model.classes),
            "coupling": (count, model.primary_capsules, model.classes),
            "reconstruction": (count, *model.several, *model.image) if model.decoder else None,
        }

    def class_axes(self, model: ModelSpec) -> dict[str, int]:
        return {"digit.w": 1, "digit.b": 0} if model.digit_bias else {"digit.w": 1}

    def late_biases(self, model: ModelSpec) -> tuple[str, ...]:
        return tuple(row.name for row in self.weights(model) if row.name[:3] in ("dig", "dec") and row.name[-1] == "b")

    def relu_pairs(self, model: ModelSpec) -> tuple[tuple[str, str], ...]:
        return ("conv1", "primary"), ("dec1", "dec2")

    def emphasis(self, model: ModelSpec) -> Mapping[str, float]:
        """DigitCaps weights ten times as large, so that the coupling coefficients differ.

        The factor is smaller with more primary capsules than a 28x28 image has: otherwise all lengths are so close to
        one that rounding picks the longest.
        """
        return {"digit.w": 10 * min(1.0, _CAPSULES / model.primary_capsules)}

    def probes(self, model: ModelSpec, start: ProbeStart) -> dict[str, Weights]:
        """`decided`: routing decides strongly, and all lengths are near one.

        `even`: all classes' capsules are about equally long, so that each image has a different winner, and the last
        class wins too. `graded`: the classes' lengths range from below m- to above m+ (Eq. 4), so that every branch of
        the margin loss is taken, and the favoured class is longest for every image; the decoder's last layer is as if
        trained, with pixels near 0 and near 1. `short`: almost nothing in the primary capsules.
        """
        rising = np.roll(np.linspace(0.03, 0.97, model.classes), start.favoured + 1)
        decided = start.decided
        even, graded = _with_lengths(model, decided, start.images, np.full(model.classes, 0.5), rising)
        even = probing.turned(model, even, start.images, self.class_axes(model))
        short = {name: w * np.float32(_SHORT) if name.startswith("primary") else w for name, w in even.items()}
        sharp = {name: w * np.float32(_SHARP) if name == "dec3.w" else w for name, w in graded.items()}
        steep = probing.steep(sharp, self.relu_pairs(model))
        return {"decided": decided, "even": even, "graded": steep, "short": short, "initial": start.initial}

    def relus(self, model: ModelSpec, net: Any, acts: Any, classes: np.ndarray) -> Mapping[str, np.ndarray]:
        found = {"conv1": acts.conv1}
        if model.decoder:
            inputs, _ = net.net.decode(net._operands(), acts.v, np.eye(model.classes)[classes])
            found |= {"dec1": inputs[1], "dec2": inputs[2]}
        return found

    def branches(self, model: ModelSpec, scores: np.ndarray, classes: np.ndarray) -> Mapping[str, int]:
        """The margins of Eq. 4 ("present below m+", ...), and whether the longest capsules are the labels'."""
        present = np.zeros(scores.shape, bool)
        np.put_along_axis(present, classes, True, axis=1)
        winners = np.argsort(-scores, axis=1, kind="stable")[:, : model.overlaid]
        right = (np.sort(winners, axis=1) == np.sort(classes, axis=1)).all(axis=1)
        return {
            "present below m+": int((present & (scores < MARGIN_PLUS)).sum()),
            "present above m+": int((present & (scores >= MARGIN_PLUS)).sum()),
            "absent above m-": int((~present & (scores > MARGIN_MINUS)).sum()),
            "absent below m-": int((~present & (scores <= MARGIN_MINUS)).sum()),
            "longest right": int(right.sum()),
            "longest wrong": int((~right).sum()),
        }

    def faults(self) -> Sequence[Any]:
        from harness.parity.faults import capsnet, leak, overlay  # the ladder imports kinds

        return (*capsnet.FAULTS, *overlay.OVERLAY_FAULTS, *leak.LEAK_FAULTS)


def spectral_products(model: ModelSpec) -> int:
    """Real matrix products of the primary convolution in the frequency domain (`impls.spectral`): 148 for the paper's."""
    taps = -(-model.kernel // 2)
    rows, columns = (side + taps - 1 for side in model.primary_grid)
    real = (2 - rows % 2) * (2 - columns % 2)  # frequencies that are their own conjugates; half of the others is enough
    return real + 3 * (rows * columns - real) // 2


def _votes(model: ModelSpec) -> int:
    return model.primary_capsules * model.classes * model.digit_dim


def _decoder_widths(model: ModelSpec) -> tuple[int, ...]:
    return (model.classes * model.digit_dim, *model.decoder_units, model.pixels)


def _with_lengths(model: ModelSpec, weights: Weights, images: np.ndarray, *lengths: np.ndarray) -> Generator[Weights]:
    """For each of `lengths`, `weights` with each class's DigitCaps matrices scaled to capsules of about that length."""
    specification = probing.specification(model, weights)
    u_hat: Any = specification._forward(images).u_hat
    for each in lengths:
        wanted = np.sqrt(each / (1 - each))  # the |s| that squash maps to that length
        scale = np.ones(model.classes)
        for _ in range(_ROUNDS):
            bias = scale[:, None] * weights["digit.b"] if model.digit_bias else None
            votes, leak = scale[:, None, None] * u_hat, model.none_of_the_above
            _, s, _ = specification.net.F.route(votes, model.routing, bias, leak=leak)[-1]
            found = np.median(np.sqrt((s * s).sum(-1)), axis=0)
            # With many classes the votes would have to be so large that the routing gives all to one of them.
            scale *= np.minimum(wanted / np.maximum(found, wanted / _MOST), _MOST / scale)
        factors = scale.astype(np.float32)
        own = {"digit.w": weights["digit.w"] * factors[:, None, None]}
        if model.digit_bias:
            own["digit.b"] = weights["digit.b"] * factors[:, None]
        yield weights | own


CAPSNET = CapsNetKind()
