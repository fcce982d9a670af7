"""Faults in counts and predictions, and in the state that an evaluation leaves behind.

`PREDICTED` has those of the predictions: an expression over the result `{0}`, the same in every implementation.
"""

from __future__ import annotations

from harness.parity.faults.fault import Fault, any_model, has_capsules
from harness.parity.faults.mutate import Edit, in_impl, in_layers
from harness.spec import ModelSpec


def one_digit(model: ModelSpec) -> bool:
    return model.overlaid == 1


def several_digits(model: ModelSpec) -> bool:
    return model.overlaid > 1


PREDICTED = {
    "labels-as-predictions": ("an evaluation that returns the labels it was given", "labels + 0"),
    "predictions-a-batch-late": (
        "predictions of the batch before",
        "np.concatenate([{0}[: self.batch], {0}[: -self.batch]])[: len(labels)]",
    ),
    "predictions-beyond-image-32-missing": (
        "a batch's first 32 images alone that are classified",
        "np.where(np.arange(len(labels)) % self.batch < 32, {0}, 0)",
    ),
    "last-class-never-predicted": ("a last class that is never predicted", "np.minimum({0}, self.model.classes - 2)"),
    "classes-from-one": ("predicted classes that are counted from one", "{0} + 1"),
    "last-batch-predictions-reversed": (
        "an incomplete last batch whose predictions are in reverse",
        "np.concatenate([{0}[: len(labels) // self.batch * self.batch], "
        "{0}[len(labels) // self.batch * self.batch :][::-1]])",
    ),
    "predictions-sorted-by-label": ("predictions in the order of the labels", "{0}[np.argsort(labels, kind='stable')]"),
}

RETURNED = "(to_numpy(total) / len(labels)).tolist()), found)"
_SUMS = "total += self._sums(acts, classes, classes if by_label else predicted[-1])"
_RIGHT = "self.xp.sum(self.xp.astype(F.is_right(self._predicted(acts), labels), self.xp.int64))"
_EVALUATION = "total = self._no_losses()"
_WINNERS = "return array_namespace(scores).argsort(scores, axis=1, descending=True, stable=True)[:, :count]"


def _at_the_end(statement: str) -> tuple[Edit, ...]:
    """Runs `statement` once an evaluation has its losses."""
    return (in_impl("found = to_numpy(", f"{statement}\n        found = to_numpy("),)


EVALUATION_FAULTS = (
    *(
        Fault(
            name,
            says,
            "L6",
            (in_impl(RETURNED, RETURNED.replace("found)", f"{new.format('found')})")),),
            any_model if "where" not in new and "argsort" not in new else one_digit,
        )
        for name, (says, new) in PREDICTED.items()
    ),
    Fault(
        "last-of-equals-wins",
        "of equally long capsules the last that is taken for the longest",
        "L6",
        (
            in_layers(
                _WINNERS,
                "backwards = array_namespace(scores).flip(scores, axis=1)\n    "
                + _WINNERS.replace("return ", "return scores.shape[1] - 1 - ").replace(
                    "argsort(scores", "argsort(backwards"
                ),
            ),
        ),
        has_capsules,
    ),
    Fault(
        "shortest-wins",
        "the shortest capsule taken for the longest",
        "L3",
        (in_layers(_WINNERS, _WINNERS.replace("descending=True", "descending=False")),),
        has_capsules,
    ),
    Fault(
        "one-of-several-is-enough",
        "an image that counts as right where one of its digits was found",
        "L6",
        (in_layers("return xp.all(xp.any(", "return xp.any(xp.any("),),
        several_digits,
    ),
    Fault(
        "correct-overflows",
        "a number of right images that is kept in uint8",
        "L6",
        (in_impl(".tolist()), int(correct))", ".tolist()), int(correct) % 256)"),),
    ),
    Fault(
        "correct-of-batch-means",
        "an accuracy that is averaged over batches of unequal size",
        "L6",
        (
            in_impl(_RIGHT, f"{_RIGHT} / len(chosen)"),
            in_impl("self.xp.zeros((), dtype=self.xp.int64)", "self.xp.zeros((), dtype=self.xp.float64)"),
            in_impl("int(correct))", "round(float(correct) * count / -(-count // plan.batch)))"),
        ),
    ),
    Fault(
        "correct-of-last-batch",
        "a number of right images of the last batch alone",
        "L6",
        (in_impl(f"correct += {_RIGHT}", f"correct = {_RIGHT}"),),
    ),
    Fault("correct-on-padding", "padding that counts where it is classified rightly", "L6", ()),
    Fault(
        "count-with-padding",
        "an incomplete last batch that is counted as a full one",
        "L6",
        (in_impl("return TrainTotals(count,", "return TrainTotals(-(-count // plan.batch) * plan.batch,"),),
    ),
    Fault("evaluation-padding-counted", "an evaluation whose padding counts", "L6", ()),
    Fault(
        "evaluation-drops-last-batch",
        "an evaluation whose losses leave out an incomplete last batch",
        "L6",
        (in_impl(_SUMS, f"if len(classes) == self.batch:\n                {_SUMS}"),),
    ),
    Fault(
        "evaluation-of-batch-means",
        "evaluation losses that are averaged over batches of unequal size",
        "L6",
        (
            in_impl(
                _SUMS,
                _SUMS.replace("+= ", "+= len(labels) / -(-len(labels) // self.batch) / len(classes) * "),
            ),
        ),
    ),
    Fault(
        "evaluations-add-up",
        "evaluation losses to which those of the evaluations before are added",
        "L6",
        (in_impl(_EVALUATION, 'total = self.__dict__.setdefault("sums", self._no_losses())'),),
    ),
    Fault(
        "evaluation-trains",
        "an evaluation that makes a step of the optimiser",
        "L6",
        _at_the_end("self._step(self.loss_and_grads(images[: self.batch], labels[: self.batch])[1])"),
    ),
    Fault(
        "evaluation-counts-as-step",
        "an evaluation that counts as a step of the optimiser",
        "L6",
        _at_the_end("self.moments = Moments(self.moments.step + 1, self.moments.first, self.moments.second)"),
    ),
    Fault(
        "evaluation-forgets-moments",
        "an evaluation that leaves Adam without its moments",
        "L6",
        _at_the_end("self.load(self.weights)"),
    ),
    Fault("spectrum-of-old-weights", "an evaluation with the spectrum of earlier weights", "L6", (), has_capsules),
    Fault(
        "evaluation-in-bfloat16",
        "an evaluation of pixels in bfloat16",
        "L6",
        (
            in_impl(
                "acts = self._forward(images[start : start + self.batch])",
                "acts = self._forward(255 * F.rounded(images[start : start + self.batch] / 255.0, 8))",
            ),
        ),
    ),
)
