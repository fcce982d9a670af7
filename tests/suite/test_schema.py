"""The JSON Schema of suites: it accepts of every key what capsbench accepts, every shipped suite, and no bad one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from harness.data.own import FORMATS
from harness.errors import UserError
from harness.suite import searching
from harness.suite.draft import Draft
from harness.suite.keys import BUDGETS, ENVIRONMENTS, FIXED, VARIABLES, inside, known
from harness.suite.meanings import MEANINGS, SECTIONS, meaning
from harness.suite.schema import defaults, schema
from harness.suite.suite import load_suite
from harness.suite.yaml import Problems, parse_mapping

ROOT = Path(__file__).parents[2]
COPY = ROOT / "suites" / "suite.schema.json"
Accepts = Callable[[Any], bool]


@pytest.fixture(scope="module")
def accepts() -> Accepts:
    """Whether the schema accepts a suite: YAML, or what was read of it."""
    checker = jsonschema.Draft7Validator(schema())
    checker.check_schema(checker.schema)

    def check(suite: Any) -> bool:
        if isinstance(suite, str):
            problems = Problems()
            suite = parse_mapping(suite, Path("x.yaml"), problems).plain()
            problems.raise_any()
        return checker.is_valid(suite)

    return check


def test_the_copy_in_the_repository_is_what_the_command_prints() -> None:
    assert json.loads(COPY.read_text()) == schema(), "capsbench schema > suites/suite.schema.json"


def test_every_key_has_a_meaning_and_a_default_or_is_required() -> None:
    assert {*MEANINGS} == {*known().all}
    assert {*SECTIONS} == {*known().folders, "grid", "quick"}
    assert {*known().all} - {*defaults()} == {"name", "data.name", "impl", "search.space"}
    for key, value in defaults().items():
        if value is not None and key not in (VARIABLES, ENVIRONMENTS):
            checked = known().all[key].adapter.validate_python(value)
            assert (list(checked) if isinstance(checked, tuple) else checked) == value, key
    assert meaning("model.routing").startswith("r of the paper's Procedure 1")


@pytest.mark.parametrize("path", sorted((ROOT / "suites").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_suite_is_valid(path: Path, accepts: Accepts) -> None:
    assert accepts(path.read_text())


@pytest.mark.parametrize("place", ["section", "grid", "quick"])
def test_it_accepts_of_each_key_what_the_code_accepts(place: str, accepts: Accepts) -> None:
    """Each key with each of many values in its section; with some of them in the grid and in `quick`.

    A whole number written as 2.0 is not among them: to JSON it is the same.
    """
    pool = [
        None, True, False, -1, 0, 1, 2, 3, 5, 10, 11, 100, 101, 1024, 1025, 4096, 4097, 10_001, 2**63 - 1, 2**63, 0.05,
        0.5, 0.99, 1.5, -0.5, 1e-9, "", "x", "auto", "node", "on", "test", "validation", "paper", "L6", "L7", "fp32", "int8",
        "capsnet", "cnn", "rnn", "mnist", "folder", "torch", "keras", "a b", ".x", "28x28", "28x28x3", "28x28x4", "0x3",
        "random", "centre", "stretch", "singly", "epoch", [], [1], [1, 2], [512, 1024], [1, 2, 3], [0, 1], ["a", "b"], ["a"],
        [1] * 9, [1] * 10, [[1, 2]], {}, {"A": "b"}, {"torch": "/python"}, {"a": {"b": 1}},
    ]  # fmt: skip
    plain = {"name": "x", "data": {"name": "digits"}, "grid": {"impl": ["numpy"]}}
    assert accepts(plain)
    wrong: list[Any] = []
    counted = {True: 0, False: 0}
    for key in known().grid if place == "grid" else known().all if place == "quick" else known().section:
        for value in pool if place == "section" else pool[::9]:
            if place == "quick" and key in BUDGETS and value is None:
                continue  # right where the other one is given
            suite = json.loads(json.dumps(plain)) | _searching(key, place)
            if place == "section":
                inner = suite
                *path, name = key.split(".")
                for section in path:
                    inner = inner.setdefault(section, {})
                inner[name] = value
            elif place == "grid":
                if key == "data.name":
                    del suite["data"]["name"]
                suite["grid"][key] = value if isinstance(value, list) and key != "impl" else [value]
            else:
                suite["quick"] = {key: value}
            is_good = _code_accepts(suite)
            counted[is_good] += 1
            if accepts(suite) != is_good:
                wrong.append((key, value, "code accepts" if is_good else "schema accepts"))
    assert not wrong
    assert min(counted.values()) > 50


def _searching(key: str, place: str) -> dict[str, Any]:
    """For a key of a search: a suite's search in which it has an effect, and a seed that confirms nothing."""
    if not key.startswith("search."):
        return {}
    method = {"search.together": "optuna", "search.first": "halving", "search.factor": "halving"}.get(key, "random")
    budget = {} if (key, place) == ("search.epochs", "section") else {"trials": 3}
    search = {"space": {"train.lr": [0.1, 0.2]}, "method": method, **budget}
    return {"grid": {"impl": ["numpy"], "seed": [1000]}, "search": search}


