"""A JSON Schema of suites, for editors: made from the keys, so that it accepts of each what `capsbench` accepts.

It says nothing of what depends on other keys, or on files: a batch larger than the data set, a class that is not there.
Draft 7, which editors' YAML servers know best.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

from harness import data, models, registry
from harness.data.own import FORMATS
from harness.search.config import SearchConfig
from harness.suite.keys import ENVIRONMENTS, SEARCH, SPACE, VARIABLES, Keys, Sections, known
from harness.suite.meanings import SECTIONS, meaning
from harness.suite.space import searchable

JsonSchema = dict[str, Any]
_CLASS = r"[:@]"  # in the names of classes and of implementations in environments
_MAPPINGS = (VARIABLES, ENVIRONMENTS)
_SEARCHES: JsonSchema = {
    "type": "object",
    "required": ["space"],
    "oneOf": [  # one budget
        {"required": [name], "properties": {name: {"type": "integer"}}} for name in ("trials", "epochs")
    ],
}


def schema() -> JsonSchema:
    """The schema of a suite's file, with the implementations, data sets and kinds of model that are installed here."""
    keys = known()
    root = _section("", keys)
    root["properties"]["grid"] = _grid(keys)
    root["properties"]["quick"] = _quick(keys)
    root["properties"][SEARCH] |= _SEARCHES
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A suite of capsbench",
        **root,
        "patternProperties": {"^x-": {"description": "Ignored: a place for YAML anchors."}},
        "required": ["name", "grid"],
        "anyOf": [
            {"required": ["data"], "properties": {"data": {"required": ["name"]}}},
            {"properties": {"grid": {"required": ["data.name"]}}},
        ],
        "definitions": {key: _key(key) for key in keys.all},
    }


def defaults() -> dict[str, Any]:
    """Dotted key -> what it is where a suite does not say; without those that a suite must give."""
    found = _defaults(Sections, "") | _defaults(SearchConfig, f"{SEARCH}.")
    del found[SPACE]
    for kind, names in models.settings().items():
        fields = models.load(kind).spec.model_fields
        for name in names:
            if not fields[name].is_required():
                found.setdefault(f"model.{name}", _as_json(fields[name].get_default(call_default_factory=True)))
    return {**found, "seed": 0}


def values(key: str) -> JsonSchema:
    """What one value of `key` may be."""
    if key == "impl":
        return {"anyOf": [{"enum": list(registry.names())}, {"type": "string", "pattern": _CLASS}]}
    if key == "data.name":
        return {"enum": [*data.names(), *FORMATS]}
    if key == "data.test_from":
        return {"enum": [*data.names(), None]}
    if key == VARIABLES:  # numbers and booleans are taken as they are written
        return {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    if key == SPACE:
        ranges = {each: _range(each) for each in searchable()}
        return {"type": "object", "properties": ranges, "additionalProperties": False, "minProperties": 1}
    if key == f"{SEARCH}.confirm.seed":
        return {**_of_adapter(key), "uniqueItems": True}
    if key == ENVIRONMENTS:
        return {"type": "object", "propertyNames": values("impl"), "additionalProperties": {"type": "string"}}
    return _of_adapter(key)


def _of_adapter(key: str) -> JsonSchema:
    found = cast("JsonSchema", _draft_7(known().all[key].adapter.json_schema()))
    return {name: part for name, part in found.items() if name not in ("default", "description", "title")}


def _range(key: str) -> JsonSchema:
    """A list of values of `key`, or a range of its numbers."""
    several = {"type": "array", "items": _one(key), "minItems": 2, "uniqueItems": True}
    parts = values(key)
    if not any(part.get("type") in ("number", "integer") for part in parts.get("anyOf", [parts])):
        return {"description": meaning(key), **several}
    ends = {"type": "array", "items": {"allOf": [{"type": "number"}, _one(key)]}, "minItems": 2, "maxItems": 2}
    forms = {"type": "object", "properties": {"log": ends, "uniform": ends}, "additionalProperties": False}
    one_form = {**forms, "minProperties": 1, "maxProperties": 1}
    return {"description": meaning(key), "anyOf": [several, one_form]}


def _section(prefix: str, keys: Keys) -> JsonSchema:
    """The keys below `prefix` ("train." or ""), and the sections in it."""
    properties: JsonSchema = {}
    for key in keys.section:
        name, _, rest = key.removeprefix(prefix).partition(".")
        if not key.startswith(prefix) or name in properties:
            continue
        inner = f"{prefix}{name}"
        properties[name] = {"description": SECTIONS[inner], **_section(f"{inner}.", keys)} if rest else _one(inner)
    may_be_empty = {"type": ["object", "null"]} if prefix else {"type": "object"}
    return {**may_be_empty, "properties": properties, "additionalProperties": False}


def _key(key: str) -> JsonSchema:
    given = defaults()
    return {"description": meaning(key), **({"default": given[key]} if key in given else {}), **values(key)}


def _one(key: str) -> JsonSchema:
    return {"$ref": f"#/definitions/{key}"}


def _grid(keys: Keys) -> JsonSchema:
    lists = {key: {"description": meaning(key), **_list(key)} for key in keys.grid}
    return {
        "description": SECTIONS["grid"], "type": "object", "properties": lists, "additionalProperties": False,
        "required": ["impl"],
    }  # fmt: skip


def _quick(keys: Keys) -> JsonSchema:
    """Dotted keys, with one value or a list of them; `grid.` before a key means the same."""
    properties: JsonSchema = {}
    for key in keys.all:
        properties[key] = _one(key)
        if key in keys.grid:
            either = {"description": meaning(key), "anyOf": [_one(key), _list(key)]}
            properties |= {key: either, f"grid.{key}": either}
    properties |= {f"{SPACE}.{key}": _range(key) for key in searchable()}
    patterns = {
        rf"^{mapping.replace('.', '[.]')}[.].": values(mapping)["additionalProperties"] for mapping in _MAPPINGS
    }
    return {
        "description": SECTIONS["quick"], "type": ["object", "null"], "properties": properties,
        "patternProperties": patterns, "additionalProperties": False,
    }  # fmt: skip


def _list(key: str) -> JsonSchema:
    return {"type": "array", "items": _one(key), "minItems": 1, "uniqueItems": True}


def _draft_7(part: Any) -> Any:
    """Draft 2020-12, which pydantic writes, with the lists of different items as draft 7 has them."""
    if isinstance(part, list):
        return [_draft_7(each) for each in cast("list[Any]", part)]
    if not isinstance(part, dict):
        return part
    found = {name: _draft_7(each) for name, each in cast("JsonSchema", part).items()}
    if "prefixItems" in found:
        found["items"] = found.pop("prefixItems")
        found["additionalItems"] = False
    return found


def _defaults(section: type[BaseModel], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if name in getattr(section, "RESOLVED", ()):
            continue
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= _defaults(annotation, f"{prefix}{name}.")
        elif not field.is_required():
            found[prefix + name] = _as_json(field.get_default(call_default_factory=True))
    return found


def _as_json(value: Any) -> Any:
    return [_as_json(each) for each in cast("tuple[Any, ...]", value)] if isinstance(value, tuple) else value
