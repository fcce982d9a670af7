"""What happens inside a trained CapsNet, computed by the specification: no framework is needed."""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
from jaxtyping import Float, Int, UInt8

from harness import registry
from harness.spec import Impl, OptimSpec, Runtime, Weights
from harness.spec.model import ModelSpec

CHUNK = 8  # images at a time: little memory compared with a training step

RoutingStep = tuple[Float[np.ndarray, "B I J"], Float[np.ndarray, "B J D"], Float[np.ndarray, "B I J"]]
"""One iteration of Procedure 1: coupling c, output capsules v, agreement u_hat . v (what the logits b change by)."""


class Inspectable(Impl, Protocol):
    """The specification's methods beyond `harness.spec.Impl`."""

    def routing_steps(self, images: UInt8[np.ndarray, "B *K H W C"]) -> list[RoutingStep]: ...

    def decode(
        self, digit: Float[np.ndarray, "B J D"], classes: Int[np.ndarray, " B"]
    ) -> Float[np.ndarray, "B H W C"]: ...


def specification(model: ModelSpec, weights: Weights, precision: str = "fp32") -> Inspectable:
    """The specification of a CapsNet with these canonical weights, on the CPU, its operands rounded as `precision` says."""
    numpy_net: Any = registry.specification()
    net = numpy_net(model, OptimSpec(), Runtime.model_validate({"precision": precision}))
    net.load(weights)
    return cast(Inspectable, net)


def routing_logit_change(
    model: ModelSpec, weights: Weights, images: UInt8[np.ndarray, "N *K H W C"], precision: str = "fp32"
) -> list[float]:
    """How much each routing iteration changes the logits: r values, without unit.

    Value k is the mean of |b_ij^(k+1) - b_ij^(k)| = |u_hat_j|i . v_j^(k)| over the N images, the primary capsules i and the
    output capsules j, where v^(k) are the output capsules of iteration k and b^(1) = 0 (Procedure 1, line 7). The last is
    what a further iteration would start from; nothing of the network's output depends on it. As routing converges these
    changes tend to a limit, |u_hat . v|, and not to zero; the paper's Fig. A.1 shows a quantity of the same name that falls,
    on a scale that the paper does not define.
    """
    net = specification(model, weights, precision)
    totals = np.zeros(model.routing)
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        steps = net.routing_steps(chunk)
        totals += [len(chunk) * float(np.abs(agreement).mean(dtype=np.float64)) for _, _, agreement in steps]
    return (totals / len(images)).tolist()
