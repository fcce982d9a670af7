"""The architecture, as a suite states it and bound to a data set's images; a part of `harness.spec`, the border.

Sections and equations are those of Sabour, Frosst, Hinton, *Dynamic Routing Between Capsules*, NIPS 2017 (arXiv 1710.09829v2).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Several = Annotated[tuple[Count, ...], Field(min_length=1, max_length=9)]


class Section(BaseModel):
    """Base of every configuration section: immutable, unknown keys and lossy conversions refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


KIND_KEYS: dict[str, frozenset[str]] = {
    "capsnet": frozenset(
        {"profile", "routing", "decoder", "conv_channels", "primary_types", "primary_dim", "digit_dim", "decoder_units"}
        | {"kernel"}
    ),
    "cnn": frozenset({"cnn_channels", "cnn_kernel", "cnn_pool", "cnn_units", "dropout"}),
}
"""Model kind -> the keys of `ModelConfig` that mean something to it alone."""


class ModelConfig(Section):
    """The architecture as a suite states it; the defaults are the paper's MNIST CapsNet (section 4) and baseline CNN.

    A setting of another kind than the model's (`KIND_KEYS`) changes nothing.
    """

    kind: Literal["capsnet", "cnn"] = "capsnet"
    profile: Literal["paper", "official"] = "paper"  # the text, or the authors' released code where it differs
    routing: Annotated[int, Field(ge=1, le=10)] = 3  # r of Procedure 1: r softmaxes and r squashes
    decoder: bool = True
    conv_channels: Count = 256
    primary_types: Count = 32
    primary_dim: Count = 8
    digit_dim: Count = 16
    decoder_units: tuple[Count, Count] = Field(default=(512, 1024), strict=False)
    kernel: Count = 9  # of both convolutions; VALID padding, strides 1 and 2
    # The baseline (section 4.1): ReLU convolutions, stride 1, SAME padding, each followed by a maximum over cnn_pool x cnn_pool
    # pixels; ReLU layers; dropout; a softmax, or of images that show several digits, sigmoids.
    cnn_channels: Several = Field(default=(256, 256, 128), strict=False)
    cnn_kernel: Count | Annotated[Several, Field(strict=False)] = 5  # of all convolutions, or one of each
    cnn_pool: Count = 1
    cnn_units: Several = Field(default=(328, 192), strict=False)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5  # of the last hidden layer; the paper gives no rate


