"""What all models have: the name of their kind, and the images and classes of one data set; a part of `harness.spec`.

The kinds themselves are in `harness.models`, each with a class derived from `ModelSpec` for its settings and geometry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_serializer, model_validator

from harness.spec import kinds

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base of every configuration section: immutable, unknown keys and lossy conversions refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelConfig(Section):
    """The section `model` of a suite: a kind, and the settings given, of any kind.

    A setting that is not given has its kind's default; settings of other kinds have no effect. `harness.suite.keys`
    checks them one by one, and the kind's `ModelSpec` checks them together.
    """

    model_config = ConfigDict(extra="allow")
    kind: str = kinds.DEFAULT

    def __getattr__(self, name: str) -> Any:
        given = cast("dict[str, Any]", object.__getattribute__(self, "__pydantic_extra__") or {})
        if name in given:
            return given[name]
        field = None if name.startswith("_") else kinds.spec_of(self.kind).model_fields.get(name)
        if field is None or field.is_required():
            raise AttributeError(f'a model of kind "{self.kind}" has no setting "{name}"')
        return field.get_default(call_default_factory=True)


class ModelSpec(Section):
    """A model bound to the images and classes of one data set; an instance is always of its kind's class.

    `ModelSpec(kind="cnn", cnn_pool=2, image=(28, 28, 1), classes=10)` is a `CnnSpec`. Settings of other kinds are
    dropped and never recorded. Raises `ValueError` (pydantic's `ValidationError`) if settings and images do not fit
    together, or if an image shows more digits than there are classes; `UserError` for a kind that is unknown or broken.
    `decoder` tells, for every kind, whether there is one.

    A kind derives its class from this one. It defines `kind` with its name as default, fields with defaults, `check`,
    and those of the properties below that differ.
    """

    kind: str = kinds.DEFAULT
    image: tuple[Count, Count, Count] = Field(strict=False)  # height, width, channels
    classes: Annotated[int, Field(ge=2)]
    overlaid: Count = 1  # K: the number of overlaid digits, of different classes, in an image (section 6: two)

    if TYPE_CHECKING:  # settings and geometry of any kind

        def __init__(self, **settings: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name == "decoder":  # valid for every kind
            return False
        if name.startswith("_"):
            return super().__getattr__(name)  # pyright: ignore
        raise AttributeError(f'a model of kind "{self.kind}" has no "{name}"')

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        kind = settings.get("kind", kinds.DEFAULT)
        if cls is ModelSpec and kinds.is_known(kind):
            cls = cast("type[Self]", kinds.spec_of(kind))
        return super().__new__(cls)

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, dict):
            return handler(values)
        given = cast("dict[str, Any]", values)
        if cls is not ModelSpec:
            unknown = [key for key in given if key not in cls.model_fields]
            return handler({k: v for k, v in given.items() if k not in unknown or not kinds.is_setting(k)})
        kind = str(given.get("kind", kinds.DEFAULT))
        return cast(Self, kinds.spec_of(kind).model_validate(given))

    @model_serializer
    def _record(self) -> dict[str, Any]:
        """The kind, its own settings, then the images."""
        fields = type(self).model_fields
        own = [name for name in fields if name not in ModelSpec.model_fields]
        return {name: getattr(self, name) for name in ("kind", *own, "image", "classes", "overlaid")}

    def model_post_init(self, _context: object) -> None:
        self.check()
        if self.overlaid > self.classes:
            raise ValueError(
                f"an image cannot show {self.overlaid} digits of different classes: there are {self.classes}"
            )

    def check(self) -> None:
        """Raises `ValueError` with an explanation if the settings of a kind and the images do not fit together."""

    @property
    def evaluation_mask(self) -> Literal["longest", "label"]:
        """For a kind with a decoder: the capsule that the decoder sees in evaluation, the longest or the label's."""
        return "longest"

    @property
    def variant(self) -> str:
        """The model's name in records."""
        return self.kind

    @property
    def loss_terms(self) -> tuple[str, ...]:
        """The fields of `Loss` that this kind has, in order."""
        return ("total",)

    @property
    def recorded_terms(self) -> tuple[str, ...]:
        """Those of `loss_terms` that apply to this model and are recorded."""
        return self.loss_terms

    @property
    def dropped_units(self) -> int:
        """Width U of the layer whose units are dropped in training at the rate `dropout`; 0 without dropout."""
        return 0

    @property
    def several(self) -> tuple[int, ...]:
        """The additional axis of images, labels and predictions if an image shows several digits."""
        return (self.overlaid,) if self.overlaid > 1 else ()

    @property
    def pixels(self) -> int:
        """Number of values in an image, H * W * C."""
        height, width, channels = self.image
        return height * width * channels
