"""Where a training step's time goes: steps cut short after each of their parts, and a trace of whole steps."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow import Tensor
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from harness.spec import Cut, EpochPlan
from impls.architecture import stages_of
from impls.tf.overlay import overlay
from impls.tf.steps import Steps

_Train = Callable[[EpochPlan], object]


def truncated(steps: Steps, train: _Train) -> list[Cut]:
    """See `harness.spec.Truncated`. Every step runs in `train` itself, in the place of the whole one.

    It returns all that it computes, since TensorFlow leaves out whatever has no use.
    """
    nothing = tf.zeros(len(steps.model.loss_terms) + 1, steps.dtype)

    def within(step: Callable[..., object]) -> _Train:
        """`train` with another step."""
        compiled = steps.compiled(step)

        def ended(*inputs: Tensor) -> Tensor:
            compiled(*inputs)
            return nothing

        def run(plan: EpochPlan) -> None:
            whole = vars(steps)["_train_step"]
            vars(steps)["_train_step"] = ended
            try:
                train(plan)
            finally:
                vars(steps)["_train_step"] = whole
            tf.test.experimental.sync_devices()

        return run

    def data(order: Tensor, shifts: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        digits, labels = steps.batch_of(order, shifts)
        return overlay(digits), labels

    def cut(part: str, stage: Callable[..., Tensor]) -> Cut:
        def forward(order: Tensor, shifts: Tensor, weight: Tensor, *kept: Tensor) -> Tensor:
            images, labels = data(order, shifts)
            return stage(steps.net, images, labels, *kept)

        def both(*inputs: Tensor) -> dict[str, Tensor]:
            with tf.GradientTape() as tape:
                found = forward(*inputs)
            named = zip(steps.adam.names, steps.net.trainable_variables, strict=True)
            grads = tape.gradient(found, {name: variable.value for name, variable in named}, found)
            return {name: grad for name, grad in grads.items() if grad is not None}

        return Cut(part, within(both), within(forward))

    return [
        Cut("other", within(lambda *rest: ())),
        Cut("data", within(data)),
        *(cut(part, stage) for part, stage in stages_of(steps.kind, steps.model).items()),
        Cut("loss", within(steps.training_gradients), within(steps.training_losses)),
        Cut("optimiser", train),
    ]


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
