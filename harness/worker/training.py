"""One trial in its own process: build, compile, pass the gate, train, evaluate. It reports everything as events."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness import data, registry
from harness.cost.limits import Verdict, out_of_memory
from harness.data import Dataset, Split
from harness.errors import TrialFailed, UserError, of_the_disk, starved
from harness.events import EpochEvent, ParityEvent, ReadyEvent, Record, ResultEvent, TrialEvent, WarningEvent
from harness.machine.clock import Phases, Sample, Stopwatch, peak_rss_bytes, reset_peak_rss
from harness.machine.environment import gpus, memory_bytes
from harness.machine.loads import busiest, usage
from harness.machine.noise import Observation, doubts
from harness.machine.topology import put_back
from harness.parity import Report, cached
from harness.parity.inputs import staged
from harness.parity.setups import gate_ladder
from harness.parity.specification import routing_logit_change
from harness.spec import EvalTotals, Impl, Loss, Weights, is_right
from harness.spec.plans import plan_digest, plan_epoch
from harness.spec.trial import Trial
from harness.weights import digest, initial_weights, parameter_count
from harness.weights.files import flat, save_checkpoint, save_predictions, save_weights
from harness.weights.progress import Progress
from harness.weights.start import starting_weights
from harness.weights.whole import not_finite, not_of, read_checkpoint, with_fingerprints
from harness.worker.audit import Audit

_BLOCK = 16_384  # images evaluated in one call

Emit = Callable[[TrialEvent], None]


class Diverged(Exception):
    """The training loss, or a weight, is no longer a number."""


def run_trial(
    trial: Trial,
    emit: Emit,
    scratch: Path,
    checkpoint: Path | None = None,
    resumed_epoch: int = 0,
    recorded: Record | None = None,
    cores: Sequence[int] = (),
) -> None:
    """Runs `trial` to its end and emits its events; `emit` returns once an "epoch" event is safe.

    Files go to `scratch`, and their SHA-256 into the events that name them. With a `checkpoint`, which must match
    `recorded`, it continues after epoch `resumed_epoch` as if never interrupted; for epoch 0, the checkpoint holds the
    suite's starting weights. A library that moves the process from its `cores`, if given, is told of, and the process put
    back. Raises what the implementation raises, `UserError` for what the user can fix, `Diverged`
    if the loss or a weight becomes NaN, `TrialFailed` if memory ran out or the trained names, shapes or dtype are not
    the model's.
    """
    built: list[Impl] = []

    def tell(event: TrialEvent) -> None:
        emit(with_fingerprints(event, scratch))

    try:
        _run_trial(trial, tell, scratch, checkpoint, resumed_epoch, recorded, cores, built)
    except Exception as error:
        if (
            isinstance(error, UserError)
            or of_the_disk(error)
            or not starved(error, registry.resolve(trial.impl).out_of_memory)
        ):
            raise
        verdict = _out_of_memory(trial, error, built)
        raise TrialFailed(verdict.cause, type(error).__name__, verdict.hint) from error


def _out_of_memory(trial: Trial, error: Exception, built: list[Impl]) -> Verdict:
    """The verdict, with the peak memory of the trial's device."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
    if not trial.gpus:
        return out_of_memory(trial, said, peak_rss_bytes(), memory_bytes())
    peak: int | None = None
    with suppress(Exception):  # the device may no longer answer
        peak = built[0].peak_bytes()
    own = gpus([each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each])
    return out_of_memory(trial, said, peak, own[0].memory_bytes if own else None)


