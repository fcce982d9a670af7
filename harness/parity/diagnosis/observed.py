"""An implementation's results at weights chosen so that one choice shows at a time, and a variant's distance from them.

If the output capsules have almost no length, routing has nothing to decide, and only what comes before it shows. At
half their length, every term of the margin loss is active. If the primary capsules have almost no length, epsilons
show.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from harness.parity.diagnosis import variant_net as net
from harness.parity.diagnosis.variant import Variant, specified
from harness.parity.ladder import Ladder
from harness.parity.measure import PRIMARY_SCALES
from harness.parity.tolerances import bound
from harness.spec import Impl, Loss, Outputs, Weights

SMALL = 1e-2  # of primary capsules: their squares are close to the larger epsilons
FAINT = 1e-5  # the size of s_j at which routing has nothing to decide
FITS = 30.0  # tolerances within which a variant matches: faults may amplify rounding
AS_GOOD = 10.0  # variants up to this many times the closest one's distance are indistinguishable from it
ROUNDING = 1e-2  # distances, in tolerances, too small to rank
TRAINED = ("probe", "middle", "faint")  # where losses and gradients are compared


class Observed:
    """An implementation's outputs, losses and gradients at each of `weights`; missing ones are None."""

    def __init__(self, ladder: Ladder) -> None:
        """Changes the implementation's weights. Where it raises, an output, a loss or a gradient is missing."""
        self.at, self.model, self.precision = ladder.at, ladder.at.model, ladder.precision
        self.images, self.labels = self.at.shown, self.at.classes
        self.base = specified(ladder.conventions)
        self._grids: dict[tuple[Any, ...], np.ndarray] = {}
        self.weights = self._probes()
        self.outputs = {name: self._forward(ladder.impl, name) for name in self.weights}
        found = {name: self._trained(ladder.impl, name) for name in (*TRAINED, "zero")}
        self.losses = {name: each[0] for name, each in found.items() if each}
        self.grads = {name: each[1] for name, each in found.items() if each}
        self._exact = ladder.specified

    def _probes(self) -> dict[str, Weights]:
        probe = {name: np.asarray(w, np.float64) for name, w in self.at.probe.items()}
        with np.errstate(all="ignore"):
            u_hat: Any = net.votes_of(
                net.squashed_primary(self.base, self.model, self._grid(self.base, "probe", probe)), probe["digit.w"]
            )
            size = math.sqrt(float((u_hat.mean(axis=2) ** 2).mean()))
            half = min(2.0 ** (-k / 2) for k in range(20) if self._longest(2.0 ** (-k / 2) * u_hat) > 0.5 or not k)
        probes = {"probe": probe}
        for name, factor in (("middle", half), ("faint", FAINT / size)):
            probes[name] = {**probe, "digit.w": (factor * probe["digit.w"]).astype(np.float32).astype(np.float64)}
        if self.model.digit_bias:
            probes["faint"]["digit.b"] = 0 * probe["digit.b"]
        for name, factor in {"small": SMALL, **PRIMARY_SCALES}.items():
            scale = np.float32(factor)
            probes[name] = {
                key: (scale * w.astype(np.float32)).astype(np.float64) if key.startswith("primary") else w
                for key, w in probe.items()
            }
        return probes

    def _longest(self, u_hat: np.ndarray) -> float:
        """The median over the images of the largest capsule length."""
        v = net.route(self.base, self.model, u_hat, None).v
        return float(np.median(np.sqrt((v * v).sum(-1)).max(axis=1)))

    def _forward(self, impl: Impl, name: str) -> Outputs | None:
        try:
            impl.load({key: w.astype(np.float32) for key, w in self.weights[name].items()})
            return impl.forward(self.images)
        except (Exception, SystemExit) as error:
            print(f"diagnosis: no outputs at {name}: {error!r}", file=sys.stderr)
            return None

    def _trained(self, impl: Impl, name: str) -> tuple[Loss, Weights] | None:
        try:
            impl.load({key: w.astype(np.float32) for key, w in self.weights[name].items()})
            return impl.loss_and_grads(self.images, self.labels)
        except (Exception, SystemExit) as error:
            print(f"diagnosis: no gradients at {name}: {error!r}", file=sys.stderr)
            return None

    def output(self, name: str, field: str) -> np.ndarray | None:
        value = getattr(self.outputs.get(name), field, None)
        return None if value is None else np.asarray(value, np.float64)

    def grid(self, variant: Variant, name: str) -> np.ndarray:
        """The grid before the primary capsules; cached, since most variants share it."""
        if name in PRIMARY_SCALES or name == "small":
            return self._grid(variant, name, self.weights[name])
        return self._grid(variant, "probe", self.weights["probe"])

    def _grid(self, variant: Variant, name: str, weights: Weights) -> np.ndarray:
        key = (name, variant.pixels, variant.windows, variant.conv1_relu, variant.primary_scale)
        if key not in self._grids:
            pixels = net.pixels_of(variant, self.images)
            self._grids[key] = net.grid_of(variant, self.model, weights, pixels)
        return self._grids[key]

    def capsules(self, variant: Variant, name: str) -> net.Capsules:
        return net.capsules_of(variant, self.model, self.weights[name], self.grid(variant, name))

    def tolerance(self, kind: str, name: str, field: str) -> float:
        """The ladder's tolerance; in float32 it depends on what rounding does to the specification."""
        if self.precision == "fp64":
            return bound(kind, self.precision)
        return bound(kind, self.precision, self._rounding.get((name, field), 0.0))

    @cached_property
    def _rounding(self) -> dict[tuple[str, str], float]:
        """The distance between the float64 and float32 specifications, by probe and quantity."""
        exact, *twins = self._exact
        errors: dict[tuple[str, str], float] = {}
        for twin in twins[:1]:
            for name, weights in self.weights.items():
                both = list[Any]()
                for each in (exact, twin):
                    each.load(weights)
                    outputs = vars(each.forward(self.images))
                    loss, grads = each.loss_and_grads(self.images, self.labels) if name in TRAINED else (None, {})
                    terms = vars(loss) if loss else {}
                    both.append({**outputs, **{f"loss.{term}": value for term, value in terms.items()}, **grads})
                for field, value in both[0].items():
                    error = 0.0 if value is None else relative(both[1][field], value)
                    errors[name, field] = error if math.isfinite(error) else 0.0
        return errors

    def distance(self, found: object, expected: object, kind: str, name: str, field: str, floor: float = 0.0) -> float:
        """The distance in tolerances, relative to the largest value or to `floor`: less may be mere rounding."""
        return relative(found, expected, floor) / self.tolerance(kind, name, field)

    def gradients_finite_at_zero(self) -> bool:
        return all(np.isfinite(np.asarray(grad)).all() for grad in self.grads.get("zero", {}).values())

    def known(self, field: str, among: Iterable[str]) -> list[str]:
        """The probes at which the implementation gave this output and finite capsules."""
        return [
            name
            for name in among
            if self.output(name, field) is not None
            and (digit := self.output(name, "digit")) is not None
            and np.isfinite(digit).all()
        ]


def relative(found: object, expected: object, floor: float = 0.0) -> float:
    """The largest distance, relative to the largest value, or to `floor` if that is larger.

    Values that are not finite agree if both are not.
    """
    if found is None or expected is None:
        return 0.0 if found is expected else math.inf
    a, b = np.atleast_1d(np.asarray(found, np.float64)), np.atleast_1d(np.asarray(expected, np.float64))
    finite = np.isfinite(b)
    if a.shape != b.shape or (np.isfinite(a) != finite).any():
        return math.inf
    error, largest = (float(np.abs(x[finite]).max(initial=0)) for x in (a - b, b))
    return error / (max(largest, floor) or 1.0)


def as_good(ranked: Sequence[tuple[float, Variant]]) -> list[Variant]:
    """The variants that fit as well as the closest, the closest first."""
    fitting = sorted(
        ((distance, index, variant) for index, (distance, variant) in enumerate(ranked) if distance <= FITS),
        key=lambda each: each[:2],
    )
    return [variant for distance, _, variant in fitting if distance <= AS_GOOD * fitting[0][0] + ROUNDING]
