"""The keys a suite may have: a strict check for each, its expected value in plain words, and what a wrong key meant."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Union, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.fields import FieldInfo

from harness import models, registry
from harness.errors import nearest
from harness.search.config import SearchConfig
from harness.spec.model import ModelConfig, Section
from harness.spec.trial import DataConfig, MeasureConfig, ParityConfig, Resources, RuntimeConfig, TrainConfig
from harness.suite.yaml import Node


class Sections(Section):
    """A suite without its grid: one complete configuration."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="a name of at most 64 letters, digits, '.', '_' and '-' (its folder is called so)",
        ),
    ]
    question: str = ""
    vary: Literal["together", "singly"] = (
        "together"  # the grid's keys: all combinations, or one at a time around the first
    )
    data: DataConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    parity: ParityConfig = ParityConfig()
    measure: MeasureConfig = MeasureConfig()
    resources: Resources = Resources()
    # Implementation -> the Python that it runs in: see `harness.environments`. Where they are decides no result.
    environments: Annotated[
        dict[str, str],
        Field(
            description="a mapping of implementations to Pythons, such as "
            f"{{{registry.FRAMEWORKS[0]}: /path/to/bin/python}}"
        ),
    ] = {}  # noqa: RUF012 (pydantic copies it)


class _Axes(Section):
    impl: str
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0  # a word of NumPy's Philox key


@dataclass(frozen=True)
class Leaf:
    """One key that holds a value rather than a section."""

    adapter: TypeAdapter[Any]

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return self.adapter.json_schema()

    @property
    def is_list(self) -> bool:
        """Whether one value of this key is itself a list, as for model.decoder_units."""
        return any(part.get("type") == "array" for part in self._schema.get("anyOf", [self._schema]))

    @cached_property
    def _takes_booleans(self) -> bool:
        return any(part.get("type") == "boolean" for part in self._schema.get("anyOf", [self._schema]))

    @property
    def choices(self) -> list[str]:
        """The words that it can be, if it is one of a few."""
        parts = self._schema.get("anyOf", [self._schema])
        return [
            each for part in parts for each in (("true", "false") if part.get("type") == "boolean" else _choices(part))
        ]

    @property
    def expected(self) -> str:
        """What the key takes: 'a whole number of at least 1'."""
        return _in_words(self._schema)

    def check(self, node: Node) -> Any:
        """The value of `node` in the key's own type. Raises `ValueError` with what was found and what was expected."""
        try:
            if isinstance(node.value, bool) and not self._takes_booleans:
                raise ValueError  # to Python, true is among the numbers 1 and 3
            return self.adapter.validate_python(node.plain())
        except ValueError:
            if isinstance(node.value, str) and (choices := _choices(self._schema)):
                raise ValueError(f"found {node}{nearest(node.value, choices)}") from None
            quotable = isinstance(node.value, bool | int | float) and self._schema.get("type") == "string"
            hint = f'; in quotes it is text: "{node.text}"' if quotable else ""
            raise ValueError(f"found {node}, expected {self.expected}{hint}") from None


def _leaf(annotation: Any) -> Leaf:
    return Leaf(TypeAdapter(annotation, config=ConfigDict(strict=True)))