def _run_trial(
    trial: Trial,
    emit: Emit,
    scratch: Path,
    checkpoint: Path | None,
    resumed_epoch: int,
    recorded: Record | None,
    cores: Sequence[int],
    built: list[Impl],
) -> None:
    """As `run_trial`; leaves the implementation in `built`, so that its memory can be read."""

    def look(when: str) -> None:
        """Libraries may set the affinity as they are loaded, and again for their first threads."""
        if cores and (moved := put_back(cores)):
            emit(WarningEvent(message=f"{when}, the process {moved}; it was put back"))

    phases = Phases()
    with phases("import_s"):
        implementation = registry.load(registry.resolve(trial.impl))
        look(f"while {trial.impl} was imported")
    with phases("data_s"):
        dataset = data.load(trial.data)
        if trial.is_proposal:  # whatever would look at test images, the audit included, finds those of the validation
            dataset = replace(dataset, test=dataset.validation, own_test=None)
    with phases("build_s"):
        impl: Impl = implementation(trial.model, trial.train.optim, trial.runtime_spec())
        built.append(impl)
        weights = initial_weights(trial.model, trial.seed)
        if trial.start_sha256 and not resumed_epoch:
            weights = starting_weights(trial, checkpoint)
        impl.load(weights)
        train = dataset.train.images, dataset.train.labels
        impl.stage(*(staged(trial.model, *train) if trial.parity.gate else train))
    weights_sha256 = trial.start_sha256 if resumed_epoch and trial.start_sha256 else digest(impl.dump())
    with phases("compile_s"):
        impl.compile(trial.train.batch)
    with phases("parity_s"):
        if trial.parity.gate:
            emit(_gate(trial, impl, dataset))
    progress = Progress()
    if checkpoint and resumed_epoch:
        weights, moments, progress = read_checkpoint(checkpoint, trial, recorded, resumed_epoch)
        impl.load(weights, moments)
    else:
        impl.load(weights)
    emit(
        ReadyEvent(
            import_s=phases.seconds["import_s"],
            data_s=phases.seconds["data_s"],
            build_s=phases.seconds["build_s"],
            compile_s=phases.seconds["compile_s"],
            parity_s=phases.seconds["parity_s"],
            parameters=parameter_count(trial.model),
            weights_sha256=weights_sha256,
            data_sha256=dataset.sha256,
            data_provenance=dataset.provenance,
            device=trial.runtime_spec().device,
        )
    )
    look("before training")
    reset_peak_rss()
    clock = Stopwatch()
    before, began = usage(), time.monotonic()
    observed: list[Observation] = []
    audit = Audit(trial, impl, dataset, progress.audit)
    while progress.epoch < trial.train.epochs and not progress.is_over:
        sample, event, progress = _train_epoch(trial, impl, dataset, progress, scratch, clock, audit)
        observed.append(sample.observation)
        emit(event)
    look("while it was timed")
    with phases("test_s"):
        test = _evaluate(impl, dataset.test, trial.train.batch)
    peak_bytes = impl.peak_bytes() or peak_rss_bytes() - audit.extra_bytes
    verdict = audit.verdict(weights := impl.dump(), test)
    is_told = verdict["ok"] is not False and not trial.is_proposal
    test_err_pct = _error_pct(test, dataset.test.labels) if is_told else None
    facts = {"epoch": progress.epoch, "val_err_pct": progress.val_err_pct, "test_err_pct": test_err_pct}
    save_weights(scratch / "weights.safetensors", weights, trial.facts() | facts)
    if not trial.is_proposal:
        save_predictions(scratch / "predictions.safetensors", test.predicted, dataset.test.labels)
    who = partial(busiest, before, time.monotonic() - began, cores)
    for doubt in doubts(observed[1:] or observed, who):  # the first epoch is warm-up
        emit(WarningEvent(message=doubt))
    emit(
        ResultEvent(
            test_err_pct=test_err_pct,
            **{f"test_{name}": value if is_told else None for name, value in _losses(trial, test.loss).items()},
            test_s=0.0 if trial.is_proposal else phases.seconds["test_s"],
            test_images=0 if trial.is_proposal else len(dataset.test.labels),
            peak_bytes=peak_bytes,
            audit=verdict,
            weights="weights.safetensors",
            **_best(trial, impl, dataset, progress, test_err_pct, scratch),
            predictions=None if trial.is_proposal else "predictions.safetensors",
        )
    )


def _best(
    trial: Trial, impl: Impl, dataset: Dataset, progress: Progress, last_err_pct: float | None, scratch: Path
) -> dict[str, Any]:
    """Saves the best epoch's weights and returns their fields of the "result" event. `impl` keeps these weights."""
    best = progress.best
    if best is None:
        return {}
    test_err_pct = last_err_pct
    if best.epoch != progress.epoch and last_err_pct is not None:
        impl.load(best.weights)
        test_err_pct = _error_pct(_evaluate(impl, dataset.test, trial.train.batch), dataset.test.labels)
    facts = {"epoch": best.epoch, "val_err_pct": best.val_err_pct, "test_err_pct": test_err_pct}
    save_weights(scratch / "best.safetensors", best.weights, trial.facts() | facts)
    return {"best_epoch": best.epoch, "best_test_err_pct": test_err_pct, "best_weights": "best.safetensors"}


def _gate(trial: Trial, impl: Impl, dataset: Dataset) -> ParityEvent:
    """The "parity" event: the ladder on what is timed: compiled, on the trial's device, in its precision.

    A verdict from an earlier gate on the same configuration is reused.
    """
    place = cached.place(trial, dataset.sha256)
    event = cached.known(place)
    if event is None:
        ladder = gate_ladder(trial, impl, dataset.train)
        ladder.climb(trial.parity.level)
        event = _parity_event(ladder.report(trial.impl))
        cached.keep(place, event)
    return event


def _parity_event(report: Report) -> ParityEvent:
    worst = report.worst
    return ParityEvent(
        ok=report.ok,
        max_rel_err=worst.rel_err,
        worst=f"{worst.level} {worst.name}",
        tensors={f"{c.level} {c.name}": {"rel_err": c.rel_err, "tolerance": c.tolerance} for c in report.checks},
        examples=report.images,
    )


