"""A Keras model for `harness.parity.ordinary`: its parameters, and its forward pass operation by operation."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, SQUASH_EPSILON
from harness.spec.network import Parameter, Ran
from impls.tf.watched import watched

_FRESH = ("zeros", "ones", "eye", "one_hot", "fill", "cast", "constant")
"""TensorFlow functions that make float32, whatever precision Keras uses."""


def start(precision: str, threads: int) -> Any:
    """Sets the precision before the model's file is imported; returns a context in which to construct the model."""
    with contextlib.suppress(RuntimeError):  # TensorFlow keeps what it started with
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float64" if precision == "fp64" else "float32")
    tf.config.run_functions_eagerly(True)
    _as_before()
    if precision == "fp64":
        _in_double()
    return contextlib.nullcontext()


def _as_before() -> None:
    """Makes calls work that only Keras 2 and TensorFlow 1 accept, for networks written for them: once per process."""
    dense, softmax = keras.layers.Dense.__init__, tf.nn.softmax
    if getattr(softmax, "takes_dim", False):
        return

    def with_units(self: Any, units: Any, *args: Any, **kwargs: Any) -> None:
        dense(self, int(units), *args, **kwargs)  # NumPy's integers too

    def over(logits: Any, axis: int | None = None, name: str | None = None, dim: int | None = None) -> Any:
        return softmax(logits, axis if dim is None else dim, name)

    over.takes_dim = True  # type: ignore[attr-defined]
    keras.layers.Dense.__init__, tf.nn.softmax = with_units, over
    older = tf.keras.backend  # has the functions that Keras's own no longer has
    for name in dir(older):
        if not hasattr(keras.backend, name):
            setattr(keras.backend, name, getattr(older, name))


