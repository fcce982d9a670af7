"""Two models, or two sets of weights of one model, side by side: layers, outputs, loss and gradients."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import registry
from harness.errors import UserError
from harness.own_file import is_file_name
from harness.parity.check import compare
from harness.parity.ordinary.examined import Examined
from harness.parity.ordinary.found import relative
from harness.parity.ordinary.framework import imports
from harness.parity.ordinary.layers import Row, Values, report, seen
from harness.parity.ordinary.notes import notes
from harness.parity.ordinary.own_loss import OwnLoss
from harness.parity.ordinary.source import Source, is_model_name
from harness.parity.ordinary.weights import read
from harness.parity.probe import probe_weights
from harness.parity.tolerances import bound
from harness.spec import ModelSpec, OptimSpec, Runtime, Weights

_IMAGES, _SEED = 3, 0
_SIZES = ("image", "classes", "conv_channels", "primary_types", "primary_dim", "digit_dim", "kernel", "routing")
_NEUTRAL_FILES = (".safetensors", ".npz")


def is_weights(name: str) -> bool:
    """Whether the name ends like a file of weights, a framework's own or a common format."""
    return name.endswith(
        (*_NEUTRAL_FILES, *(end for each in registry.ordinary().values() for end in each.weight_files))
    )


class Side:
    """One side: an examined model, or an implementation, of which only the outputs are visible."""

    def __init__(self, name: str, source: Source | None) -> None:
        self.name = name
        self.examined = Examined(source, "fp64", 1) if source else None
        self.loss = OwnLoss(self.examined) if self.examined else None
        self.make: Any = None if source else registry.load(registry.resolve(name), adapter=True)
        self.impl: Any = None

    def spec(self) -> ModelSpec | None:
        return self.examined.spec() if self.examined else None

    def load(self, model: ModelSpec, weights: Weights) -> None:
        if self.examined:
            self.examined.network.assign(self.examined.match.spread(weights))
        else:
            self.impl = self.make(model, OptimSpec(), Runtime(precision="fp64", compile=False))
            self.impl.load(weights)

    def values(self, model: ModelSpec, images: np.ndarray) -> Values:
        if self.examined:
            return seen(self.examined, images)
        outputs = self.impl.forward(images)
        found: Values = {}
        if outputs.coupling is not None:
            found[f"coupling {model.routing}"] = outputs.coupling
        found[f"capsules {model.routing}"], found["lengths"] = outputs.digit, outputs.lengths
        return found | ({} if outputs.reconstruction is None else {"decoder": outputs.reconstruction})

    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[str, float, Weights]:
        """Whose loss it is, the total, and the gradients."""
        if self.examined is None or self.loss is None:
            loss, grads = self.impl.loss_and_grads(images, labels)
            return "specified", loss.total, grads
        terms, whose = self.loss.terms(self.examined.pixels(images), labels)
        values, grads = self.examined.network.differentiate(terms)
        return whose, values[0], self.examined.match.gather(grads)


def compared(names: list[str], source: str | None, model: dict[str, Any]) -> dict[str, Any]:
    """Compares A and B. `source` is `--model` if both are files of weights; `model` is the architecture of implementations.

    Raises `UserError` if they cannot be compared.
    """
    given = Source(**json.loads(source)) if source else None
    if any(map(is_weights, names)):
        return _of_weights(names, given)
    base = given or Source("", cwd=str(Path.cwd()))
    a, b = (Side(name, None if _is_implementation(name) else replace(base, target=name)) for name in names)
    specs = [spec for side in (a, b) if (spec := side.spec())]
    spec = specs[0] if specs else ModelSpec.model_validate(model, strict=False)
    for other in specs[1:]:
        differ = [key for key in _SIZES if getattr(other, key) != getattr(spec, key)]
        if differ:
            told = ", ".join(f"{key} {getattr(spec, key)} and {getattr(other, key)}" for key in differ)
            raise UserError(f"A and B are of different architectures: {told}; give arguments that make them alike")
    if any(not each.decoder for each in specs):
        spec = spec.model_copy(update={"decoder": False})
    weights = probe_weights(spec, _SEED)
    every = probe_weights(spec.model_copy(update={"decoder": True}), _SEED) if not spec.decoder else weights
    for side in (a, b):
        side.load(spec, weights if side.examined is None or not side.examined.match.reading.dense else every)
    images = np.random.default_rng(_SEED).integers(0, 256, (_IMAGES, *spec.image)).astype(np.uint8)
    rows = _rows(a, b, spec, images)
    labels = np.arange(_IMAGES) % spec.classes
    return _document(names, spec, rows, _gradients(a, b, images, labels), _told(a, b))