def _train_epoch(
    trial: Trial, impl: Impl, dataset: Dataset, progress: Progress, scratch: Path, clock: Stopwatch, audit: Audit
) -> tuple[Sample, EpochEvent, Progress]:
    """One epoch, its validation and a checkpoint; only `train` is timed."""
    train, batch, epoch = trial.train, trial.train.batch, progress.epoch + 1
    labels, shift = dataset.train.labels, data.shift(trial.data)
    plan = plan_epoch(trial.seed, epoch, len(labels), batch, shift, trial.model, labels, data.margin(trial.data))
    phases = Phases()
    sample, totals = audit.train(plan, epoch, clock)
    if not math.isfinite(totals.loss.total):
        raise Diverged(f"the training loss of epoch {epoch} is {totals.loss.total}; lower train.lr ({train.lr:g})")
    val_err_pct = val_loss = None
    ended = audit.ended()
    with phases("eval_s"):
        if len(dataset.validation.labels):
            validation = _evaluate(impl, dataset.validation, batch)
            val_err_pct, val_loss = _error_pct(validation, dataset.validation.labels), validation.loss.total
    weights, moments = impl.dump(), impl.dump_moments()
    _require_usable(trial, epoch, flat(weights, moments))
    audit.settle(epoch, weights, moments, ended)
    progress = replace(progress.after(epoch, weights, val_err_pct, val_loss), audit=audit.ledger)
    test_err_pct = None
    if train.stop.images == "test":  # of the training data set: section 5.2 stops on expanded MNIST, tests on affNIST
        test = dataset.test if dataset.own_test is None else dataset.own_test
        test_err_pct = _error_pct(_evaluate(impl, test, batch), test.labels)
    progress = replace(progress, is_over=progress.ends(train.stop, test_err_pct))
    checkpoint = f"epoch-{epoch:04d}.safetensors"
    save_checkpoint(scratch / checkpoint, weights, moments, progress)
    kept = f"weights-{epoch:04d}.safetensors" if train.keep_every and epoch % train.keep_every == 0 else None
    if kept:
        save_weights(scratch / kept, weights, trial.facts() | {"epoch": epoch, "val_err_pct": val_err_pct})
    measured: dict[str, Any] = {}
    if count := trial.measure.routing_logits:
        seen = dataset.validation if len(dataset.validation) else data.shown(trial.data, dataset.train)
        precision = trial.runtime.precision
        measured["routing_logit_change"] = routing_logit_change(trial.model, weights, seen.images[:count], precision)
    maybe: dict[str, Any] = {
        "joules": sample.joules,
        "audit_fault": audit.ledger.fault or None,
        "weights": kept,
        "test_err_pct" if dataset.own_test is None else "own_test_err_pct": test_err_pct,
    }
    event = EpochEvent(
        epoch=epoch,
        epochs=train.epochs,
        epoch_s=sample.seconds,
        eval_s=phases.seconds["eval_s"],
        img_per_s=totals.count / sample.seconds,
        **{f"train_{name}": value for name, value in _losses(trial, totals.loss).items()},
        train_err_pct=100 * (1 - totals.correct / totals.count),
        val_loss=val_loss,
        val_err_pct=val_err_pct,
        lr=train.optim.lr_at((epoch - 1) * math.ceil(totals.count / batch)),
        **measured,
        plan_sha256=plan_digest(plan),
        checkpoint=checkpoint,
        **{name: value for name, value in maybe.items() if value is not None},
    )
    return sample, event, progress


def _require_usable(trial: Trial, epoch: int, state: Weights) -> None:
    """Raises if no training could continue from this state, so that no such checkpoint is left."""
    if wrong := not_of(trial, state):
        cause = f"what {trial.impl} dumps after epoch {epoch} is not the model's: {'; '.join(wrong[:3])}"
        hint = "see dump and dump_moments in harness/spec/impl.py, and harness.weights.weight_table"
        raise TrialFailed(cause, "ValueError", hint)
    if wrong := not_finite(state):
        raise Diverged(f"after epoch {epoch}, {'; '.join(wrong[:3])}; lower train.lr ({trial.train.lr:g})")


def _evaluate(impl: Impl, split: Split, batch: int) -> EvalTotals:
    """`impl.evaluate` in blocks of whole batches: only one block of a memory-mapped split is in memory at a time."""
    block = max(1, _BLOCK // batch) * batch
    totals: list[EvalTotals] = []
    for start in range(0, len(split), block):
        labels = split.labels[start : start + block]
        totals.append(impl.evaluate(split.images[start : start + block], labels))
        data.release(split.images)
    if len(totals) == 1:
        return totals[0]
    counts = [len(each.predicted) for each in totals]
    losses = [{name: value for name, value in asdict(each.loss).items() if value is not None} for each in totals]
    means = {name: float(np.average([loss[name] for loss in losses], weights=counts)) for name in losses[0]}
    return EvalTotals(replace(totals[0].loss, **means), np.concatenate([each.predicted for each in totals]))


def _losses(trial: Trial, loss: Loss) -> dict[str, float | None]:
    """The total as "loss", and the other terms of this kind of model: a term that it lacks is absent, not zero."""
    return {"loss" if name == "total" else name: getattr(loss, name) for name in trial.model.recorded_terms}


def _error_pct(totals: EvalTotals, labels: Any) -> float:
    return 100 * float((~is_right(totals.predicted, labels)).mean())
