"""A suite by name: a shipped one, unless there is a file of that name; and the message for a name that is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.suite import shipped
from harness.suite.suite import load_suite
from tests.conftest import ROOT

MINE = "name: mine\ndata: {name: digits}\ngrid: {impl: [numpy]}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_are_listed_with_their_question_and_how_long_they_take() -> None:
    found = {suite.name: suite for suite in shipped.shipped()}
    assert {suite.path for suite in found.values()} == set((ROOT / "suites").rglob("*.yaml"))
    for suite in found.values():
        assert suite.question == load_suite(suite.path).question
        assert suite.how_long
        assert "\n" not in suite.how_long
        assert "#" not in suite.how_long
    assert found["mnist"].how_long.startswith("on two CPU cores, a day or two. With --quick, ")
    assert [*found][-3:] == ["adambielski", "gram-ai", "hoangpham"]


def test_a_name_is_a_shipped_suite() -> None:
    assert load_suite("quickstart").source == (ROOT / "suites/quickstart.yaml").read_text()
    assert load_suite("gram-ai").name == "gram-ai"


def test_a_file_of_that_name_wins_and_a_folder_does_not(folder: Path) -> None:
    (folder / "speed").mkdir()
    assert load_suite("speed").name == "speed"
    (folder / "quickstart").write_text(MINE)
    assert load_suite("quickstart").name == "mine"
    (folder / "mnist.yaml").write_text(MINE)
    assert load_suite("mnist.yaml").name == "mine"
    assert load_suite("mnist").name == "mnist"


def test_an_unknown_name_is_told_the_nearest(folder: Path) -> None:
    told = (
        r'^mnits: neither a file nor a shipped suite; did you mean "mnist"\? Valid: .*\bsvhn\. `capsbench suites` says'
    )
    with pytest.raises(UserError, match=told):
        load_suite("mnits")
    (folder / "suites").mkdir()
    (folder / "suites/private.yaml").write_text(MINE)
    with pytest.raises(UserError, match=r'did you mean "suites/private\.yaml"\?'):
        load_suite("private")


def test_the_path_of_a_shipped_suite_where_it_is_not() -> None:
    with pytest.raises(UserError, match=r'^suites/mnist\.yaml: no such file.* goes by "mnist" alone$'):
        load_suite("suites/mnist.yaml")
    with pytest.raises(UserError, match=r'^no shipped suite "mnits"; did you mean "mnist"\? Valid: '):
        shipped.named("mnits")


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(UserError, match=r"^x{300}: cannot be read: File name too long$"):
        load_suite("x" * 300)
