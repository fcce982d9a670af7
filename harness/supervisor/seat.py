"""A worker's exclusive resources: cores, GPUs, and an environment that is complete before Python starts."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from harness import registry
from harness.machine.surroundings import child_environment, holds_packages, in_another_python, kept_names, python_path
from harness.spec.trial import Interpreter, Trial

_SOURCES = Path(__file__).resolve().parents[2]  # an interpreter that is not ours finds capsbench by `harness.boot`
_MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184"


@dataclass(frozen=True)
class Seat:
    """An attempt's exclusive resources: logical cores, and GPU ids as in `CUDA_VISIBLE_DEVICES`."""

    cores: tuple[int, ...]
    gpus: tuple[str, ...] = ()


def worker_environment(trial: Trial, seat: Seat, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a trial's process, complete before Python starts, since libraries read much of it on loading.

    What every process gets (`harness.machine.surroundings.child_environment`), then the frameworks' variables
    (`harness.spec.device.Device.environment`), the suite's (`runtime.environment`), and those of every trial; the later
    ones win. Raises `UserError` if a plug-in fails to give its variables.
    """
    env = {name: value for name, value in child_environment(base).items() if name not in kept_names()}
    for name, value in registry.environment(trial.impl, trial.cpus, trial.runtime.precision, bool(seat.gpus)).items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    own = trial.runtime.environment
    threads = str(trial.cpus)
    env |= own
    env |= {
        # One thread per core, for every BLAS and OpenMP; libraries that ignore these are bound by affinity.
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        # Only the GPUs of this trial; a CPU trial must not even find one. Numbered as in nvidia-smi.
        "CUDA_VISIBLE_DEVICES": ",".join(seat.gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Huge pages, kept from step to step: a fresh page costs more than the computation on it. 16 GiB: always.
        "GLIBC_TUNABLES": ":".join(filter(None, (_MALLOC, own.get("GLIBC_TUNABLES")))),
        # The log is in chronological order.
        "PYTHONUNBUFFERED": "1",
    }
    if trial.runtime.precision in ("fp32", "fp64"):
        env["NVIDIA_TF32_OVERRIDE"] = "0"  # strict: no TF32 in any NVIDIA library
    return in_another_python(env) if trial.interpreter else env


@contextmanager
def interruptible() -> Generator[threading.Event]:
    """SIGINT and SIGTERM set the event, so that no signal ever cuts a write of the journal in two.

    So does SIGHUP, when the terminal is closed, unless it is ignored (nohup). Only the main thread can receive signals;
    elsewhere the event is never set.
    """
    stop = threading.Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def forwarded_environment() -> dict[str, str]:
    """What any worker needs from this process's environment: the bench's settings, and where to find it."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("CAPSBENCH_")}
    return {**settings, "PYTHONPATH": os.pathsep.join(python_path(os.environ))}


def forwarded_paths(interpreter: Interpreter | None = None) -> list[str]:
    """The folders of this process's import path in which nothing is installed, for the end of a worker's.

    For another `interpreter`, also without folders that hold packages for this one, wherever they are, and capsbench.

    At the end, since a module there, such as a `random.py` of the user's, must not pass for a library's or Python's own.
    """
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib", "scripts")}
    paths = (Path(path or ".").resolve() for path in (*sys.path, ""))
    found = dict.fromkeys(str(path) for path in paths if path.is_dir() and not installed & {path, *path.parents})
    if interpreter is None:
        return list(found)
    return [path for path in found if Path(path) != _SOURCES and not holds_packages(path)]