class ModelSpec(ModelConfig):
    """A `ModelConfig` bound to the images and classes of one data set.

    Settings of other kinds are dropped: they keep their defaults here, and stay out of every record. A CNN has no decoder.
    Raises `ValueError` (pydantic's `ValidationError`) if the image is too small for a CapsNet's two convolutions or for a
    CNN's pooling, if a CNN's kernels are not as many as its convolutions, or if an image shows more digits than there are
    classes.
    """

    image: tuple[Count, Count, Count] = Field(strict=False)  # height, width, channels
    classes: Annotated[int, Field(ge=2)]
    overlaid: Count = 1  # K: how many digits, of different classes, an image shows one over the other (section 6: two)

    @model_validator(mode="before")
    @classmethod
    def _own_settings(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        kind = given.get("kind", "capsnet")
        own = {key: value for key, value in given.items() if key not in foreign_keys(kind)}
        return own | {"decoder": False} if kind == "cnn" else own

    @model_serializer(mode="wrap")
    def _own_record(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key not in foreign_keys(self.kind)}

    def model_post_init(self, _context: object) -> None:
        smallest = 2 * self.kernel - 1
        height, width = self.image[:2]
        if self.kind == "capsnet" and min(height, width) < smallest:
            raise ValueError(
                f"images of {height}x{width} are too small for two {self.kernel}x{self.kernel} convolutions: "
                f"at least {smallest}x{smallest} pixels, or a smaller model.kernel"
            )
        if self.kind == "cnn" and len(self.cnn_kernels) != len(self.cnn_channels):
            raise ValueError(
                f"model.cnn_kernel: {len(self.cnn_kernels)} kernels, but model.cnn_channels has {len(self.cnn_channels)} "
                "convolutions; give one kernel for each, or a single number for all"
            )
        if self.kind == "cnn" and min(self.cnn_grids[-1]) < 1:
            raise ValueError(
                f"model.cnn_pool: images of {height}x{width} are too small to be pooled {len(self.cnn_channels)} times by "
                f"{self.cnn_pool}"
            )
        if self.overlaid > self.classes:
            raise ValueError(
                f"an image cannot show {self.overlaid} digits of different classes: there are {self.classes}"
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
        """What the primary convolution is multiplied by before its bias: in the released code, one over the types."""
        return 1 / self.primary_types if self.profile == "official" else 1.0

    @property
    def digit_bias(self) -> bool:
        """Whether the output capsules have a bias, added to s_j in every routing iteration (released code)."""
        return self.profile == "official"

    @property
    def margin_scale(self) -> float:
        """What Eq. 4's sum over the classes is multiplied by: the released code halves it and takes the classes' mean."""
        return 0.5 / self.classes if self.profile == "official" else 1.0

    @property
    def evaluation_mask(self) -> Literal["longest", "label"]:
        """The capsule that the decoder sees in evaluation: the longest (section 4.1), or the label's (released code).

        Where an image shows several digits it is each label's too: nothing else says which digit a reconstruction is of.
        """
        return "label" if self.profile == "official" or self.overlaid > 1 else "longest"

    @property
    def variant(self) -> str:
        """What records call the model: a CapsNet's profile, or its kind."""
        return self.profile if self.kind == "capsnet" else self.kind

    @property
    def loss_terms(self) -> tuple[str, ...]:
        """The fields of `Loss` that there are for this kind, in their order."""
        return ("total", "margin", "reconstruction") if self.kind == "capsnet" else ("total",)

    @property
    def dropped_units(self) -> int:
        """Width U of the layer that training drops units of; 0 where none are."""
        return self.cnn_units[-1] if self.kind == "cnn" and self.dropout else 0

    @property
    def cnn_kernels(self) -> tuple[int, ...]:
        """Side of each convolution's kernel."""
        return (self.cnn_kernel,) * len(self.cnn_channels) if isinstance(self.cnn_kernel, int) else self.cnn_kernel

    @property
    def cnn_grids(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the image and after each convolution with its pooling, which leaves out incomplete windows."""
        height, width, _ = self.image
        pooled = (self.cnn_pool**layer for layer in range(len(self.cnn_channels) + 1))
        return tuple((height // by, width // by) for by in pooled)

    @property
    def cnn_convolutions(self) -> tuple[str, ...]:
        """Names of the convolutions."""
        return tuple(f"conv{layer}" for layer in range(1, len(self.cnn_channels) + 1))

    @property
    def cnn_dense(self) -> tuple[str, ...]:
        """Names of the layers after the convolutions, the last of which gives a number for each class."""
        return tuple(f"fc{layer}" for layer in range(1, len(self.cnn_units) + 2))

    @property
    def cnn_widths(self) -> tuple[int, ...]:
        """Inputs of each of those layers, and the outputs of the last; the first sees the grid flattened (y, x, channel)."""
        return (math.prod(self.cnn_grids[-1]) * self.cnn_channels[-1], *self.cnn_units, self.classes)

    @property
    def several(self) -> tuple[int, ...]:
        """The axis that images, labels and predictions have besides, where an image shows several digits."""
        return (self.overlaid,) if self.overlaid > 1 else ()

    @property
    def pixels(self) -> int:
        """Number of values the decoder reconstructs: H * W * C."""
        height, width, channels = self.image
        return height * width * channels


def foreign_keys(kind: object) -> frozenset[str]:
    """The model keys that mean nothing to `kind`; none of a kind that there is not, which is refused elsewhere."""
    if kind not in KIND_KEYS:
        return frozenset()
    return frozenset[str]().union(*(keys for other, keys in KIND_KEYS.items() if other != kind))


def has_capsules(model: ModelConfig) -> bool:
    """Whether the model has capsules, and so lengths and routing; only such a model can have a decoder of capsules."""
    return model.kind == "capsnet"
