"""The space of a search: read strictly, each problem with its line and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.search.config import Dimension, Space
from harness.suite.space import read_space, searchable
from harness.suite.yaml import Problems, parse_mapping


def _read(text: str) -> Space:
    problems = Problems()
    space = read_space(parse_mapping(text, Path("s.yaml"), problems), problems)
    problems.raise_any()
    return space


def test_ranges_and_lists() -> None:
    found = _read(
        "train.lr: {log: [1e-4, 1e-2]}\ntrain.batch: [32, 64]\nmodel.routing: {uniform: [1, 3]}\n"
        "train.lr_decay.rate: {uniform: [0.9, 1]}\nmodel.decoder_units: [[8, 16], [16, 32]]"
    )
    assert found == (
        Dimension("train.lr", 1e-4, 1e-2, is_log=True),
        Dimension("train.batch", choices=(32, 64)),
        Dimension("model.routing", 1, 3, is_whole=True),
        Dimension("train.lr_decay.rate", 0.9, 1.0),
        Dimension("model.decoder_units", choices=found[4].choices),
    )
    assert [list(each) for each in found[4].choices] == [[8, 16], [16, 32]]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train.lr: 0.1", r"found 0.1, expected \{log:"),
        ("train.lr: {lgo: [1e-4, 1e-2]}", 'unknown range; did you mean "log"'),
        ("train.lr: {log: [1e-4]}", "expected its two ends"),
        ("train.lr: {log: [1e-2, 1e-4]}", "the first must be less"),
        ("train.lr: {log: [0, 1e-4]}", "found 0, expected a number above 0"),
        ("train.lr: {log: [-1, 1]}", "found -1, expected a number above 0"),
        ("train.lr: {log: [1e-4, 1e-2], uniform: [0, 1]}", "found a mapping"),
        ("train.weight_decay: {log: [0, 1e-4]}", "begins above 0"),
        ("train.batch: [32]", "at least two values"),
        ("train.batch: [32, 32]", "there twice"),
        ("train.batch: [32, big]", r'found "big" \(text\), expected a whole number'),
        ("train.batch: {log: [1.5, 64]}", "found 1.5, expected a whole number"),
        ("model.decoder: {uniform: [0, 1]}", "expected true or false"),
        ("model.decoder: {uniform: [false, true]}", "give a list of values"),
        ("train.lrr: [1, 2]", 'unknown key; did you mean "train.lr"'),
        ("train.epochs: [1, 2]", "what the budget is counted in"),
        ("train.stop.patience: [1, 2]", "how much of the budget"),
        ("model.kind: [capsnet, cnn]", "put it in the grid"),
        ("data.validation: [10, 20]", "cannot be searched; keys of train, model, data.augment can"),
        ("{}", "expected keys with ranges"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        _read(f"\n{line}")
    assert str(raised.value).startswith("s.yaml:2: search.space")


def test_all_problems_at_once() -> None:
    with pytest.raises(UserError) as raised:
        _read("train.lr: 1\ntrain.bacth: [1, 2]")
    assert len(str(raised.value).splitlines()) == 2


def test_whatever_can_be_searched_decides_a_result() -> None:
    assert {"train.lr", "train.batch", "train.lr_decay.rate", "model.routing", "data.augment.shift"} <= {*searchable()}
    assert not {"train.epochs", "train.start_from", "data.name", "runtime.precision"} & {*searchable()}
