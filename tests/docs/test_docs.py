"""The pages say what the commands are: every `capsbench` line in them parses, and what it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

from harness.commands.cli import COMMANDS, parser
from harness.errors import UserError
from harness.suite.keys import known
from harness.suite.shipped import shipped
from tests.docs.blocks import REASONS, ROOT, Block, all_blocks, pages
from tests.docs.run import planned
from tests.helpers import reference

_THEIRS = re.compile(r"(suite|bad|quickstart)\.yaml|\w+\.pt")
"""Suites that readers write or copy, and what `parity` takes in their place."""
_ANCHORED = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCES = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def test_every_line_parses_and_names_suites_that_exist() -> None:
    wrong: list[str] = []
    counted = 0
    names = {each.name for each in shipped()}
    for block in all_blocks():
        for arguments in block.invocations():
            counted += 1
            try:
                parsed = parser(arguments).parse_args(arguments)
            except UserError as error:
                wrong.append(f"{block.place}: {' '.join(arguments)}: {error}")
                continue
            suite = getattr(parsed, "suite", None)
            if suite is None or str(suite) in names or _THEIRS.fullmatch(suite.name) or ":" in str(suite):
                continue
            if not (ROOT / suite).exists():
                wrong.append(f"{block.place}: no suite {suite}")
    assert not wrong
    assert counted > 60


def test_the_tests_of_lines_can_fail() -> None:
    block = Block(
        "x.md", 1, 'A=1 capsbench run "a b" --quick | tee x && capsbench plan y  # capsbench z\ncapsbench \\\n  ui\n'
    )
    assert block.invocations() == [["run", "a b", "--quick"], ["plan", "y"], ["ui"]]
    typed = Block("x.md", 1, "alpha$ capsbench run mnist\nRun begins\n$ capsbench ui\n")
    assert typed.invocations() == [["run", "mnist"], ["ui"]]
    for bad in (["run", "mnist", "--qick"], ["rnu", "mnist"], ["compare", "a"]):
        with pytest.raises(UserError):
            parser(bad).parse_args(bad)


def test_what_is_left_out_says_why() -> None:
    found = [block for block in all_blocks() if block.mark == "skip"]
    assert {block.said for block in found} <= REASONS
    run = [block for block in all_blocks() if block.mark != "skip"]
    assert len(run) >= 20
    left = [path for path in pages() if "<!-- skip" in path.read_text()]
    assert sum(path.read_text().count("<!-- skip") for path in left) == len(found), "a mark stands before no block"


def test_runs_are_planned_without_what_only_a_run_has() -> None:
    assert planned("capsbench run suites/mnist.yaml --executor inline --no-mlflow --tensorboard  # why") == (
        "capsbench plan suites/mnist.yaml --executor inline  # why"
    )
    assert planned("capsbench speed -s model.kind=cnn") == ""
    assert planned("capsbench report runs/quickstart") == "capsbench report runs/quickstart"


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_says_what_the_code_says(name: str) -> None:
    assert (reference.DOCS / name).read_text() == reference.PAGES[name](), f"python -m tests.helpers.reference {name}"


def test_the_reference_has_every_key_and_option() -> None:
    keys = (reference.DOCS / "suite-keys.md").read_text()
    assert all(f"| `{key}` |" in keys for key in known().all)
    commands = (reference.DOCS / "commands.md").read_text()
    assert all(f"## capsbench {name}\n" in commands for name in COMMANDS)
    assert "`--storage URL`" in commands
    assert "### capsbench suites copy" in commands


def test_no_page_is_called_like_one_that_the_site_makes() -> None:
    assert not {"search", "genindex", "modindex", "py-modindex"} & {path.stem for path in pages()}


@pytest.mark.parametrize("path", [*pages(), ROOT / "CONTRIBUTING.md"], ids=lambda path: path.stem)
def test_links_and_anchors_lead_somewhere(path: Path) -> None:
    for target in _ANCHORED.findall(_FENCES.sub("", path.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = (path.parent / name).resolve() if name else path
        assert other.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", _FENCES.sub("", other.read_text()), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, target


def test_pictures_in_the_readme_exist() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    assert all((ROOT / each).is_file() for each in pictures)


def test_the_readme_lists_every_command() -> None:
    listed = set(re.findall(r"`capsbench ([a-z]+)", (ROOT / "README.md").read_text()))
    assert {*COMMANDS} <= listed


def test_snippets_of_suites_are_valid_in_a_suite() -> None:
    """Blocks of YAML that show keys of a suite, with what a suite needs beside them."""
    jsonschema = importlib.import_module("jsonschema")
    checker = jsonschema.Draft7Validator(yaml.safe_load((ROOT / "suites" / "suite.schema.json").read_text()))
    keys = {*checker.schema["properties"]}
    counted = 0
    for path in pages():
        for text in re.findall(r"^```yaml\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
            # alternatives for one key stand in one block, a line each
            lines = text.splitlines(keepends=True)
            several = len({line.partition(":")[0] for line in lines if not line.startswith((" ", "#"))}) < len(
                [line for line in lines if not line.startswith((" ", "#"))]
            )
            for piece in lines if several else [text]:
                found = yaml.safe_load(piece)
                if not isinstance(found, dict) or not {*found} <= keys:
                    continue
                counted += 1
                suite = {"name": "x", "data": {"name": "digits"}, "grid": {"impl": ["torch"]}, **found}
                assert checker.is_valid(suite), (path.name, piece, [e.message for e in checker.iter_errors(suite)])
    assert counted > 10
