"""What every implementation must agree on: the model, the optimiser, the runtime, and the `Impl` interface.

Everything crosses this border as NumPy. An implementation imports this module and nothing else of the bench; the bench
imports implementations only through `harness.registry`. Source of the model: Sabour, Frosst, Hinton, *Dynamic Routing
Between Capsules*, NIPS 2017 (arXiv 1710.09829v2), cited below by section and equation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Int8, Int32, UInt8
from pydantic import BaseModel, ConfigDict, Field

Weights = dict[str, np.ndarray]
"""Canonical name -> float array in the canonical layout; see `harness.weights.weight_table`."""

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

# Constants of the paper, the same in every implementation.
MARGIN_PLUS, MARGIN_MINUS, MARGIN_LAMBDA = 0.9, 0.1, 0.5  # Eq. 4
RECONSTRUCTION_WEIGHT = 0.0005  # section 4.1: times the per-image sum of squared errors
SQUASH_EPSILON = 1e-9  # added to |s|^2 under the root: keeps value and gradient finite at s = 0
ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8  # epsilon is added after bias correction


class TimingWarning(UserWarning):
    """Raised with `warnings.warn` by an implementation whose timing does not mean what its configuration says.

    The worker records every such warning with the trial, and the tables print it.
    """


class Section(BaseModel):
    """Base of every configuration section: immutable, unknown keys and lossy conversions refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelConfig(Section):
    """The architecture as a suite states it; the defaults are the paper's MNIST CapsNet (section 4)."""

    kind: Literal["capsnet"] = "capsnet"
    profile: Literal["paper", "official"] = "paper"  # the text, or the authors' released code where it differs
    routing: Annotated[int, Field(ge=1, le=10)] = 3  # r of Procedure 1: r softmaxes and r squashes
    decoder: bool = True
    conv_channels: Count = 256
    primary_types: Count = 32
    primary_dim: Count = 8
    digit_dim: Count = 16
    decoder_units: tuple[Count, Count] = Field(default=(512, 1024), strict=False)
    kernel: Count = 9  # of both convolutions; VALID padding, strides 1 and 2


class ModelSpec(ModelConfig):
    """A `ModelConfig` bound to the images and classes of one data set.

    Raises `ValueError` (pydantic's `ValidationError`) if the image is too small for the two convolutions.
    """

    image: tuple[Count, Count, Count] = Field(strict=False)  # height, width, channels
    classes: Annotated[int, Field(ge=2)]

    def model_post_init(self, _context: object) -> None:
        smallest = 2 * self.kernel - 1
        if min(self.image[:2]) < smallest:
            height, width = self.image[:2]
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
        """The capsule that the decoder sees in evaluation: the longest (section 4.1), or the label's (released code)."""
        return "label" if self.profile == "official" else "longest"

    @property
    def pixels(self) -> int:
        """Number of values the decoder reconstructs: H * W * C."""
        height, width, channels = self.image
        return height * width * channels


class LrDecay(Section):
    """How the learning rate falls with the completed steps t: max(lr * rate^n, floor).

    `exponential`, the released code's: n = t / steps. `staircase`: n is the whole part of that. `epoch`: n is the number of
    completed epochs, a staircase whose `steps` are those of an epoch; a suite fills them in. `constant`: lr, always.
    """

    kind: Literal["exponential", "staircase", "epoch", "constant"] = "exponential"
    rate: Annotated[float, Field(gt=0, le=1)] = 0.96
    steps: Count = 2000
    floor: Annotated[float, Field(ge=0)] = 1e-6


class DecoderOptim(Section):
    """What the decoder's weights have of their own; None is what all others have."""

    lr: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None


class OptimSpec(Section):
    """Adam (Kingma & Ba 2015, Algorithm 1): betas 0.9/0.999, epsilon 1e-8 outside the bias-corrected root.

    `weight_decay` is L2 as in `torch.optim.Adam`: weight_decay * w is added to the gradient of every weight and bias,
    before the moments; it is no part of the loss. AdamW's, decoupled from the gradient, is another thing.
    """

    lr: Positive = 1e-3
    lr_decay: LrDecay = LrDecay()
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    decoder: DecoderOptim = DecoderOptim()

    def lr_at(self, step: int) -> float:
        """The learning rate of the step that follows `step` completed ones."""
        decay = self.lr_decay
        if decay.kind == "constant":
            return self.lr
        periods = step / decay.steps if decay.kind == "exponential" else step // decay.steps
        return max(self.lr * decay.rate**periods, decay.floor)

    def lr_scale(self, name: str) -> float:
        """What the learning rate is multiplied by for weight `name`: one schedule, floor included, serves all."""
        return (self.decoder.lr or self.lr) / self.lr if name.startswith("dec") else 1.0

    def weight_decay_of(self, name: str) -> float:
        """The weight decay of weight `name`."""
        own = self.decoder.weight_decay if name.startswith("dec") else None
        return self.weight_decay if own is None else own


class Runtime(Section):
    """Where and how an implementation computes.

    `fp32` is strict: no TF32, no accumulation in less. `bf16` and `tf32` round the operands of the convolutions', the votes'
    and the decoder's matrix products to 8 and 11 binary digits, in both passes, and nothing else: products accumulate in
    float32; routing, losses, weights and Adam are float32. `tf32` is the hardware's own.
    """

    precision: Literal["fp32", "fp64", "tf32", "bf16"] = "fp32"
    compile: bool = True  # torch.compile / tf.function / jax.jit; False is the framework's eager mode
    device: Literal["cpu", "gpu"] = "cpu"
    threads: Count = 1

    @property
    def dtype(self) -> type[np.floating]:
        return np.float64 if self.precision == "fp64" else np.float32


