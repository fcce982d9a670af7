"""docs/json.md says what `--json` prints. Whatever other tests print is compared with it, too (tests/conftest.py)."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.commands.cli import COMMANDS, main
from harness.journal.results import Result
from tests.docs.blocks import ROOT
from tests.docs.json_page import Field, documents, tables, unlike

_RUN = str(ROOT / "results" / "mnist-1-epoch")
_CHEAP = {
    "plan": ["plan", "quickstart", "impl=numpy", "resources.cpus=1", "--out", "runs"],
    "report": ["report", _RUN, "--out", "report", "--format", "md"],
    "several": ["report", _RUN, _RUN, "--out", "report", "--format", "md"],
    "compare": ["compare", _RUN, _RUN],
    "table": ["table", _RUN],
    "summary": ["summary", "quickstart", "impl=numpy"],
    "suites": ["suites"],
    "copy": ["suites", "copy", "mnist"],
    "data": ["data", "list"],
    "completion": ["completion", "bash"],
    "refused": ["plan", "no-such-suite"],
}


def test_every_command_with_json_is_on_the_page() -> None:
    assert {*documents()} == {*COMMANDS} - {"ui"}  # it prints an address and serves


def test_every_field_has_a_meaning_and_a_known_type() -> None:
    plain = r"(text|integer|number|boolean|null|any|list|object|\[[^\]]+\]\(#([\w-]+)\))"
    counted = 0

    def check(table: Field, path: str) -> None:
        nonlocal counted
        for name, each in table.inner.items():
            counted += 1
            where = f"{path}.{name}"
            assert re.fullmatch(r"[A-Z`p].*\.", each.meaning), f"{where}: no sentence: {each.meaning!r}"
            for told in each.types:
                found = re.fullmatch(rf"(?:(?:list|object) of )?{plain}", told)
                assert found, f"{where}: {told}"
                assert found[2] is None or found[2] in tables(), f"{where}: {told}"
            check(each, where)

    for anchor, table in tables().items():
        check(table, anchor)
    assert counted > 400


def test_no_field_is_left_from_an_earlier_version() -> None:
    """Every name on the page is a name or a text somewhere in the code."""
    names = {*re.findall(r"\w+", "\n".join(path.read_text() for path in (ROOT / "harness").rglob("*.py")))}

    def gone(table: Field, path: str) -> list[str]:
        own = [f"{path}.{name}" for name in table.inner if name.removesuffix("_ci") not in names]
        return own + [each for name, inner in table.inner.items() for each in gone(inner, f"{path}.{name}")]

    assert not [each for anchor, table in tables().items() for each in gone(table, anchor)]


def test_a_result_has_all_its_fields_on_the_page() -> None:
    assert [*tables()["result"].inner] == [each.name for each in dataclasses.fields(Result)]


@pytest.mark.parametrize("name", _CHEAP)
def test_what_is_printed_is_on_the_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = _CHEAP[name]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    document: Any = json.loads(capsys.readouterr().out)
    assert ended.value.code == (2 if name == "refused" else 0)
    assert unlike(arguments[0], document) == []


def test_what_is_not_on_the_page_is_found() -> None:
    sound: dict[str, Any] = {
        "crate": "x",
        "ok": True,
        "missing": [],
        "checks": [{"what": "a", "state": "false", "detail": "b"}],
    }
    assert unlike("verify", sound) == []
    assert unlike("verify", {**sound, "more": 1}) == ["more: not on the page"]
    assert unlike("verify", {**sound, "ok": 1}) == ["ok: int, not boolean"]
    assert unlike("verify", {**sound, "missing": [None]}) == ["missing[]: NoneType, not text"]
    assert unlike("verify", {**sound, "checks": [{"what": "a", "state": "false"}]}) == ["checks[].detail: absent"]
    assert unlike("verify", {"error": "it was wrong"}) == []
    assert unlike("ui", {}) == ["ui: docs/json.md does not have it"]
