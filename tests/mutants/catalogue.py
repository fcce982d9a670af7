"""Every fault in every framework, with a model on which it makes a difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.parity.faults.capsnet import FAULTS, Fault
from harness.parity.faults.catalogue import MORE_FAULTS
from harness.parity.faults.detail import DETAIL_FAULTS
from harness.parity.faults.evaluation import EVALUATION_FAULTS
from harness.parity.faults.leak import LEAK_FAULTS
from harness.parity.faults.mutate import Edit
from harness.parity.faults.optimiser import OPTIMISER_FAULTS
from harness.parity.faults.overlay import OVERLAY_FAULTS
from harness.parity.faults.plan import PLAN_FAULTS
from harness.spec import ModelSpec
from tests.mutants import EDITS, NOT_WRITTEN, cnn, leak, more_jax, more_tf, more_torch, overlay

FRAMEWORKS = ("torch", "tf", "jax")
VARIANTS: dict[str, tuple[str, ...]] = {
    "paper": (),
    "official": ("model.profile=official",),
    "cnn": ("model.kind=cnn", "model.dropout=0.3"),  # a rate at which what is kept and what is dropped differ
    "none of the above": ("model.none_of_the_above=true",),
    "two digits": (),  # one over the other; the settings say how, since no data set without a download has them
    "weight decay": ("train.weight_decay=0.01", "train.decoder.lr=0.0005", "train.decoder.weight_decay=0.001"),
    "staircase": ("train.lr_decay.kind=staircase",),
    "epochs": ("train.lr_decay.kind=epoch",),
    "constant": ("train.lr_decay.kind=constant",),
}
"""The models that there are faults of, the commonest first, and settings of the optimiser, as overrides of a suite."""

NEEDED = {
    "weight-decay-missing": "weight decay",
    "weight-decay-of-weights-alone": "weight decay",
    "weight-decay-decoupled": "weight decay",
    "decoder-weight-decay-missing": "weight decay",
    "decoder-lr-missing": "weight decay",
    "stair-rounded": "staircase",
    "epochs-from-one": "epochs",
    "constant-decays": "constant",
}
"""At the gate, which climbs with a suite's own settings: those without which a fault changes nothing."""

_FEW_IMAGES, _FEW_STEPS = "there are no 32,768 images", "no epoch has 64 steps, and no evaluation 64 batches"
_LOADED = "weights and moments are loaded after it"
NOT_AT_THE_GATE = {
    "indices-int16": _FEW_IMAGES,
    "indices-uint16": _FEW_IMAGES,
    "steps-beyond-128-left-out": _FEW_STEPS,
    "block-last-step-skipped": _FEW_STEPS,
    "block-state-lost": _FEW_STEPS,
    "evaluation-block-replaced": _FEW_STEPS,
    "correct-overflows": "its epoch has fewer than 256 images",
    "stair-rounded": "its training is over before half a stair",
    "compile-trains": _LOADED,
    "compile-forgets-moments": _LOADED,
}
"""Faults that the gate of `suites/quickstart.yaml` may pass, and why."""

_PADDING, _WEIGHTS, _PARTS = "pads no batch", "its images have no weights", "has neither chunks nor blocks"
_NOT_IN_NUMPY = {
    "correct-on-padding": _PADDING,
    "evaluation-padding-counted": _PADDING,
    "padding-counted": _PADDING,
    "image-63-left-out": _WEIGHTS,
    "images-beyond-32-left-out": _WEIGHTS,
    "chunk-gradient-replaced": _PARTS,
    "chunk-bias-replaced": _PARTS,
    "frequencies-replaced": _PARTS,
    "block-last-step-skipped": _PARTS,
    "block-state-lost": _PARTS,
    "evaluation-block-replaced": _PARTS,
    "spectrum-of-old-weights": "keeps no spectrum",
    "dump-shares-memory": "a step puts new arrays in the place of the weights, and writes to none",
}
MORE: dict[str, dict[str, tuple[Edit, ...]]] = {
    "numpy": {fault.name: fault.edits for fault in MORE_FAULTS if fault.edits},
    "torch": more_torch.EDITS,
    "tf": more_tf.EDITS,
    "jax": more_jax.EDITS,
}
MORE_NOT_WRITTEN: dict[str, dict[str, str]] = {
    "numpy": _NOT_IN_NUMPY,
    "torch": more_torch.NOT_WRITTEN,
    "tf": more_tf.NOT_WRITTEN,
    "jax": more_jax.NOT_WRITTEN,
}
_KINDS: dict[str, tuple[tuple[Fault, ...], dict[str, dict[str, tuple[Edit, ...]]], tuple[str, ...]]] = {
    # kind -> faults, their edits by framework, and the variants that they may be of
    "network": (FAULTS, EDITS, ("paper", "official")),
    "cnn": (cnn.OWN, cnn.EDITS, ("cnn",)),
    "several digits": (OVERLAY_FAULTS, overlay.EDITS, ("two digits",)),
    "leak": (LEAK_FAULTS, leak.EDITS, ("none of the above",)),
    "detail": (DETAIL_FAULTS, MORE, ("paper", "official")),
    "evaluation": (EVALUATION_FAULTS, MORE, ("paper", "official", "two digits")),
    "optimiser": (OPTIMISER_FAULTS, MORE, ("paper",)),
    "plan": (PLAN_FAULTS, MORE, ("paper", "official", "cnn")),
}
KINDS = tuple(_KINDS)


@dataclass(frozen=True)
class Mutant:
    """One fault in one framework; none of them, with no edits, is the implementation as it is."""

    framework: str
    kind: str
    variant: str
    fault: Fault | None = None
    edits: tuple[Edit, ...] = ()

    def variant_in(self, setup: str) -> str:
        needed = NEEDED.get(self.fault.name) if self.fault and setup == "gate" else None
        return needed or self.variant

    def is_run_in(self, setup: str) -> bool:
        return not (setup == "gate" and self.fault and self.fault.name in NOT_AT_THE_GATE)

    @property
    def name(self) -> str:
        """By which `--only` finds it: faults of the CNN may have the name of one of the CapsNet."""
        if self.fault is None:
            return f"none ({self.variant})"
        return f"cnn:{self.fault.name}" if self.kind == "cnn" else self.fault.name


def mutants(models: dict[str, ModelSpec]) -> list[Mutant]:
    """All that are written and that a ladder can find; `models` has the one of each variant."""
    return [mutant for framework in FRAMEWORKS for mutant in _of(framework, models)]


def left_to_the_audit() -> list[str]:
    """Names of the faults that no step of a ladder meets."""
    return [fault.name for faults, _, _ in _KINDS.values() for fault in faults if fault.level == "audit"]


def unmutated() -> list[Mutant]:
    """The implementations as they are: what a runner that fails everything would fail too."""
    return [Mutant(framework, "none", variant) for framework in FRAMEWORKS for variant in VARIANTS]


def _of(framework: str, models: dict[str, ModelSpec]) -> Iterator[Mutant]:
    left_out = NOT_WRITTEN.get(framework, {}).keys() | MORE_NOT_WRITTEN[framework].keys()
    for kind, (faults, edits, variants) in _KINDS.items():
        for fault in faults:
            if fault.name in left_out or fault.level == "audit":
                continue
            variant = next(each for each in variants if fault.applies(models[each]))
            yield Mutant(framework, kind, variant, fault, edits[framework][fault.name])
