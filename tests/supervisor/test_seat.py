"""What a worker process has to itself, and which of several begins first."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import registry
from harness.machine.surroundings import own_folder
from harness.supervisor.parity import Climb, _rank
from harness.supervisor.seat import Seat, worker_environment
from tests.helpers.executor_helpers import tiny_trial
from tests.helpers.run_helpers import ROOT


@pytest.mark.parametrize("impl", [*registry.BUILT_IN, "tests.helpers.executor_helpers:TinyNet"])
@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("precision", ["fp32", "fp64", "tf32", "bf16"])
def test_the_environment_of_a_worker(impl: str, gpus: int, precision: str) -> None:
    """The same for every implementation, built in or not, since any may use any framework."""
    tiny = tiny_trial(gpus=gpus)
    asked = {"XLA_FLAGS": "--x", "GLIBC_TUNABLES": "x=1", "TF_CPP_MIN_LOG_LEVEL": "1"}
    runtime = tiny.runtime.model_copy(update={"precision": precision, "environment": asked})
    trial = tiny.model_copy(update={"impl": impl, "cpus": 3, "runtime": runtime})
    stale = {"JAX_PLATFORMS": "tpu", "NVIDIA_TF32_OVERRIDE": "1", "TF_CPP_MIN_LOG_LEVEL": "0", "JAX_ENABLE_X64": "9"}
    own = {"A": "1", "PATH": "/bin", "HOME": str(Path.home()), "USER": "u"}
    base = {**own, "RAY_X": "1", "GLIBC_TUNABLES": "y=1", "PYTHONPATH": "/p", "LD_PRELOAD": "l", **stale}
    found = worker_environment(trial, Seat((0, 1, 2), ("3",) * gpus), base)
    malloc = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184"
    expected = {
        **own,
        "XLA_FLAGS": "--x",
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(own_folder() / "settings"),
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "TF_NUM_INTRAOP_THREADS": "3",
        "TF_NUM_INTEROP_THREADS": "3",
        "CUDA_VISIBLE_DEVICES": "3" if gpus else "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "GLIBC_TUNABLES": f"{malloc}:x=1",
        "THP_MEM_ALLOC_ENABLE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": f"{ROOT}{os.pathsep}/p",
        "JAX_ENABLE_X64": "1" if precision == "fp64" else "0",
    }
    expected |= {"NVIDIA_TF32_OVERRIDE": "0"} if precision in ("fp32", "fp64") else {}
    expected |= {} if gpus else {"JAX_PLATFORMS": "cpu"}
    assert found == expected


def test_the_slowest_to_start_begins_first(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth()
    climbs: list[Climb] = []
    for name in ("numpy", "torch", "tf", "jax", "fifth"):
        for precision in ("fp64", "fp32"):
            runtime = tiny_trial().runtime.model_copy(update={"precision": precision})
            trial = tiny_trial().model_copy(update={"impl": name, "runtime": runtime})
            climbs.append(Climb(trial, "L4", 1, tmp_path))
    order = [climb.who for climb in sorted(climbs, key=_rank)]
    assert order == [
        "fifth fp32", "fifth fp64", "jax fp32", "jax fp64", "tf fp32", "tf fp64",
        "numpy fp64", "numpy fp32", "torch fp64", "torch fp32",
    ]  # fmt: skip
