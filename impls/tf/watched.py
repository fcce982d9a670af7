"""Watches every operation that TensorFlow executes eagerly: its result can be recorded, kept or replaced."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import execute

from harness.spec.network import Step

LARGEST = 1 << 26  # elements of a step that is still recorded
_READS = ("ReadVariableOp", "VarHandleOp", "Shape", "StridedSlice")


class _Watch:
    def __init__(self, record: bool, keep: set[int], replace: Mapping[int, Any]) -> None:
        self.record, self.keep, self.replace = record, keep, replace
        self.count, self.is_inside = 0, False
        self.kept: dict[int, Any] = {}
        self.steps: list[Step] = []

    def seen(self, op: str, result: Any) -> Any:
        if self.is_inside or op in _READS or not isinstance(result, tf.Tensor):
            return result
        index = self.count
        self.count += 1
        if (other := self.replace.get(index)) is not None:
            self.is_inside = True
            result = tf.reshape(other, result.shape)
            self.is_inside = False
        if index in self.keep:
            self.kept[index] = result
        if self.record and int(np.prod(result.shape)) <= LARGEST:
            self.steps.append(Step(index, op, np.array(result)))
        return result


@contextmanager
def watched(record: bool, keep: set[int], replace: Mapping[int, Any]) -> Generator[_Watch]:
    """Sends every eager operation through a `_Watch`, on TensorFlow's fast path as well as its slow one."""
    watch = _Watch(record, keep, replace)
    fast, slow = pywrap_tfe.TFE_Py_FastPathExecute, execute.execute

    def quick(context: Any, op: str, *rest: Any) -> Any:
        result = fast(context, op, *rest)
        return watch.seen(op, result) if not isinstance(result, (list, tuple)) else cast(Any, result)

    def thorough(op: Any, *rest: Any, **more: Any) -> Any:
        name = op.decode() if isinstance(op, bytes) else op
        results = slow(op, *rest, **more)
        return [watch.seen(name, each) for each in cast("list[Any]", results)] if isinstance(results, list) else results

    pywrap_tfe.TFE_Py_FastPathExecute, execute.execute = quick, thorough
    try:
        yield watch
    finally:
        pywrap_tfe.TFE_Py_FastPathExecute, execute.execute = fast, slow
