"""One trial in its own process: build, compile, pass the gate, train, evaluate. Everything it finds out is an event."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import data, registry
from harness.checkpoint import load_checkpoint, save_checkpoint, save_weights
from harness.config import Trial
from harness.data import Dataset
from harness.environment import gpus, memory_bytes
from harness.errors import TrialFailed, UserError, starved
from harness.parity import Ladder, Report, image_count
from harness.plans import plan_digest, plan_epoch
from harness.spec import EvalTotals, Impl, Loss
from harness.stability import Observation, doubts
from harness.timing import Phases, Sample, Stopwatch, peak_rss_bytes, reset_peak_rss
from harness.verdict import Verdict, out_of_memory
from harness.weights import digest, initial_weights, parameter_count

Emit = Callable[[dict[str, Any]], None]


class Diverged(Exception):
    """The training loss is no longer a number."""


def run_trial(trial: Trial, emit: Emit, scratch: Path, checkpoint: Path | None = None, resumed_epoch: int = 0) -> None:
    """Runs `trial` to its end and emits its events; `emit` returns once an "epoch" event is safe.

    Files go to `scratch`. With a `checkpoint`, goes on after epoch `resumed_epoch`, exactly as if never interrupted.
    Raises what the implementation raises, `UserError` for what the user can mend, `Diverged` if the loss becomes NaN,
    `TrialFailed` if memory ran out.
    """
    built: list[Impl] = []
    try:
        _run_trial(trial, emit, scratch, checkpoint, resumed_epoch, built)
    except Exception as error:
        if isinstance(error, UserError) or not starved(error):
            raise
        verdict = _out_of_memory(trial, error, built)
        raise TrialFailed(verdict.cause, type(error).__name__, verdict.hint) from error


def _out_of_memory(trial: Trial, error: Exception, built: list[Impl]) -> Verdict:
    """The verdict, with the peak of the device where the trial computed."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
    if not trial.gpus:
        return out_of_memory(trial, said, peak_rss_bytes(), memory_bytes())
    peak: int | None = None
    with suppress(Exception):  # the device may answer nothing any more
        peak = built[0].peak_bytes()
    own = gpus([each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each])
    return out_of_memory(trial, said, peak, own[0].memory_bytes if own else None)


def _run_trial(
    trial: Trial, emit: Emit, scratch: Path, checkpoint: Path | None, resumed_epoch: int, built: list[Impl]
) -> None:
    """As `run_trial`; leaves the implementation in `built` for whoever asks about its memory."""
    phases = Phases()
    with phases("import_s"):
        implementation = registry.load(registry.resolve(trial.impl))
    with phases("data_s"):
        dataset = data.load(trial.data)
    with phases("build_s"):
        impl: Impl = implementation(trial.model, trial.train.optim, trial.runtime_spec())
        built.append(impl)
        weights = initial_weights(trial.model, trial.seed)
        impl.load(weights)
        impl.stage(dataset.train.images, dataset.train.labels)
    weights_sha256 = digest(impl.dump())
    with phases("compile_s"):
        impl.compile(trial.train.batch)
    with phases("parity_s"):
        if trial.parity.gate:
            emit(_parity_event(*_gate(trial, impl, dataset)))
    if checkpoint:
        impl.load(*load_checkpoint(checkpoint))
    else:
        impl.load(weights)
    emit(
        {
            "kind": "ready",
            **phases.seconds,
            "parameters": parameter_count(trial.model),
            "weights_sha256": weights_sha256,
            "data_sha256": dataset.sha256,
            "device": trial.runtime_spec().device,
        }
    )
    reset_peak_rss()
    clock = Stopwatch()
    observed: list[Observation] = []
    for epoch in range(resumed_epoch + 1, trial.train.epochs + 1):
        sample, event = _train_epoch(trial, impl, dataset, epoch, scratch, clock)
        observed.append(sample.observation)
        emit(event)
    with phases("test_s"):
        test = impl.evaluate(dataset.test.images, dataset.test.labels)
    save_weights(scratch / "weights.safetensors", impl.dump())
    for doubt in doubts(observed[1:] or observed):  # the first epoch is warm-up
        emit({"kind": "warning", "message": doubt})
    emit(
        {
            "kind": "result",
            "test_err_pct": _error_pct(test, dataset.test.labels),
            **{f"test_{name}": value for name, value in _losses(trial, test.loss).items()},
            "test_s": phases.seconds["test_s"],
            "test_images": len(dataset.test.labels),
            "peak_bytes": impl.peak_bytes() or peak_rss_bytes(),
            "weights": "weights.safetensors",
        }
    )


