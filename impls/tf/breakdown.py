"""Where a training step's time goes: its parts, each callable by itself, and a trace of whole steps."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from harness.spec import EpochPlan
from impls.tf.layers import routed
from impls.tf.models import cnn
from impls.tf.models.capsnet import CapsNet, losses
from impls.tf.models.cnn import Cnn
from impls.tf.optim import Adam
from impls.tf.overlay import overlay

if TYPE_CHECKING:
    from impls.tf.impl import TfImpl

Tensor = tf.Tensor


def parts(impl: TfImpl) -> dict[str, Callable[[], None]]:
    """The parts of a training step of `impl.batch` images, on its weights and images; see `harness.spec.Profiled`."""
    net = impl.net
    compiled: Callable[..., Any] = tf.function(autograph=False) if impl.compiled else lambda function: function
    shape = (impl.batch, impl.model.overlaid)
    order = tf.reshape(tf.range(math.prod(shape)) % len(impl.images), shape)
    shifts = tf.zeros((*shape, 2), tf.int8)
    layers = _cnn_layers if net.model.kind == "cnn" else _capsnet_layers
    with tf.device(impl.device):
        between = layers(net, *impl.batch_of(order, shifts))
        # from NumPy: XLA would update what shares its memory with the weights
        copies = [keras.Variable(variable.numpy()) for variable in net.trainable_variables]
        adam = Adam(impl.optim, impl.dtype, impl.adam.names)
        adam.build(copies)
        grads = [copy.value for copy in copies]

    def update(grads: list[Tensor]) -> None:
        adam.apply(grads, copies)

    if impl.compiled:
        update = tf.function(update, jit_compile=True, autograph=False)  # as `impl.update` is

    steps = {
        "data": (compiled(lambda: overlay(impl.batch_of(order, shifts)[0])), ()),
        **{name: (compiled(function), inputs) for name, (function, inputs) in between.items()},
        "optimiser": (update, (grads,)),
    }

    def blocking(function: Callable[..., Any], inputs: Sequence[Any]) -> Callable[[], None]:
        def run() -> None:
            with tf.device(impl.device):
                function(*inputs)
                tf.test.experimental.sync_devices()

        return run

    return {name: blocking(*step) for name, step in steps.items()}


Layers = dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]
"""Name of a part -> what does it once, forward and backward, and what that is called with."""


def _capsnet_layers(net: CapsNet, digits: Tensor, labels: Tensor) -> Layers:
    pixels = overlay(digits)
    u = net.primary_capsules(pixels)
    u_hat = net.votes(u)
    bias = [] if net.digit_bias is None else [net.digit_bias]
    v, _ = routed(u_hat, net.model.routing, *map(tf.convert_to_tensor, bias))
    convolutions = [net.conv1.kernel, net.conv1.bias, net.primary.kernel, net.primary.bias]
    decoder = [weight for name, weight in net.canonical().items() if name.startswith("dec")]

    def routing(u_hat: Tensor) -> Tensor:
        return routed(u_hat, net.model.routing, *map(tf.convert_to_tensor, bias))[0]

    def decoding(v: Tensor) -> Tensor:
        return losses(net, v, digits, labels, labels)[0]

    found: Layers = {
        "conv": (lambda: _there_and_back(lambda: net.primary_capsules(pixels), (), convolutions), ()),
        "votes": (lambda u: _there_and_back(net.votes, (u,), [net.digit]), (u,)),
        "routing": (lambda u_hat: _there_and_back(routing, (u_hat,), bias), (u_hat,)),
        "decoder": (lambda v: _there_and_back(decoding, (v,), decoder), (v,)),
    }
    if not net.model.decoder:
        del found["decoder"]
    return found


def _cnn_layers(net: Cnn, digits: Tensor, labels: Tensor) -> Layers:
    pixels = overlay(digits)
    features = net.features(pixels)
    kept = [tf.ones((len(pixels), net.model.dropped_units), tf.uint8)] if net.model.dropped_units else []
    convolutions = [weight for name, weight in net.canonical().items() if name.startswith("conv")]
    dense = [weight for name, weight in net.canonical().items() if name.startswith("fc")]

    def loss(features: Tensor) -> Tensor:
        return cnn.losses(net, net.logits(features, *kept), digits, labels, labels)[0]

    return {
        "conv": (lambda: _there_and_back(lambda: net.features(pixels), (), convolutions), ()),
        "dense": (lambda features: _there_and_back(loss, (features,), dense), (features,)),
    }


def _there_and_back(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], weights: Sequence[keras.Variable]
) -> tuple[Tensor, list[Tensor]]:
    """The function's output, and the gradients of its sum: without either in use, TensorFlow would leave out its work."""
    sources = [*inputs, *(weight.value for weight in weights)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = function(*inputs)
    return output, tape.gradient(output, sources)


def trace(impl: TfImpl, plan: EpochPlan, path: Path) -> None:
    """Runs `train(plan)` under TensorFlow's profiler and writes a gzipped Chrome trace."""
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        try:
            impl.train(plan)
        finally:
            tf.profiler.experimental.stop()
        [written] = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(written.read_bytes())
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump({"displayTimeUnit": "ms", "traceEvents": list(_chrome_events(space))}, file)


def _chrome_events(space: xplane_pb2.XSpace) -> Iterator[dict[str, Any]]:
    """A plane (a device, or the host) is a process, and its lines are threads; times become microseconds."""
    for process, plane in enumerate(space.planes, start=1):
        yield _name("process_name", plane.name, process)
        for thread, line in enumerate(plane.lines, start=1):
            yield _name("thread_name", line.display_name or line.name, process, thread)
            for event in line.events:
                metadata = plane.event_metadata[event.metadata_id]
                yield {
                    "ph": "X",
                    "name": metadata.display_name or metadata.name,
                    "pid": process,
                    "tid": thread,
                    "ts": line.timestamp_ns / 1e3 + event.offset_ps / 1e6,
                    "dur": event.duration_ps / 1e6,
                }


def _name(kind: str, name: str, process: int, thread: int = 0) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}
