"""A trial's resolved configuration: the sections of a suite, bound to one implementation and one seed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from harness.spec.impl import Runtime
from harness.spec.model import Count, ModelSpec, Positive, Section
from harness.spec.optim import LrDecay, OptimSpec


class Augment(Section):
    """Training-time augmentation, drawn per image and epoch."""

    # At most this many pixels each way, zero filled; None: the data set's usual value, mostly 0.
    shift: Annotated[int, Field(ge=0, le=100)] | None = None


class DataConfig(Section):
    """Which images. A size left out means all images. Validation images are never trained on, test images never chosen on."""

    name: str
    test_from: str | None = None  # another data set, whose test images replace this one's
    train: Count | None = None
    validation: Annotated[int, Field(ge=0)] | None = None
    test: Count | None = None
    canvas: Annotated[int, Field(ge=1, le=1024)] | None = (
        None  # pixels a side, images centred on black; None: as they are
    )
    augment: Augment = Augment()
    dir: str | None = None  # where the files are kept; not part of a trial's identity


class Stop(Section):
    """When training ends early: after the first epoch at which one of the given rules holds."""

    patience: Count | None = None  # epochs in a row without a new best one on the validation images
    accuracy_pct: Annotated[float, Field(gt=0, le=100)] | None = None  # reached on the images `on`
    # `test` is only for reproducing the paper's affNIST protocol: its test error is no longer an estimate. The images
    # are those of `data.name`, even if `data.test_from` names others.
    on: Literal["validation", "test"] = "validation"

    @property
    def images(self) -> Literal["validation", "test"] | None:
        """Which images decide; None if none do."""
        if self.accuracy_pct is not None:
            return self.on
        return "validation" if self.patience else None


class TrainConfig(OptimSpec):
    """Training: how long, in which batches, at which learning rate, from which weights."""

    epochs: Count = 10
    batch: Count = 128
    keep_every: Count | None = None  # keep the weights every `keep_every` epochs, and those of the last and best epoch
    stop: Stop = Stop()
    start_from: str | None = None  # a trial's folder or a safetensors file; its content is in `Trial.start_sha256`

    @property
    def optim(self) -> OptimSpec:
        return OptimSpec(lr=self.lr, lr_decay=self.lr_decay, weight_decay=self.weight_decay, decoder=self.decoder)


class RuntimeConfig(Section):
    """What a suite may set of the runtime; device and threads follow from `resources`."""

    precision: Literal["fp32", "fp64", "tf32", "bf16"] = "fp32"
    compile: bool = True
    # Environment variables for the trial's process, beside those that capsbench sets: see `harness.machine.surroundings`.
    environment: Annotated[
        dict[str, str],
        Field(
            description="a mapping of environment variables to their values, such as {XLA_FLAGS: --xla_dump_to=dump}"
        ),
    ] = {}  # noqa: RUF012 (pydantic copies it)


class ParityConfig(Section):
    """The gate before timing: the ladder up to `level`, on what is timed; L6 is a trajectory of `steps` steps.

    The audit then checks samples of the training and of the test error while the trial runs (`harness.worker.audit`).
    `margin_pct` is for the comparison afterwards of the test errors of several seeds (`harness.analysis.equivalence`).
    """

    gate: bool = True
    level: Literal["L1", "L2", "L3", "L4", "L5", "L6"] = "L6"
    steps: Annotated[int, Field(ge=0, le=1000)] = 3
    audit: bool = True
    # L7: test errors at most this many percentage points apart count as equivalent; not part of a trial's identity.
    # 0.1 is 10 of MNIST's 10,000 test images, and the decoder's gain in the paper (0.35 to 0.25 %): a larger difference
    # between frameworks would hide what papers report. It is also three times the paper's spread over trials, so that
    # three seeds can show it.
    margin_pct: Annotated[float, Field(gt=0, le=100)] = 0.1


class MeasureConfig(Section):
    """What is measured in addition to the training, outside all timed regions."""

    # The number of images for measuring the routing after each epoch (`parity.specification.routing_logit_change`): the
    # first validation images, or training images if there are none. 0: no measurement.
    routing_logits: Annotated[int, Field(ge=0, le=10_000)] = 0


class Resources(Section):
    """The exclusive resources of one trial. `auto`: one GPU if the cluster has any, else none."""

    cpus: Count = 2
    gpus: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"


class Trial(Section):
    """One resolved configuration with its seed; `id` is the hash of everything that can change its result."""

    id: str
    suite: str
    impl: str
    seed: Annotated[int, Field(ge=0)]
    params: dict[str, Any]  # the grid's values other than impl and seed, e.g. {"model.routing": 3}
    data: DataConfig
    model: ModelSpec
    train: TrainConfig
    runtime: RuntimeConfig
    parity: ParityConfig
    measure: MeasureConfig = MeasureConfig()
    cpus: Count
    gpus: Annotated[int, Field(ge=0)]
    start_sha256: str | None = None  # digest of the weights that training starts from; None: drawn from the seed

    def facts(self) -> dict[str, Any]:
        """The facts in the header of the trial's weights; `model` is enough to rebuild the model."""
        return {
            "suite": self.suite,
            "trial": self.id,
            "impl": self.impl,
            "seed": self.seed,
            "profile": self.model.variant,
            "data": self.data.name,
            "model": self.model.model_dump(mode="json"),
        }

    def runtime_spec(self) -> Runtime:
        """The runtime that an implementation is built with: one thread per core, the GPU if the trial has one."""
        return Runtime(
            precision=self.runtime.precision,
            compile=self.runtime.compile,
            device="gpu" if self.gpus else "cpu",
            threads=self.cpus,
        )


__all__ = [
    "Augment", "DataConfig", "LrDecay", "MeasureConfig", "ParityConfig", "Positive", "Resources", "RuntimeConfig", "Stop",
    "TrainConfig", "Trial",
]  # fmt: skip
