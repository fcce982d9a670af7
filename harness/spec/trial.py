"""A trial's resolved configuration: the sections of a suite, bound to one implementation and one seed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from harness.spec.impl import Runtime
from harness.spec.model import Count, ModelSpec, Positive, Section
from harness.spec.optim import LrDecay, OptimSpec


class Augment(Section):
    """Training-time augmentation, drawn per image and epoch."""

    # At most this many pixels each way, zero filled; None: the data set's usual value, mostly 0.
    shift: Annotated[int, Field(ge=0, le=100)] | None = None
    # Where `data.crop` cuts training images: in the middle, or anywhere, drawn anew (section 7). Others: in the middle.
    crop: Literal["centre", "random"] = "centre"


class Division(Section):
    """How one's own pictures are divided where their files do not say: for each class by these fractions, drawn once.

    It does not depend on a trial's seed: trials are compared on the same test images. `seed` draws another division.
    """

    test: Annotated[float, Field(gt=0, lt=1)] = 0.2  # of all pictures
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of those that are left
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0


class OwnData(Section):
    """What was found in one's own files, or said by a data set from elsewhere, when the suite was read.

    A finished trial is reported from this alone. Only `sha256` is part of a trial's identity.
    """

    image: tuple[Count, Count, Count] = Field(strict=False)  # height, width, channels: after resize, crop and pad
    classes: tuple[str, ...] = Field(strict=False)
    train: int
    validation: int
    test: int
    sha256: str | None = None  # of the pixels and labels in both parts; None: a data set that a distribution registers
    key: str = ""  # the folder that holds them, verified, in the data directory: see `harness.data.own.store`
    files_sha256: str = ""  # of the files that they were read from
    is_apart: bool = False  # validation pictures had files of their own
    drawn: tuple[str, ...] = Field(
        default=(), strict=False
    )  # parts that no file gives, drawn from the training pictures
    notes: tuple[str, ...] = Field(default=(), strict=False)  # what a user should know about the files


_SIDES = "a number of pixels such as 32, or HEIGHTxWIDTH such as 32x48"
Size = Annotated[
    Annotated[int, Field(ge=1, le=4096)] | Annotated[str, Field(pattern=r"^[1-9]\d{0,3}x[1-9]\d{0,3}$")],
    Field(description=_SIDES),
]
"""Height and width; a number stands for both."""


def sides(size: int | str) -> tuple[int, int]:
    """Height and width of a `Size`."""
    height, _, width = str(size).partition("x")
    return int(height), int(width or height)


class DataConfig(Section):
    """Which images. A size left out means all images. Validation images are never trained on, test images never chosen on.

    Those of one's own files (`name` is folder, npz, csv, idx or module) are said by the keys from `path` to `split`.
    """

    RESOLVED: ClassVar = ("own",)  # fields that no suite sets

    name: str
    path: str | None = None  # the folder or file; not part of a trial's identity, which its content is
    test_path: str | None = None  # the same for test pictures, if they are elsewhere
    module: str | None = None  # for name: module, the function that returns arrays, package.module:function
    # names of the classes: of a folder those to use, in this order; of the labels 0, 1, ... otherwise
    classes: Annotated[tuple[str, ...], Field(strict=False, min_length=2, max_length=10_000)] | None = None
    # grey or colour; None: colour if any picture has it
    channels: Annotated[Literal[1, 3] | None, Field(description="1 (grey) or 3 (colour)")] = None
    shape: (
        Annotated[
            str,
            Field(
                pattern=r"^[1-9]\d{0,3}x[1-9]\d{0,3}(x[13])?$",
                description="HEIGHTxWIDTH such as 28x28, or HEIGHTxWIDTHx3",
            ),
        ]
        | None
    ) = None  # of the pictures in a CSV file
    label_column: str | None = None  # of a CSV file: first, last, or the name in its header; None: found out
    split: Division = Division()
    resize: Size | None = None  # scaled to this size; then `crop`, then `pad`
    fit: Literal["stretch", "crop", "pad"] = "stretch"  # what `resize` does to another aspect ratio
    crop: Size | None = None  # cut from the middle, or as `augment.crop` says
    pad: Size | None = None  # centred on black
    own: OwnData | None = None
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
    # How often a trial is tried again within a run after a loss that is nobody's fault: a killed worker or supervisor, a
    # hang. Losses of nodes count apart (`harness.executors.losses`).
    retries: Annotated[int, Field(ge=0, le=100)] = 1
    # After how many seconds without a sign of life a worker counts as hung: see `harness.supervisor.watch`.
    hang_s: Annotated[
        Literal["auto"] | Annotated[float, Field(ge=10, le=2_592_000)],
        Field(description="auto, or a number of seconds from 10 to 2592000 (30 days)"),
    ] = "auto"
    # Whether a fork of a warm worker may run the trial: it saves the imports, and no times are reported. `auto`: if many
    # trials of a run are too small to be timed, or are not timed (`harness.executors.warmth`).
    warm: bool | Literal["auto"] = "auto"


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
    # Only GPUs of this type, as nodes report it: H100, A100, ...
    gpu_type: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="a type of GPU, such as H100")]
        | None
    ) = None
    # The whole node for one trial: no other trial of capsbench runs there meanwhile.
    exclusive: Annotated[Literal["node"] | None, Field(description="node, or nothing")] = None


class Interpreter(Section):
    """The Python of a trial that does not run in the bench's own: what was found there before anything started.

    Where it is decides no result. Its versions are part of the trial's id, as those of the bench's own are otherwise.
    """

    path: str
    python: str  # its version
    versions: dict[str, str]  # distribution -> version, of those that can change a result
    without_gpu: str | None = None  # why its framework cannot use a GPU


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
    gpu_type: str | None = None  # None: of any type
    exclusive: Literal["node"] | None = None  # the whole node, or only its cores and GPUs
    start_sha256: str | None = None  # digest of the weights that training starts from; None: drawn from the seed
    interpreter: Interpreter | None = None  # None: the bench's own; then no document names it
    # What it is to a search: one of its proposals, which sees no test images, or a confirmation of its best. None: it
    # belongs to no search; then no document names it.
    phase: Literal["proposal", "confirmation"] | None = None

    @model_serializer(mode="wrap")
    def _document(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document = plain(self)
        for name in ("interpreter", "phase"):
            if document.get(name) is None:
                document.pop(name, None)
        return document

    @property
    def is_proposal(self) -> bool:
        """Whether it is judged on validation images alone."""
        return self.phase == "proposal"

    def facts(self) -> dict[str, Any]:
        """The facts in the header of the trial's weights; `model` is enough to rebuild the model."""
        return {
            "suite": self.suite,
            "trial": self.id,
            "impl": self.impl,
            "seed": self.seed,
            "profile": self.model.variant,
            "data": self.data.name,
            **({"classes": list(self.data.own.classes)} if self.data.own else {}),
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
    "Augment", "DataConfig", "Division", "Interpreter", "LrDecay", "MeasureConfig", "OwnData", "ParityConfig", "Positive",
    "Resources", "RuntimeConfig", "Size", "Stop", "TrainConfig", "Trial", "sides",
]  # fmt: skip
