"""Where a training step's time goes: its parts, each callable separately, and a trace of whole steps."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow import Tensor
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from impls.tf.optim import adam
from impls.tf.overlay import overlay
from impls.tf.steps import Steps


def parts(steps: Steps, batch: int) -> dict[str, Callable[[], None]]:
    """The parts of a training step of `batch` images, on the current weights and images.

    See `harness.spec.Profiled`.
    """
    shape = (batch, steps.model.overlaid)
    order = tf.reshape(tf.range(math.prod(shape)) % len(steps.images), shape)
    shifts = tf.zeros((*shape, 2), tf.int8)

    def both(
        function: Callable[..., Tensor], inputs: Sequence[Tensor], weights: Sequence[keras.Variable]
    ) -> Callable[[], object]:
        run = steps.compiled(lambda *inputs: _there_and_back(function, inputs, weights))
        return lambda: run(*inputs)

    with tf.device(steps.device):
        layers = steps.kind.parts(steps.net, *steps.batch_of(order, shifts), both)
        # from NumPy: XLA would update arrays that share memory with the weights
        copies = [keras.Variable(variable.numpy()) for variable in steps.net.trainable_variables]
        optimiser = adam(steps.optim, steps.dtype, steps.adam.names)
        optimiser.build(copies)
        grads = [copy.value for copy in copies]

    def update(grads: list[Tensor]) -> None:
        optimiser.apply(grads, copies)

    update = steps.compiled(update, jit_compile=True)  # as `Steps.update` is
    found: dict[str, Callable[[], object]] = {
        "data": steps.compiled(lambda: overlay(steps.batch_of(order, shifts)[0])),
        **layers,
        "optimiser": lambda: update(grads),
    }

    def blocking(part: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with tf.device(steps.device):
                part()
                tf.test.experimental.sync_devices()

        return run

    return {name: blocking(part) for name, part in found.items()}


def _there_and_back(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], weights: Sequence[keras.Variable]
) -> tuple[Tensor, list[Tensor]]:
    """The function's output, and the gradients of its sum: if either were unused, TensorFlow would skip its computation."""
    sources = [*inputs, *(weight.value for weight in weights)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = function(*inputs)
    return output, tape.gradient(output, sources)


def trace(train: Callable[[], object], path: Path) -> None:
    """Runs `train` under TensorFlow's profiler; writes `path`, a gzipped Chrome trace."""
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        try:
            train()
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