def _is_implementation(name: str) -> bool:
    """Whether it is a registered name, or a class with the methods of an adapter."""
    if not is_model_name(name):
        registry.resolve(name)  # raises for an unknown name
        return True
    where, _, attribute = name.rpartition(":")
    if is_file_name(name):
        return _is_adapter(Path(where).expanduser(), attribute)
    entry = registry.resolve(name)
    module: Any = __import__(entry.module, fromlist=["_"])
    found = getattr(module, attribute, None)
    return all(callable(getattr(found, method, None)) for method in registry.ADAPTER)


def _is_adapter(file: Path, attribute: str) -> bool:
    """Whether the file's class is an implementation, told without running it: it may need packages that are stood in for."""
    if not imports(file) & {sign for each in registry.ordinary().values() for sign in each.signs}:
        return file.is_file()
    classes = [node for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.ClassDef)]
    methods = [
        {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
        for node in classes
        if node.name == attribute
    ]
    return any(found.issuperset(registry.ADAPTER) for found in methods)


def _rows(a: Side, b: Side, model: ModelSpec, images: np.ndarray) -> list[Row]:
    if b.examined:
        return list(report(b.examined, a.values(model, images), images))
    if a.examined:
        return list(report(a.examined, b.values(model, images), images))
    ours, theirs = a.values(model, images), b.values(model, images)
    return [
        Row(layer, relative(theirs[layer], value) if layer in theirs else None, None) for layer, value in ours.items()
    ]


def _gradients(a: Side, b: Side, images: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """The loss and the gradient of every weight, the second beside the first."""
    (_, loss_a, grads_a), (_, loss_b, grads_b) = (side.loss_and_grads(images, labels) for side in (a, b))
    found = [_compared("loss", loss_b, loss_a, "loss")]
    return found + [
        _compared(f"gradient of {name}", grads_b[name], grads_a[name], "grad") for name in grads_a if name in grads_b
    ]


def _compared(name: str, found: object, expected: object, kind: str) -> dict[str, Any]:
    check = compare("", name, found, expected, bound(kind, "fp64"))
    return {"name": name, "rel_err": check.rel_err, "ok": check.ok, "note": check.note}


def _of_weights(names: list[str], source: Source | None) -> dict[str, Any]:
    """Compares two files of weights of one model."""
    if source is None or not all(map(is_weights, names)):
        raise UserError(
            "files of weights are compared in the model that they are of: --model FILE.py:NAME, and two files"
        )
    side = Side(source.target, source)
    examined = side.examined
    assert examined is not None
    model = examined.spec()
    images = np.random.default_rng(_SEED).integers(0, 256, (_IMAGES, *model.image)).astype(np.uint8)
    labels = np.arange(_IMAGES) % model.classes
    parts: list[tuple[Weights, Values, tuple[str, float, Weights]]] = []
    for name in names:
        examined.network.assign(read(Path(source.cwd) / name, examined))
        own = examined.match.gather(examined.network.values())
        parts.append((own, seen(examined, images), side.loss_and_grads(images, labels)))
    (weights_a, values_a, first), (weights_b, _, second) = parts
    rows = list(report(examined, values_a, images))  # it holds the second's weights
    listed = [_compared(f"weight {name}", weights_b[name], weights_a[name], "exact") for name in weights_a]
    listed.append(_compared("loss", second[1], first[1], "loss"))
    listed += [_compared(f"gradient of {name}", second[2].get(name), grad, "grad") for name, grad in first[2].items()]
    return _document(names, model, rows, listed, _told(side))


def _told(*sides: Side) -> list[str]:
    return [
        f"{side.name}: {line}"
        for side in sides
        if side.examined and side.loss
        for line in notes(side.examined, side.loss)
    ]


def _document(
    names: list[str], model: ModelSpec, rows: list[Row], others: list[dict[str, Any]], notes: list[str]
) -> dict[str, Any]:
    return {
        "a": names[0],
        "b": names[1],
        "model": model.model_dump(mode="json"),
        "notes": notes,
        "values": others,
        "layers": [asdict(row) | {"ok": row.ok, "at_fault": row.is_at_fault} for row in rows],
    }
