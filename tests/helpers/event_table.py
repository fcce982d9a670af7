"""The tables in docs/run-directory.md, made from the models. `python -m tests.helpers.event_table` rewrites them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "run-directory.md"
_MODULES = ("base", "trial", "processes")
_WORDS = {
    "str": "text", "Text": "text", "int": "integer", "Bytes": "integer", "float": "number", "bool": "true or false",
    "Any": "text", "Seconds": "number", "Rate": "number", "Count": "integer", "FileName": "text",
}  # fmt: skip


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Every class of `harness.events`, by name."""
    sources = [(ROOT / "harness" / "events" / f"{name}.py").read_text() for name in _MODULES]
    return {node.name: node for text in sources for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}


def fields(name: str, *, inherited: bool = True) -> Iterator[tuple[str, str, bool, str]]:
    """Name, type in words, whether it may be absent, and meaning of each field of a class but "kind"."""
    node = classes()[name]
    for base in node.bases if inherited else ():
        if isinstance(base, ast.Name) and base.id in classes() and base.id not in ("Event", "TrialEvent"):
            yield from fields(base.id)
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id != "kind":
            meaning = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                meaning = " ".join(str(after.value.value).split())
            yield item.target.id, _type(item, "null:" in meaning), item.value is not None, meaning


def kind_of(node: ast.ClassDef) -> str | None:
    """The kind of event that a class is a model of; None of those that models share."""
    found = [item.value for item in node.body if isinstance(item, ast.AnnAssign) and ast.unparse(item.target) == "kind"]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None  # type: ignore[return-value]


def _type(item: ast.AnnAssign, may_be_null: bool) -> str:
    """In words; a `None` that only stands for absence is left out."""
    parts = re.split(r" \| (?![^\[]*\])", ast.unparse(item.annotation))
    parts = [part for part in parts if part != "None" or may_be_null or item.value is None]
    return " or ".join("null" if part == "None" else _word(part) for part in parts)


def _word(part: str) -> str:
    if part.startswith("Literal"):
        return part[8:-1]
    return "object" if part.startswith("dict") else "list" if part.startswith("list") else _WORDS[part]


def tables() -> str:
    """All of it, as Markdown."""
    trial = [name for name, _ in _models("trial")]
    processes = [name for name, _ in _models("processes")]
    common = [("Event", "Every event"), ("TrialEvent", "Every event of a trial")]
    lines = ["### In every event", "", *_head(), "| `kind` | text | Which of the kinds below it is. |"]
    for name, _ in common:
        lines += [_row(field) for field in fields(name, inherited=False)]
    lines += ["", "`trial` and `attempt` are in the events of trials alone.", "", "### Events of a trial", ""]
    lines += ["\n".join(_section(name)) for name in trial]
    lines += ["### Events between processes", "", "None of these is kept.", ""]
    lines += ["\n".join(_section(name)) for name in processes]
    return "\n".join(lines).rstrip() + "\n"


def _models(module: str) -> list[tuple[str, ast.ClassDef]]:
    text = (ROOT / "harness" / "events" / f"{module}.py").read_text()
    found = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    return [(node.name, node) for node in found if kind_of(node)]


def _head() -> list[str]:
    return ["| field | type | meaning |", "|---|---|---|"]


def _row(field: tuple[str, str, bool, str]) -> str:
    name, type_, optional, meaning = field
    return f"| `{name}` | {type_}{', optional' if optional else ''} | {meaning} |"


def _section(name: str) -> list[str]:
    node = classes()[name]
    said = (ast.get_docstring(node) or "").split("\n\n")
    rows = [_row(field) for field in fields(name)]
    where = {"SpeedReadyEvent": " (of a cell)", "GaugeReadyEvent": " (of a gauge)"}.get(name, "")
    head = [f"#### `{kind_of(node)}`{where}", "", *(f"{' '.join(each.split())}\n" for each in said)]
    return [*head, *([*_head(), *rows, ""] if rows else [])]


def page() -> str:
    """docs/run-directory.md as it should be."""
    before, begin, rest = PAGE.read_text().partition("<!-- events -->\n")
    _, end, after = rest.partition("<!-- end of events -->\n")
    assert begin
    assert end
    return f"{before}{begin}{tables()}{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(page())