def _gate(trial: Trial, impl: Impl, dataset: Dataset) -> tuple[Report, int]:
    """The ladder on what is timed: the implementation as it is compiled, on the device and in the precision of the trial."""
    examples = image_count(trial.model, trial.train.batch)
    train = dataset.train
    ladder = Ladder(
        impl, trial.model, trial.train.optim, trial.runtime_spec(), train.images[:examples], train.labels[:examples],
        seed=trial.seed, steps=trial.parity.steps, batch=trial.train.batch,
    )  # fmt: skip
    ladder.climb(trial.parity.level)
    return ladder.report(trial.impl), examples


def _parity_event(report: Report, examples: int) -> dict[str, Any]:
    worst = report.worst
    return {
        "kind": "parity",
        "ok": report.ok,
        "max_rel_err": worst.rel_err,
        "worst": f"{worst.level} {worst.name}",
        "tensors": {f"{c.level} {c.name}": {"rel_err": c.rel_err, "tolerance": c.tolerance} for c in report.checks},
        "examples": examples,
    }


def _train_epoch(
    trial: Trial, impl: Impl, dataset: Dataset, epoch: int, scratch: Path, clock: Stopwatch
) -> tuple[Sample, dict[str, Any]]:
    """One epoch and its validation, and a checkpoint after it; the clock runs during `train` alone."""
    train, batch = trial.train, trial.train.batch
    plan = plan_epoch(trial.seed, epoch, len(dataset.train.labels), batch, trial.data.augment.shift, trial.model)
    phases = Phases()
    sample, totals = clock(lambda: impl.train(plan))
    if not math.isfinite(totals.loss.total):
        raise Diverged(f"the training loss of epoch {epoch} is {totals.loss.total}; lower train.lr ({train.lr:g})")
    validation = None
    with phases("eval_s"):
        if len(dataset.validation.labels):
            validation = impl.evaluate(dataset.validation.images, dataset.validation.labels)
    checkpoint = f"epoch-{epoch:04d}.safetensors"
    save_checkpoint(scratch / checkpoint, impl.dump(), impl.dump_moments())
    return sample, {
        "kind": "epoch",
        "epoch": epoch,
        "epochs": train.epochs,
        "epoch_s": sample.seconds,
        **phases.seconds,
        "img_per_s": totals.count / sample.seconds,
        **({} if sample.joules is None else {"joules": sample.joules}),
        **{f"train_{name}": value for name, value in _losses(trial, totals.loss).items()},
        "train_err_pct": 100 * (1 - totals.correct / totals.count),
        "val_loss": validation.loss.total if validation else None,
        "val_err_pct": _error_pct(validation, dataset.validation.labels) if validation else None,
        "lr": train.optim.lr_at((epoch - 1) * math.ceil(totals.count / batch)),
        "plan_sha256": plan_digest(plan),
        "checkpoint": checkpoint,
    }


def _losses(trial: Trial, loss: Loss) -> dict[str, float | None]:
    """The total as "loss", and what else there is for this kind of model: a term that it has not is not there, not zero."""
    model = trial.model
    terms = [name for name in model.loss_terms if name != "reconstruction" or model.decoder]
    return {"loss" if name == "total" else name: getattr(loss, name) for name in terms}


def _error_pct(totals: EvalTotals, labels: Any) -> float:
    return 100 * float((totals.predicted != labels).mean())
