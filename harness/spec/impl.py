"""What every implementation must agree on: the model, the optimiser, the runtime, and the `Impl` interface.

Everything crosses this border as NumPy arrays. An implementation imports this module and nothing else of the bench; the
bench imports implementations only through `harness.registry`. Source of the model: Sabour, Frosst, Hinton, *Dynamic
Routing Between Capsules*, NIPS 2017 (arXiv 1710.09829v2), cited below by section and equation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from harness.spec.model import Count, ModelSpec, Section
from harness.spec.optim import OptimSpec

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Int8, Int32, UInt8

Weights = dict[str, np.ndarray]
"""Canonical name -> float array in the canonical layout; see `harness.weights.weight_table`."""

# Constants of the paper, the same in every implementation.
MARGIN_PLUS, MARGIN_MINUS, MARGIN_LAMBDA = 0.9, 0.1, 0.5  # Eq. 4
RECONSTRUCTION_WEIGHT = 0.0005  # section 4.1: factor of the per-image sum of squared errors


class TimingWarning(UserWarning):
    """Raised with `warnings.warn` by an implementation whose timing does not mean what its configuration says.

    The worker records every such warning with the trial, and the tables print it.
    """


class Runtime(Section):
    """Where and how an implementation computes.

    `fp32` is strict: no TF32, no accumulation in lower precision. `bf16` and `tf32` round the operands of the matrix
    products of convolutions, votes and decoder to 8 and 11 binary digits, in both passes, and nothing else: products
    accumulate in float32; routing, losses, weights and Adam are float32. For `tf32`, the hardware rounds.
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
    """The forward pass on B images without labels: the decoder sees the longest capsule (section 4.1).

    If images show K > 1 digits, the decoder sees the K longest, one at a time, and the reconstructions are ordered by
    length, longest first.

    For a CNN, `lengths` holds the class probabilities, which is also the meaning of capsule lengths (section 2); the
    other fields are None, and no unit is dropped.
    """

    digit: Float[np.ndarray, "B J D"] | None  # output capsules v_j
    lengths: Float[np.ndarray, "B J"]  # |v_j|; for a CNN the output of the softmax or sigmoids
    coupling: Float[np.ndarray, "B I J"] | None  # c_ij of the last routing iteration; sums to 1 over j, or to less
    reconstruction: Float[np.ndarray, "B *K H W C"] | None  # None without a decoder

    @property
    def probabilities(self) -> Float[np.ndarray, "B J"]:
        """`lengths` under their name in a CNN."""
        return self.lengths


@dataclass(frozen=True)
class Loss:
    """Means over the images. `total` = margin (Eq. 4 * margin_scale) + 0.0005 * reconstruction (sum of squares per image).

    If an image shows K > 1 digits, the sum of squares is over all K, each against the reconstruction from its own
    class's capsule. For a CNN, `total` is the cross-entropy in nats (for sigmoids, summed over the classes), and there
    are no other terms: see `ModelSpec.loss_terms`.
    """

    total: float
    margin: float | None = None
    reconstruction: float | None = None  # unweighted; 0.0 without a decoder


@dataclass(frozen=True)
class Moments:
    """Adam's state after `step` completed steps; both dictionaries have the weights' names and layouts."""

    step: int
    first: Weights
    second: Weights


@dataclass(frozen=True)
class EpochPlan:
    """One epoch, drawn outside the frameworks. A last batch smaller than `batch` is kept; its mean is over its own images.

    If an image shows K > 1 digits, it is made of K staged ones, each shifted independently.
    """

    order: Int32[np.ndarray, " N *K"]  # indices into the staged images
    shifts: Int8[np.ndarray, "N *K 2"]  # (down, right) in pixels, zero filled: out[y, x] = image[y - down, x - right]
    batch: int
    kept: UInt8[np.ndarray, "N U"] | None = None  # 1 if dropout keeps a unit, else 0; None for models without dropout

    @classmethod
    def blank(cls, model: ModelSpec, batch: int) -> EpochPlan:
        """One step with image 0 repeated, unshifted, every unit kept: for compiling."""
        kept = np.ones((batch, model.dropped_units), np.uint8) if model.dropped_units else None
        shape = (batch, *model.several)
        return cls(np.zeros(shape, np.int32), np.zeros((*shape, 2), np.int8), batch, kept)

    def steps(self) -> tuple[Int32[np.ndarray, "S B *K"], Int8[np.ndarray, "S B *K 2"], Float[np.ndarray, "S B"]]:
        """Order, shifts and weights of the S steps, all of full size: the last batch is padded with image 0 at weight 0.

        Thus one compiled shape serves every step; a step's loss is sum(weight * loss) / sum(weight) over its B images.
        """
        real = np.ones(len(self.order), np.float32)
        return batched(self.order, self.batch), batched(self.shifts, self.batch), batched(real, self.batch)

    def masks(self, model: ModelSpec) -> tuple[UInt8[np.ndarray, "S B U"], ...]:
        """`kept` split into steps: one array for a model with dropout, none for any other.

        Raises `ValueError` if the plan was not drawn for `model`.
        """
        if not model.dropped_units:
            return ()
        found, expected = None if self.kept is None else self.kept.shape, (len(self.order), model.dropped_units)
        if self.kept is None or found != expected:
            raise ValueError(f"dropout: the plan's masks have the shape {found}, expected {expected}; see plan_epoch")
        return (batched(self.kept, self.batch),)


