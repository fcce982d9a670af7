"""What all events have in common, and how a line of JSON becomes one."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self, Union, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from harness.errors import Unread, note


class Malformed(ValueError):
    """A line of JSON that is no event: which field is missing, or of which type it should be."""


class UnknownEvent(Exception):
    """An event that only a newer capsbench can read: of a kind, or of a version of its kind, that is not known here."""

    def __init__(self, kind: str, version: object) -> None:
        super().__init__(
            f'an event of kind "{kind}", version {version}, is not known to this capsbench: a newer one wrote it. '
            "It is left out. Install that newer capsbench to read it"
        )


def _decodable(text: Any) -> Any:
    """Text with bytes that are not UTF-8, such as in a file name, escaped: otherwise JSON could not be read."""
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


def _inside(name: str) -> str:
    """The name of a file in the trial's folder. Raises `ValueError` for one that would lead out of it."""
    if "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError("it is no plain name of a file")
    return name


FileName = Annotated[str, AfterValidator(_inside)]
"""A file in the trial's folder."""
Text = Annotated[str, BeforeValidator(_decodable)]
"""A sentence for people."""
Bytes = Annotated[int, Field(strict=False)]
"""A size; a whole number, but an implementation may tell it as a float."""
Seconds = Annotated[float, Field(ge=0, le=1e12)]
"""A time that was taken."""
Rate = Annotated[float, Field(gt=0, le=1e15)]
"""Something per second."""
Count = Annotated[int, Field(ge=0, le=2**53)]
"""How many, or which one."""


class Event(BaseModel):
    """One event.

    Types are strict: a text is no number. Fields that a model does not have are kept and passed on. A field may be added to
    a kind at any time, with a default; where one changes its meaning or goes, the kind gets a new version, and an older
    capsbench leaves the event out rather than misread it.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, defer_build=True)

    kind: Any
    """Which model the event has: a word."""
    version: Literal[1] = 1
    """Of the kind's model; absent: 1."""
    time: float = 0.0
    """When it happened, in seconds since 1970; absent: not told."""

    def to_json(self) -> dict[str, Any]:
        """The event as it is written: its kind, and the fields that were given."""
        # By hand, since every field is already JSON: `model_dump` would copy each value.
        held, given = {**self.__dict__, **(self.model_extra or {})}, self.model_fields_set
        return {"kind": self.kind, **{name: value for name, value in held.items() if name in given}}

    def stamped(self, time: float) -> Self:
        """The event with this time, unless it has one."""
        return self if "time" in self.model_fields_set else self.model_copy(update={"time": time})


class Kinds:
    """The kinds of event that one reader expects."""

    def __init__(self, *models: type[Event]) -> None:
        self.models: dict[str, type[Event]] = {model.model_fields["kind"].default: model for model in models}

    def known(self, line: str | bytes, where: str) -> Event | None:
        """As `read`, but for an event that only a newer capsbench can read, warns (beginning with `where`) and returns None."""
        try:
            return self.read(line)
        except UnknownEvent as unknown:
            note(f"{where}: {unknown}", Unread)
            return None

    def read(self, line: str | bytes) -> Event:
        """The event in a line of JSON.

        Raises `UnknownEvent` for one that only a newer capsbench can read, `Malformed` for any other object that is no
        event, `ValueError` for what is not JSON.
        """
        try:
            return self._adapter.validate_json(line)
        except ValidationError as error:
            raise self._explained(json.loads(line), error) from None

    @cached_property
    def _adapter(self) -> TypeAdapter[Event]:
        # Built when the first line is read: most commands that import this read none.
        union: Any = Annotated[Union[tuple(self.models.values())], Field(discriminator="kind")]  # noqa: UP007
        adapter: Any = TypeAdapter(union)
        return adapter

    def _explained(self, document: object, error: ValidationError) -> Exception:
        fields = cast("dict[str, object]", document) if isinstance(document, dict) else {}
        kind, version = fields.get("kind"), fields.get("version", 1)
        if not isinstance(kind, str):
            return Malformed('it is not a JSON object with a "kind"')
        known = kind in self.models
        if not known or (isinstance(version, int) and version > 1):
            return UnknownEvent(kind, version)
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        if first["type"] == "missing":
            return Malformed(f'a "{kind}" event without "{where}"')
        return Malformed(f'a "{kind}" event whose "{where}" is {first["input"]!r:.60}: {first["msg"]}')