def _leaves(section: type[BaseModel], prefix: str = "") -> dict[str, Leaf]:
    found: dict[str, Leaf] = {}
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if name in getattr(section, "RESOLVED", ()):
            continue
        if annotation is ModelConfig:
            found |= _model_leaves(f"{prefix}{name}.")
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= _leaves(annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = _leaf(_exactly(field))
    return found


def _model_leaves(prefix: str) -> dict[str, Leaf]:
    """The kind, and the settings of all kinds, each once. If two kinds share a name, it takes the values of either."""
    exact: dict[str, list[Any]] = {"kind": [Literal[models.names()]]}
    for kind, keys in models.settings().items():
        for key in keys:
            exact.setdefault(key, []).append(_exactly(models.load(kind).spec.model_fields[key]))
    return {prefix + key: _leaf(Union[tuple(each)]) for key, each in exact.items()}  # noqa: UP007


def _exactly(field: FieldInfo) -> Any:
    return Annotated[cast("Any", field.annotation), field]  # the field carries the bounds


@dataclass(frozen=True)
class Keys:
    """The valid keys, given the kinds of model that are installed."""

    section: dict[str, Leaf]
    """Dotted key -> leaf, for all sections, in order of declaration."""

    @cached_property
    def all(self) -> dict[str, Leaf]:
        """The keys of the sections, and those of the grid."""
        return self.section | AXES

    @cached_property
    def grid(self) -> dict[str, Leaf]:
        """The keys that can be varied."""
        return {key: leaf for key, leaf in self.all.items() if key not in FIXED and not key.startswith(f"{SEARCH}.")}

    @cached_property
    def folders(self) -> frozenset[str]:
        """The sections themselves: "data", "data.augment", ..."""
        return frozenset(key[:at] for key in self.section for at, letter in enumerate(key) if letter == ".")


def known() -> Keys:
    """All valid keys, of the sections and of the grid."""
    return _known(models.names())


@cache
def _known(_kinds: tuple[str, ...]) -> Keys:
    return Keys(_leaves(Sections) | _leaves(SearchConfig, f"{SEARCH}."))


SEARCH = "search"
"""The section that no trial has a part of: see `harness.search.config`."""
SPACE = f"{SEARCH}.space"
"""The key that holds a mapping of keys; `search.space.KEY` is one of them."""
BUDGETS = (f"{SEARCH}.trials", f"{SEARCH}.epochs")
"""The keys of which a search has one."""
AXES = _leaves(_Axes)
"""The keys that only the grid has: impl and seed."""
TEXTS = ("name", "question", "data.dir", "data.path", "data.test_path")
"""Keys that hold free text."""
VARIABLES = "runtime.environment"
"""The key that holds a mapping of names that only the user knows; `runtime.environment.NAME` is one of them."""
ENVIRONMENTS = "environments"
"""The key that holds a mapping of implementations; `environments.NAME` is one of them."""
FIXED = (
    "name", "question", "data.dir", "vary", "parity.margin_pct", "runtime.retries", "runtime.hang_s", ENVIRONMENTS,
)  # fmt: skip
"""Keys that change no result and so cannot be varied: trials that differ only in these are the same trial."""


def inside(section: str) -> list[str]:
    """The names directly in `section` ("" is the whole suite)."""
    if not section:
        return [*dict.fromkeys(key.partition(".")[0] for key in known().section), "grid", "quick"]
    keys = (key.removeprefix(f"{section}.") for key in known().section if key.startswith(f"{section}."))
    return list(dict.fromkeys(key.partition(".")[0] for key in keys))


def unknown(key: str, valid: Collection[str], siblings: Collection[str] = ()) -> str:
    """Says that `key` is not in `valid`, and what was meant: the same name elsewhere, or the most similar sibling."""
    section, _, name = key.rpartition(".")
    if key in FIXED:
        return "cannot be varied: it changes no result"
    if key.startswith(f"{SEARCH}.") and key in known().section:
        return "cannot be varied: a suite has one search"
    if key in known().folders:
        return f"a section, not a value; name one of its keys: {', '.join(k for k in valid if k.startswith(f'{key}.'))}"
    if name in AXES:
        return f'unknown key; did you mean "grid.{name}"?'
    if twin := next((other for other in valid if other.rpartition(".")[2] == name), None):
        return f'unknown key; did you mean "{twin}"?'
    siblings = siblings or (inside(section) if section in known().folders else ())
    return "unknown key" + (nearest(name, siblings) if siblings else nearest(key, valid))


def _choices(schema: dict[str, Any]) -> list[str]:
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return [value for value in values if isinstance(value, str)]


def _in_words(schema: dict[str, Any]) -> str:
    if "description" in schema:
        return schema["description"]
    if "anyOf" in schema:
        return " or ".join(_in_words(part) for part in schema["anyOf"])
    if choices := _choices(schema):
        return " or ".join(choices)
    match schema.get("type"):
        case "integer":
            return "a whole number" + _bounds(schema)
        case "number":
            return "a number" + _bounds(schema)
        case "boolean":
            return "true or false"
        case "string":
            return "text"
        case "array":
            if items := schema.get("prefixItems"):
                return f"a list of {len(items)}, each {_in_words(items[0])}"
            sizes = f"{schema['minItems']} to {schema['maxItems']}"
            return f"a list of {sizes}, each {_in_words(schema['items'])}"
        case kind:
            return str(kind)


def _bounds(schema: dict[str, Any]) -> str:
    low, above, high = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    below = schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}" + (f" and below {below}" if below is not None else "")
    if above is not None:
        upper = f" and at most {high}" if high is not None else f" and below {below}" if below is not None else ""
        return f" above {above}{upper}"
    return ""
