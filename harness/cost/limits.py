"""Why a trial cannot run here, and why one ran out of memory: in words, with what to do instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import models, registry
from harness.cost.memory import largest_batch, least_bytes, step_bytes
from harness.machine.environment import Gpu, cpu_flags
from harness.spec.trial import Trial

_TF32_CAPABILITY = (8, 0)
_BF16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # as Linux names them; the last is Arm's
_USABLE = 0.9  # of the memory; the rest is left to the system
_GB = 1e9


@dataclass(frozen=True)
class Verdict:
    """The cause in one line, and what to do."""

    cause: str
    hint: str


def refusal(trial: Trial, memory_bytes: int | None, gpus: Sequence[Gpu], cpu: str) -> Verdict | None:
    """Why `trial` cannot possibly run on this machine, or None. Imports no framework.

    Args:
        memory_bytes: what the process may use; None means unknown and refuses nothing.
        gpus: those that the trial could get; if it has been given one, empty means unknown.
        cpu: the processor's name, for the message.
    """
    return _no_gpu(trial) or _no_precision(trial, gpus, cpu) or _no_memory(trial, memory_bytes, gpus)


def _no_gpu(trial: Trial) -> Verdict | None:
    own = trial.interpreter
    if not trial.gpus or (reason := _without_gpu(trial)) is None:
        return None
    build = f"install a GPU build for {own.path}" if own else 'install the GPU builds (pip install "capsbench[gpu]")'
    return Verdict(f"the trial is for a GPU, but {reason}", f"{build}, or run it on the CPU: -s resources.gpus=0")


def _without_gpu(trial: Trial) -> str | None:
    entry = registry.resolve(trial.impl)
    if trial.interpreter and "gpu" in entry.devices:
        return trial.interpreter.without_gpu
    return registry.without_gpu(entry)


def _no_precision(trial: Trial, gpus: Sequence[Gpu], cpu: str) -> Verdict | None:
    if trial.runtime.precision != "tf32" or registry.resolve(trial.impl).any_precision:
        return None
    if trial.gpus and any(gpu.capability is None or gpu.capability >= _TF32_CAPABILITY for gpu in gpus):
        return None
    if trial.gpus and not gpus:
        return None
    told = [f"{gpu.name} ({'.'.join(map(str, gpu.capability or ()))})" for gpu in gpus]
    found = ", ".join(dict.fromkeys(told)) if trial.gpus else f"a trial on the CPU ({cpu})"
    least = ".".join(map(str, _TF32_CAPABILITY))
    return Verdict(
        f"tf32 needs an NVIDIA GPU of compute capability {least} or more; found {found}",
        "use -s runtime.precision=fp32; bf16 computes everywhere, faster only where the device has it",
    )


def _no_memory(trial: Trial, memory_bytes: int | None, gpus: Sequence[Gpu]) -> Verdict | None:
    limit = max((gpu.memory_bytes or 0 for gpu in gpus), default=0) if trial.gpus else memory_bytes
    size = _item_bytes(trial)
    least = least_bytes(trial.model, trial.train.batch, size)
    if not limit or least <= limit:
        return None
    place = "the GPU" if trial.gpus else "this machine"
    cause = (
        f"out of memory before it starts: batch {trial.train.batch:,} needs at least {_gb(least)}, "
        f"{place} has {_gb(limit)}"
    )
    return Verdict(cause, _lower(trial, largest_batch(trial.model, _USABLE * limit, size)))


def out_of_memory(trial: Trial, said: str, peak_bytes: int | None, limit_bytes: int | None) -> Verdict:
    """The verdict on a trial that ran out of memory.

    Args:
        said: the symptom: an exception's text, or the signal.
        peak_bytes: its peak memory, if known.
        limit_bytes: the memory of its device.
    """
    reached = f"reached {_gb(peak_bytes)}" if peak_bytes else "peak unknown"
    there = f" of {_gb(limit_bytes)}" if limit_bytes else ""
    batch = trial.train.batch
    size = _item_bytes(trial)
    # A smaller step will exceed its estimate by as much.
    excess = max(1.0, (peak_bytes or 0) / step_bytes(trial.model, batch, size))
    fitting = largest_batch(trial.model, _USABLE * (limit_bytes or 0) / excess, size)
    return Verdict(f"out of memory: {said} ({reached}{there})", _lower(trial, min(fitting or batch, batch // 2)))


def emulated(trial: Trial) -> str | None:
    """A remark on timings in a precision that this processor lacks; None if it has the precision."""
    if trial.runtime.precision != "bf16" or trial.gpus or (flags := cpu_flags()) & _BF16_FLAGS:
        return None
    found = "no AMX or AVX512-BF16 among its instruction sets" if flags else "its instruction sets are unknown"
    return f"bf16 is emulated here: {found}; its timing says nothing of bf16 hardware"


def _lower(trial: Trial, batch: int) -> str:
    keys = ", ".join(f"model.{name}" for name in models.of(trial.model).size_settings)
    smaller = f"a smaller model ({keys})" if keys else "a smaller model"
    double = ", or -s runtime.precision=fp32" if trial.runtime.precision == "fp64" else ""
    return (
        f"lower train.batch: -s train.batch={batch}, or take {smaller}{double}" if batch else f"take {smaller}{double}"
    )


def _item_bytes(trial: Trial) -> int:
    return 8 if trial.runtime.precision == "fp64" else 4


def _gb(count: float) -> str:
    return f"{count / _GB:,.2f} GB"