def _in_double() -> None:
    """Makes float64 what the user's file would make float32 by default or by a cast: once per process.

    Keras and TensorFlow call the same functions themselves; for them, an explicit float32 stays float32.
    """
    if getattr(tf.cast, "is_double", False):
        return

    def wider(function: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            is_single = isinstance(result, tf.Tensor) and result.dtype == tf.float32 and _is_called_by_user()
            return single_cast(result, tf.float64) if is_single else result

        made.is_double = True  # type: ignore[attr-defined]
        return made

    single_cast = tf.cast
    for name in _FRESH:
        setattr(tf, name, wider(getattr(tf, name)))


def _is_called_by_user() -> bool:
    """Whether user code is the caller, ignoring AutoGraph in between."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("tensorflow.python.autograph"):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "").partition(".")[0] not in ("keras", "tensorflow", "tf_keras")


def names() -> dict[str, Any]:
    """Names that scripts often import only under `if __name__ == "__main__"`."""
    return {"keras": keras, "tf": tf}


EXPECTED = "a Keras model"


def chosen(made: object) -> object:
    """Of a factory's several models, the one for evaluation and, if there is one that takes labels, the one for training."""
    if not isinstance(made, (tuple, list)):
        return made
    several = cast("Sequence[object]", made)
    models = [each for each in several if isinstance(each, keras.Model)]
    plain = [each for each in models if len(getattr(each, "inputs", None) or ()) == 1]
    with_labels = [each for each in models if len(getattr(each, "inputs", None) or ()) == 2]
    if plain and with_labels:
        return Pair(plain[0], with_labels[0])
    return models[0] if models else several


class Pair:
    """A model for evaluation (images) and one for training (images and labels), which share their layers."""

    def __init__(self, evaluation: keras.Model, training: keras.Model) -> None:
        self.evaluation, self.training = evaluation, training


def is_network(found: object) -> bool:
    """Whether a class is a model, unlike a loss."""
    return isinstance(found, type) and issubclass(found, keras.Model)


def is_model(found: object) -> bool:
    return isinstance(found, (keras.Model, Pair))


class KerasNetwork:
    """See `harness.spec.network.Network`."""

    takes_lists = True

    def __init__(self, model: Any, precision: str) -> None:
        self.pair = model if isinstance(model, Pair) else None
        self.model = model.training if isinstance(model, Pair) else model
        self.dtype = tf.float64 if precision == "fp64" else tf.float32
        self.channels_first = any(
            getattr(layer, "data_format", "") == "channels_first" for layer in self.modules().values()
        )

    def modules(self) -> dict[str, Any]:
        return {layer.path if hasattr(layer, "path") else layer.name: layer for layer in _layers(self.model)}

    def takes(self) -> tuple[int, int]:
        if self.pair is not None:
            return 1, 2
        if self._is_functional:
            count = len(self.model.inputs)
            return count, count
        places = [
            each
            for each in inspect.signature(self.model.call).parameters.values()
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) and each.name not in ("training", "mask")
        ]
        return max(1, sum(each.default is each.empty for each in places)), len(places)

    @property
    def _is_functional(self) -> bool:
        return bool(getattr(self.model, "inputs", None)) and hasattr(self.model, "operations")

    def parameters(self) -> list[Parameter]:
        found: list[Parameter] = []
        kinds = {id(v): each for layer in _layers(self.model) for v, each in _of_layer(layer)}
        for variable in self.model.trainable_weights:
            kind, order, of = kinds.get(id(variable), ("", (), ""))
            found.append(Parameter(variable.path, tuple(variable.shape), kind, order, of))
        return found

    def values(self) -> dict[str, np.ndarray]:
        return {variable.path: np.array(variable) for variable in self.model.trainable_weights}

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        for variable in self.model.trainable_weights:
            if variable.path in arrays:
                variable.assign(arrays[variable.path])

    def read_weights(self, path: Path) -> dict[str, np.ndarray]:
        """Reads a Keras file. Raises whatever `load_weights` raises."""
        if path.suffix not in (".h5", ".keras"):
            raise ValueError("expected .weights.h5, .keras, .safetensors or .npz for a Keras model")
        self.model.load_weights(path)
        return self.values()

    def tensor(self, array: np.ndarray) -> Any:
        made = np.ascontiguousarray(array)
        return tf.convert_to_tensor(made, self.dtype if made.dtype.kind == "f" else tf.int64)

    def numpy(self, tensor: Any) -> np.ndarray:
        return np.array(tensor)

    def run(
        self,
        arguments: Sequence[np.ndarray],
        *,
        as_list: bool = False,
        training: bool = False,
        record: bool = False,
        keep: Sequence[int] = (),
        replace: Mapping[int, np.ndarray] | None = None,
        then: Callable[[list[tuple[str, Any]]], Any] | None = None,
    ) -> Ran:
        inputs = [self.tensor(array) for array in arguments]
        model = self.model
        if self.pair is not None:
            model, as_list = (self.pair.training, True) if len(inputs) > 1 else (self.pair.evaluation, False)
        replaced = {index: self.tensor(array) for index, array in (replace or {}).items()}
        with watched(record, set(keep), replaced) as watch:
            options = {"training": training} if self._knows_training(model) else {}
            returned = model(inputs, **options) if as_list else model(*inputs, **options)
            outputs = list(_flat(returned))
            if then:
                outputs += list(_flat(then(outputs), "decoder"))
        return Ran(outputs, watch.kept, watch.steps)

    def _knows_training(self, model: Any) -> bool:
        return self._is_functional or "training" in inspect.signature(model.call).parameters

    def masked(self, digit: Any, present: Any, flat: bool) -> Any:
        made = digit * tf.reshape(present, [*present.shape, *([1] * (len(digit.shape) - 2))])
        return tf.reshape(made, [made.shape[0], -1]) if flat else made

    def arranged(self, tensor: Any, shape: Sequence[int], order: Sequence[int]) -> Any:
        return tf.transpose(tf.reshape(tensor, list(shape)), list(order))

    def apply(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    def differentiate(self, loss: Callable[[], Sequence[Any]]) -> tuple[list[float], dict[str, np.ndarray]]:
        variables = list(self.model.trainable_weights)
        with tf.GradientTape() as tape:
            values = loss()
        grads = tape.gradient(values[0], [variable.value for variable in variables])
        found = {v.path: np.array(grad) for v, grad in zip(variables, grads, strict=True) if grad is not None}
        return [float(value) for value in values], found

    @property
    def is_compiled(self) -> bool:
        return getattr(self.model, "_compile_loss", None) is not None

    def compiled_loss(self, outputs: Sequence[Any], targets: Sequence[Any]) -> Any:
        many = len(outputs) > 1
        return self.model.compute_loss(
            x=None, y=list(targets) if many else targets[0], y_pred=list(outputs) if many else outputs[0]
        )

    def specified_loss(
        self, digit: Any, lengths: Any | None, reconstruction: Any | None, images: Any, present: Any
    ) -> list[Any]:
        own = tf.sqrt(tf.reduce_sum(digit * digit, -1) + SQUASH_EPSILON)
        length = own if lengths is None else tf.reshape(lengths, own.shape)
        missed, imagined = tf.nn.relu(MARGIN_PLUS - length) ** 2, tf.nn.relu(length - MARGIN_MINUS) ** 2
        margin = tf.reduce_mean(tf.reduce_sum(present * missed + MARGIN_LAMBDA * (1 - present) * imagined, 1))
        squares = tf.zeros((), self.dtype)
        if reconstruction is not None:
            batch = images.shape[0]
            difference = tf.reshape(reconstruction, [batch, -1]) - tf.reshape(images, [batch, -1])
            squares = tf.reduce_mean(tf.reduce_sum(difference**2, 1))
        return [margin + RECONSTRUCTION_WEIGHT * squares, margin, squares]


def _layers(model: Any) -> Iterator[Any]:
    """The model and all its layers, at any depth."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        layer = waiting.pop(0)
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        waiting += list(getattr(layer, "_layers", []) or getattr(layer, "layers", []))


def _of_layer(layer: Any) -> Iterator[tuple[Any, tuple[str, tuple[int, ...], str]]]:
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)) and layer.built:
        is_dense = isinstance(layer, keras.layers.Dense)
        kernel = layer.kernel
        yield kernel, ("dense", (0, 1), "") if is_dense else ("conv", (0, 1, 2, 3), "")
        if layer.use_bias:
            yield layer.bias, ("bias", (), kernel.path)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors in a model's result: tuples, lists and dictionaries, at any depth."""
    if isinstance(value, tf.Tensor):
        yield name or "0", value
    elif isinstance(value, Mapping):
        for key, part in cast("Mapping[Any, Any]", value).items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        several = cast("Sequence[Any]", value)
        for key, part in zip(getattr(several, "_fields", itertools.count()), several, strict=False):
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif hasattr(value, "__dataclass_fields__"):
        yield from _flat(vars(value), name)


network = KerasNetwork
