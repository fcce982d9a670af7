"""An ONNX graph, written one operation at a time; every value is known by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness.spec import SQUASH_EPSILON, ModelSpec

OPSET, IR = 13, 7
"""All operations are in opset 13, of ONNX 1.8 (2020): ONNX Runtime reads it since version 1.6."""
PIXELS = "pixels"


class Graph:
    """The nodes and constants so far. `pixels`, (batch, C, H, W), is its input."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, value: np.ndarray | Sequence[int] | float) -> str:
        """A constant: floats as float32, whole numbers as int64."""
        array = np.asarray(value)
        self.constants[name] = array.astype(np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32)
        return name

    def add(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """One operation; returns the name of its output."""
        name = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{name}/{op}", **attributes))
        return name

    def reshape(self, value: str, *shape: int, name: str | None = None) -> str:
        return self.add("Reshape", value, self.integers(*shape), name=name)

    def sum(self, value: str, axis: int, keep: bool = False) -> str:
        return self.add("ReduceSum", value, self.integers(axis), keepdims=int(keep))

    def integers(self, *values: int) -> str:
        """A constant vector of whole numbers, such as a shape."""
        return self.constant(f"ints_{'_'.join(map(str, values))}", np.array(values))

    def squash(self, s: str) -> str:
        """Eq. 1 of the paper, over the last axis."""
        square = self.sum(self.add("Mul", s, s), -1, keep=True)
        root = self.add("Sqrt", self.add("Add", square, self.constant("epsilon", SQUASH_EPSILON)))
        factor = self.add("Div", square, self.add("Add", square, self.constant("one", 1.0)))
        return self.add("Mul", s, self.add("Div", factor, root))

    def dense(self, x: str, layer: str, weights: Mapping[str, np.ndarray], name: str | None = None) -> str:
        """x (B, in) times the canonical weights (in, out), plus the bias."""
        parts = (self.constant(f"{layer}.{part}", weights[f"{layer}.{part}"]) for part in ("w", "b"))
        return self.add("Gemm", x, *parts, name=name)

    def convolution(self, x: str, layer: str, weights: Mapping[str, np.ndarray], scale: float = 1.0, **how: Any) -> str:
        """Canonical weights (y, x, in, out), times `scale`, as ONNX has them: (out, in, y, x)."""
        kernel = self.constant(f"{layer}.w", weights[f"{layer}.w"].transpose(3, 2, 0, 1) * np.float32(scale))
        return self.add("Conv", x, kernel, self.constant(f"{layer}.b", weights[f"{layer}.b"]), **how)

    def model(
        self, model: ModelSpec, outputs: Sequence[onnx.ValueInfoProto], facts: Mapping[str, str]
    ) -> onnx.ModelProto:
        """All of it as a checked model, with `facts` in its metadata. Raises `onnx.checker.ValidationError`."""
        height, width, channels = model.image
        pixels = output(PIXELS, channels, height, width)
        constants = [numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in self.constants.items()]
        graph = helper.make_graph(self.nodes, model.kind, [pixels], list(outputs), constants)
        opset = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="capsbench")
        helper.set_model_props(made, dict(facts))
        onnx.checker.check_model(made, full_check=True)
        return made


def output(name: str, *shape: int) -> onnx.ValueInfoProto:
    """A float32 tensor of any number of images, each of this shape."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