def batched(array: np.ndarray, batch: int) -> np.ndarray:
    """(N, ...) -> (ceil(N / batch), batch, ...), filled up with zeros."""
    steps = -(-len(array) // batch)
    filled = np.zeros((steps * batch, *array.shape[1:]), array.dtype)
    filled[: len(array)] = array
    return filled.reshape(steps, batch, *array.shape[1:])


@dataclass(frozen=True)
class Outputs:
    """The forward pass on B images without labels: the decoder sees the longest capsule (section 4.1)."""

    digit: Float[np.ndarray, "B J D"]  # output capsules v_j
    lengths: Float[np.ndarray, "B J"]  # |v_j|
    coupling: Float[np.ndarray, "B I J"]  # c_ij of the last routing iteration; sums to 1 over j
    reconstruction: Float[np.ndarray, "B H W C"] | None  # None without a decoder


@dataclass(frozen=True)
class Loss:
    """Means over the images. `total` = margin (Eq. 4 * margin_scale) + 0.0005 * reconstruction (sum of squares per image)."""

    total: float
    margin: float
    reconstruction: float  # unweighted; 0.0 without a decoder


@dataclass(frozen=True)
class Moments:
    """Adam's state after `step` completed steps; both dictionaries have the weights' names and layouts."""

    step: int
    first: Weights
    second: Weights


@dataclass(frozen=True)
class EpochPlan:
    """One epoch, drawn outside the frameworks. A last batch smaller than `batch` is kept; its mean is over its own images."""

    order: Int32[np.ndarray, " N"]  # indices into the staged images
    shifts: Int8[np.ndarray, "N 2"]  # (down, right) in pixels, zero filled: out[y, x] = image[y - down, x - right]
    batch: int

    def steps(self) -> tuple[Int32[np.ndarray, "S B"], Int8[np.ndarray, "S B 2"], Float[np.ndarray, "S B"]]:
        """Order, shifts and weights of the S steps, each of full size: the last batch is filled up with image 0 at weight 0.

        So one compiled shape serves every step; a step's loss is sum(weight * loss) / sum(weight) over its B images.
        """
        real = np.ones(len(self.order), np.float32)
        return batched(self.order, self.batch), batched(self.shifts, self.batch), batched(real, self.batch)


@dataclass(frozen=True)
class TrainTotals:
    """One epoch of training: means over all its images, each under the weights of its own step."""

    count: int
    loss: Loss
    correct: int  # longest capsule is the label's, before the step's update


@dataclass(frozen=True)
class EvalTotals:
    """Evaluation of N images: mean loss (decoder masked by `ModelSpec.evaluation_mask`) and each one's predicted class."""

    loss: Loss
    predicted: Int[np.ndarray, " N"]


@runtime_checkable
class Impl(Protocol):
    """One CapsNet in one framework. Construction allocates nothing that depends on data; `load` comes first.

    Images are uint8 (N, H, W, C), labels int (N,); pixels are divided by 255 on the device. Calls block until the device
    is done, so that the caller's clock is right.
    """

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None: ...

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        """Takes canonical weights, and Adam's state: fresh (step 0, zeros) if `moments` is None."""
        ...

    def dump(self) -> Weights: ...

    def dump_moments(self) -> Moments: ...

    def stage(self, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]) -> None:
        """Moves the training images to the device once."""
        ...

    def forward(self, images: UInt8[np.ndarray, "B H W C"]) -> Outputs: ...

    def loss_and_grads(
        self, images: UInt8[np.ndarray, "B H W C"], labels: Int[np.ndarray, " B"]
    ) -> tuple[Loss, Weights]:
        """Training-mode loss (decoder masked by the label) and its gradient for every weight."""
        ...

    def compile(self, batch: int) -> None:
        """Builds the training and evaluation steps for batches of `batch`; changes no weight and no optimiser state."""
        ...

    def train(self, plan: EpochPlan) -> TrainTotals:
        """Runs the plan's steps on the staged images; nothing is read back from the device before the end."""
        ...

    def evaluate(self, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]) -> EvalTotals: ...

    def peak_bytes(self) -> int | None:
        """Peak device memory of this process; None on the CPU, where the bench reads the process's own peak."""
        ...


@runtime_checkable
class Profiled(Protocol):
    """What an implementation may tell of its training step besides: `capsbench speed` asks where it is there."""

    def parts(self) -> dict[str, Callable[[], None]]:
        """After `load`, `stage` and `compile`: what a training step of one batch consists of, each part by itself.

        "data" (gather, shift, pixels), "conv" (both convolutions, ReLU, squash), "votes", "routing", "decoder" (with the
        losses; not there without a decoder), "optimiser". A call does that part once, forward and backward, and blocks
        until the device is done. No weight of the implementation changes.
        """
        ...

    def trace(self, plan: EpochPlan, path: Path) -> None:
        """`train(plan)` under the framework's profiler; writes `path` (.json.gz): a gzipped Chrome trace, for Perfetto."""
        ...
