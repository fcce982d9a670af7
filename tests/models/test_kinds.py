"""Kinds of model behind one contract: nothing outside a kind's own files asks which kind it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import numpy as np
import pytest
from pydantic import ValidationError

from harness import models
from harness.errors import UserError
from harness.models.base import ModelKind
from harness.models.contract import require_sound
from harness.spec import ModelSpec
from harness.weights import initial_weights, weight_table
from tests.helpers.run_helpers import ROOT

NAMES = ("capsnet", "cnn")
SOURCES = [path for folder in ("harness", "impls") for path in sorted((ROOT / folder).rglob("*.py"))]
SMALL = {
    "capsnet": {"conv_channels": 3, "primary_types": 2, "primary_dim": 4, "digit_dim": 4, "decoder_units": (5, 6)},
    "cnn": {"cnn_channels": (3, 4), "cnn_units": (6, 5), "cnn_kernel": 3},
}


def small(kind: str) -> ModelSpec:
    return ModelSpec(kind=kind, image=(19, 18, 1), classes=4, **SMALL[kind])


def branches(source: str) -> Iterator[int]:
    """The lines that ask for a model's kind: that compare it, match it, or compare anything with a kind's name."""
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node]
        elif isinstance(node, ast.Match):
            parts = [node.subject, *(case.pattern for case in node.cases)]
        for each in (inner for part in parts for inner in ast.walk(part)):
            is_name = isinstance(each, ast.Constant) and each.value in NAMES
            if is_name or (isinstance(each, ast.Attribute) and ast.unparse(each).endswith("model.kind")):
                assert isinstance(node, (ast.Compare, ast.Match))
                yield node.lineno


def test_no_module_asks_which_kind_a_model_is() -> None:
    found = [f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in branches(path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'if trial.model.kind == "cnn": pass',
        'x = 1 if kind != "capsnet" else 2',
        'kind in ("cnn", "other")',
        "self.model.kind in known",
        'match kind:\n    case "cnn": pass',
        "match model.kind:\n    case x: pass",
    ],
)
def test_asking_for_the_kind_would_be_seen(source: str) -> None:
    assert {*branches(source)} == {1}


def test_a_spec_is_of_the_class_of_its_kind() -> None:
    for kind in NAMES:
        model = small(kind)
        assert type(model) is models.load(kind).spec
        assert ModelSpec.model_validate(model.model_dump()) == model
        assert ModelSpec.model_validate_json(model.model_dump_json()) == model
        assert tuple(model.model_dump()) == ("kind", *models.of(model).settings, "image", "classes", "overlaid")
    with pytest.raises(AttributeError, match='a model of kind "cnn" has no "routing"'):
        _ = small("cnn").routing
    with pytest.raises(UserError, match='unknown kind of model "cn"; did you mean "cnn"'):
        ModelSpec(kind="cn", image=(9, 9, 1), classes=2)
    with pytest.raises(ValidationError, match="cnn_chanels"):
        ModelSpec(kind="cnn", image=(9, 9, 1), classes=2, cnn_chanels=(1,))
    with pytest.raises(UserError, match='did you mean "capsnet"'):
        models.load("capsnets")


@pytest.mark.parametrize("kind", NAMES)
def test_the_contract(kind: str) -> None:
    """Layers and weights go by the same names, and what is said of weights is said of some that there are."""
    model, of = small(kind), models.load(kind)
    assert isinstance(of, ModelKind)
    names = [row.name for row in weight_table(model)]
    assert {name.partition(".")[0] for name in names} == {layer.name for layer in of.layers(model)}
    assert sum(of.products(model).values()) == sum(layer.multiplications for layer in of.layers(model))
    for row in weight_table(model):
        if row.name in of.class_axes(model):
            assert row.shape[of.class_axes(model)[row.name]] == model.classes
    assert {*of.class_axes(model), *of.late_biases(model), *of.emphasis(model)} <= {*names}
    assert {*of.outputs} <= {*of.output_shapes(model, 3)}
    assert of.faults()
    require_sound(model, initial_weights(model, 0), np.zeros((3, *model.image), np.uint8), np.array([0, 3, 1]))
