"""The CapsNet of section 4 as an ONNX graph."""

from __future__ import annotations

import numpy as np
import onnx

from harness.spec import SQUASH_EPSILON, ModelSpec, Weights
from impls.onnx.export.graph import PIXELS, Graph, output


def network(graph: Graph, model: ModelSpec, weights: Weights) -> list[onnx.ValueInfoProto]:
    """Adds the network; returns its outputs: "lengths", "capsules" and, with a decoder, "reconstruction"."""
    conv1 = graph.add("Relu", graph.convolution(PIXELS, "conv1", weights))
    # scaling its input scales the convolution, but not its bias
    grid = graph.convolution(conv1, "primary", weights, scale=model.primary_scale, strides=[2, 2])
    # channel = type * dim + d, capsule = (row * columns + column) * types + type
    rows = graph.add("Transpose", grid, perm=[0, 2, 3, 1])
    u = graph.squash(graph.reshape(rows, -1, model.primary_capsules, model.primary_dim))
    _route(graph, model, weights, _votes(graph, model, weights, u))
    outputs = [output("lengths", model.classes), output("capsules", model.classes, model.digit_dim)]
    square = graph.sum(graph.add("Mul", "capsules", "capsules"), -1)
    graph.add("Sqrt", graph.add("Add", square, graph.constant("epsilon", SQUASH_EPSILON)), name="lengths")
    if model.decoder:
        _decode(graph, model, weights)
        height, width, channels = model.image
        outputs.append(output("reconstruction", *model.several, channels, height, width))
    return outputs


def _votes(graph: Graph, model: ModelSpec, weights: Weights, u: str) -> str:
    """u_hat (I, B, J, e): one matrix product for each primary capsule."""
    inputs, classes, dim, out = weights["digit.w"].shape
    matrices = graph.constant("digit.w", weights["digit.w"].transpose(0, 2, 1, 3).reshape(inputs, dim, classes * out))
    product = graph.add("MatMul", graph.add("Transpose", u, perm=[1, 0, 2]), matrices)
    return graph.reshape(product, inputs, -1, classes, out, name="votes")


def _route(graph: Graph, model: ModelSpec, weights: Weights, votes: str) -> None:
    """Procedure 1: votes (I, B, J, e) to "capsules" (B, J, e). In the first iteration all couplings are 1 / J.

    "None of the above" is one more category, with logit 0 (section 7).
    """
    leak = model.none_of_the_above
    if model.digit_bias:
        graph.constant("digit.b", weights["digit.b"])
    logits = ""
    for iteration in range(1, model.routing + 1):
        if logits:
            shares = _leaking(graph, logits, model) if leak else graph.add("Softmax", logits, axis=2)
            coupling = graph.add("Unsqueeze", shares, graph.integers(3))
            s = graph.sum(graph.add("Mul", coupling, votes), 0)
        else:
            s = graph.add("Mul", graph.sum(votes, 0), graph.constant("uniform", 1 / (model.classes + leak)))
        v = graph.squash(graph.add("Add", s, "digit.b") if model.digit_bias else s)
        if iteration == model.routing:
            graph.add("Identity", v, name="capsules")
        else:
            agreement = graph.sum(graph.add("Mul", votes, v), -1)
            logits = graph.add("Add", logits, agreement) if logits else agreement


def _leaking(graph: Graph, logits: str, model: ModelSpec) -> str:
    """The softmax over the J outputs and one category more, with logit 0, which is then left out."""
    shares = graph.add("Softmax", graph.add("Pad", logits, graph.integers(0, 0, 0, 0, 0, 1)), axis=2)
    return graph.add("Slice", shares, graph.integers(0), graph.integers(model.classes), graph.integers(2))


def _decode(graph: Graph, model: ModelSpec, weights: Weights) -> None:
    """Section 4.1: the K longest capsules, each alone through the decoder, to "reconstruction" (B, *K, C, H, W)."""
    k = graph.integers(model.overlaid)
    longest = "longest"
    graph.nodes.append(
        onnx.helper.make_node("TopK", ["lengths", k], ["longest_lengths", longest], axis=1, name="longest/TopK")
    )
    depth = graph.constant("classes", np.array(model.classes))
    mask = graph.add("OneHot", longest, depth, graph.constant("off_on", np.array([0.0, 1.0])), axis=-1)
    masked = graph.add(
        "Mul",
        graph.add("Unsqueeze", mask, graph.integers(3)),
        graph.add("Unsqueeze", "capsules", graph.integers(1)),
    )
    x = graph.reshape(masked, -1, model.classes * model.digit_dim)
    for layer in ("dec1", "dec2"):
        x = graph.add("Relu", graph.dense(x, layer, weights))
    drawn = graph.add("Sigmoid", graph.dense(x, "dec3", weights))
    height, width, channels = model.image
    if model.several:
        images = graph.reshape(drawn, -1, *model.several, height, width, channels)
        graph.add("Transpose", images, perm=[0, 1, 4, 2, 3], name="reconstruction")
    else:
        images = graph.reshape(drawn, -1, height, width, channels)
        graph.add("Transpose", images, perm=[0, 3, 1, 2], name="reconstruction")