def _code_accepts(suite: dict[str, Any]) -> bool:
    """Whether each key and value is accepted on its own; not whether they fit together."""
    problems = Problems()
    root = parse_mapping(json.dumps(suite), Path("x.yaml"), problems)
    draft = Draft.of_file(root, problems)
    quick = draft.with_quick(root)
    draft.check()
    values = quick.check()
    try:
        problems.raise_any()
        searching.check_alone(quick, *values, "x.yaml")
        problems.raise_any()
    except UserError:
        return False
    return draft.place("data.name") is not None


BAD = {
    "an unknown key": "model: {rooting: 3}",
    "an unknown section": "trian: {epochs: 3}",
    "a section that is a value": "train: 3",
    "a grid's value that is no list": "grid: {impl: numpy}",
    "an empty list": "grid: {impl: []}",
    "one value twice": "grid: {impl: [numpy], seed: [1, 1]}",
    "no implementation": "grid: {seed: [1]}",
    "an unknown implementation": "grid: {impl: [tensorflow]}",
    "what cannot be varied": "grid: {impl: [numpy], data.dir: [a, b]}",
    "text for a number": "train: {epochs: many}",
    "a boolean for text": "question: yes",
    "too large a number": "model: {routing: 11}",
    "no name": "name: null",
    "a name with a space": "name: a b",
    "an unknown data set": "data: {name: mnits}",
    "own pictures to test on": "data: {name: digits, test_from: folder}",
    "an unknown key of quick": "quick: {model.rooting: 3}",
    "a section in quick": "quick: {train: {epochs: 1}}",
    "x- in a section": "train: {x-mine: 1}",
}


@pytest.mark.parametrize("named", BAD)
def test_bad_suites_are_refused_by_both(named: str, accepts: Accepts, tmp_path: Path) -> None:
    lines = {"name": "name: x", "data": "data: {name: digits}", "grid": "grid: {impl: [numpy]}"}
    lines[BAD[named].partition(":")[0]] = BAD[named]
    text = "\n".join(lines.values()) + "\n"
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError):
        load_suite(tmp_path / "x.yaml")
    assert not accepts(text)


def test_what_is_allowed_beside_the_keys(accepts: Accepts) -> None:
    text = """
        x-common: &common {epochs: 3}
        name: x
        data:
        train: *common
        runtime: {environment: {OMP_WAIT_POLICY: passive, A: 1, B: true}}
        grid: {impl: [numpy, "mine.py:Net", torch@2.14], data.name: [mnist, digits]}
        quick: {grid.seed: [0], train.epochs: 1, runtime.environment.A: 2, environments.torch: /python}
        """
    assert accepts(text)
    assert accepts(yaml.safe_load(text))
    assert "grid" in inside("")
    assert {*FORMATS} <= {*schema()["definitions"]["data.name"]["enum"]}
    assert not {*FIXED} & {*schema()["properties"]["grid"]["properties"]}
