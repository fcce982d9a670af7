"""The baseline CNN as an ONNX graph, as in evaluation: no unit is dropped."""

from __future__ import annotations

import onnx

from harness.spec import ModelSpec, Weights
from impls.onnx.export.graph import PIXELS, Graph, output


def network(graph: Graph, model: ModelSpec, weights: Weights) -> list[onnx.ValueInfoProto]:
    """Adds the network; returns its outputs, "probabilities" and "logits"."""
    x = PIXELS
    for layer, kernel in zip(model.cnn_convolutions, model.cnn_kernels, strict=True):
        before, after = (kernel - 1) // 2, kernel // 2  # SAME; an even kernel has the larger part after
        x = graph.add("Relu", graph.convolution(x, layer, weights, pads=[before, before, after, after]))
        if model.cnn_pool > 1:
            window = [model.cnn_pool, model.cnn_pool]
            x = graph.add("MaxPool", x, kernel_shape=window, strides=window)
    x = graph.reshape(graph.add("Transpose", x, perm=[0, 2, 3, 1]), -1, model.cnn_widths[0])
    *hidden, last = model.cnn_dense
    for layer in hidden:
        x = graph.add("Relu", graph.dense(x, layer, weights))
    graph.dense(x, last, weights, name="logits")
    if model.overlaid == 1:
        graph.add("Softmax", "logits", axis=1, name="probabilities")
    else:  # each class has an independent probability
        graph.add("Sigmoid", "logits", name="probabilities")
    return [output("probabilities", model.classes), output("logits", model.classes)]