@dataclass(frozen=True)
class TrainTotals:
    """One epoch of training: means over all its images, each under the weights of its own step."""

    count: int
    loss: Loss
    correct: int  # images whose K longest capsules (or most probable classes) are the labels', before the step's update


@dataclass(frozen=True)
class EvalTotals:
    """Evaluation of N images: mean loss (decoder masked by `ModelSpec.evaluation_mask`) and each image's predicted class.

    If images show K > 1 digits, the classes of the K longest capsules, longest first. Ties go to the first class.
    """

    loss: Loss
    predicted: Int[np.ndarray, " N *K"]


def is_right(predicted: Int[np.ndarray, " N *K"], labels: Int[np.ndarray, " N *K"]) -> Bool[np.ndarray, " N"]:
    """Whether all digits of an image were predicted, in any order (section 6 for two digits)."""
    if labels.ndim == 1:
        return predicted == labels
    return (np.sort(predicted, axis=1) == np.sort(labels, axis=1)).all(1)


@runtime_checkable
class Impl(Protocol):
    """One network, of any `ModelSpec.kind`, in one framework.

    Construction allocates nothing that depends on data; `load` must be called first.

    Images are uint8 (N, H, W, C), labels int (N,); pixels are divided by 255 on the device. If `ModelSpec.overlaid` is
    K > 1, images are K digits (N, K, H, W, C) and labels (N, K): the network sees the digits' sum, clipped at 255, and the
    decoder reconstructs each digit. Only staged images are single digits. Staged images may also be larger: of these the
    network sees the middle, after the plan's shift (section 7); if that is between two pixels, above and left of it.
    Calls block until the device is done, so that the caller can time them.
    """

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None: ...

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        """Takes canonical weights and Adam's state, which is fresh (step 0, zeros) if `moments` is None."""
        ...

    def dump(self) -> Weights: ...

    def dump_moments(self) -> Moments: ...

    def stage(self, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]) -> None:
        """Moves the training images to the device once: single digits, which an epoch's plan overlays."""
        ...

    def forward(self, images: UInt8[np.ndarray, "B *K H W C"]) -> Outputs: ...

    def loss_and_grads(
        self, images: UInt8[np.ndarray, "B *K H W C"], labels: Int[np.ndarray, " B *K"]
    ) -> tuple[Loss, Weights]:
        """Training-mode loss (decoder masked by the label; no unit dropped) and its gradient for every weight."""
        ...

    def compile(self, batch: int) -> None:
        """Builds the training and evaluation steps for batches of `batch`; changes no weight and no optimiser state."""
        ...

    def train(self, plan: EpochPlan) -> TrainTotals:
        """Runs the plan's steps on the staged images; nothing is read back from the device before the end."""
        ...

    def evaluate(self, images: UInt8[np.ndarray, "N *K H W C"], labels: Int[np.ndarray, " N *K"]) -> EvalTotals: ...

    def peak_bytes(self) -> int | None:
        """Peak device memory of this process; None on the CPU, where the bench reads the process's own peak."""
        ...


@dataclass(frozen=True)
class Cut:
    """A training step cut short after one of its parts; each call runs a plan's steps as `Impl.train` does, and blocks.

    `whole` computes the step up to the end of `part`, and the gradients of all weights so far. `forward`, where the part
    has a forward and a backward pass, computes no gradient.
    """

    part: str
    whole: Callable[[EpochPlan], object]
    forward: Callable[[EpochPlan], object] | None = None


@runtime_checkable
class Truncated(Protocol):
    """An optional method for `capsbench speed`: a training step cut short, so that its parts can be told in place.

    A part takes as long as the step that ends with it takes longer than the one that ends before it. So the parts add up to
    the step, whatever a compiler makes of them: what it fuses across a cut counts as the later part's.
    """

    def truncated(self) -> list[Cut]:
        """The steps, from the shortest to the whole, after `load`, `stage` and `compile`; each is compiled at its first call.

        "other" is the step without anything: what `train` does besides. Then come "data" (gather, shift, pixels), the
        stages of the network, "loss" (the losses and the number of images that are right) and "optimiser", which is `train`
        itself and moves the weights. The stages are "conv1" (with ReLU), "primary" (the convolution and squash), "votes",
        "routing" and, if there is one, "decoder"; for a CNN, "conv" and "dense".

        The gradient that comes back to a stage at which a step is cut is the stage's output: it costs nothing, and no
        compiler can do without the output.
        """
        ...


@runtime_checkable
class Profiled(Protocol):
    """Optional methods that describe a training step, for `capsbench speed`."""

    def parts(self) -> dict[str, Callable[[], None]]:
        """The parts of a training step of one batch, each callable separately after `load`, `stage` and `compile`.

        For an implementation whose step cannot be cut short: see `Truncated`, which tells more and is preferred. A call
        runs its part once, forward and backward, and blocks until the device is done. No weight of the implementation
        changes. Timed alone, parts may take longer than in the step.
        """
        ...

    def trace(self, plan: EpochPlan, path: Path) -> None:
        """`train(plan)` under the framework's profiler; writes `path` (.json.gz): a gzipped Chrome trace, for Perfetto."""
        ...
