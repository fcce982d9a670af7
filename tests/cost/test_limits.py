"""Verdicts on trials that a machine cannot run, for machines that need not exist."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness import registry
from harness.cost import limits as verdict
from harness.cost.limits import emulated, out_of_memory, refusal
from harness.cost.memory import least_bytes, step_bytes
from harness.errors import starved
from harness.machine.environment import Gpu
from harness.spec import ModelSpec
from harness.spec.trial import Trial
from tests.helpers.executor_helpers import tiny_trial

PAPER = ModelSpec(image=(28, 28, 1), classes=10)
AMPERE, TURING = Gpu("A100", 40 * 2**30, (8, 0)), Gpu("T4", 16 * 2**30, (7, 5))


def trial(
    impl: str = "tests.helpers.executor_helpers:TinyNet", precision: str = "fp32", batch: int = 128, gpus: int = 0
) -> Trial:
    """A trial of the paper's model."""
    tiny = tiny_trial(gpus=gpus)
    runtime = tiny.runtime.model_copy(update={"precision": precision})
    train = tiny.train.model_copy(update={"batch": batch})
    return tiny.model_copy(update={"impl": impl, "runtime": runtime, "train": train, "model": PAPER})


def refused(given: Trial, memory_bytes: int | None = 24 * 10**9, gpus: tuple[Gpu, ...] = ()) -> str | None:
    found = refusal(given, memory_bytes, gpus, "Some CPU")
    return found and f"{found.cause}; {found.hint}"


@pytest.mark.parametrize(
    ("given", "gpus", "found"),
    [
        (trial(precision="tf32"), (), "a trial on the CPU (Some CPU)"),
        (trial(precision="tf32"), (AMPERE,), "a trial on the CPU (Some CPU)"),
        (trial(precision="tf32", gpus=1), (TURING,), "T4 (7.5)"),
        (trial(precision="tf32", gpus=1), (TURING, AMPERE), None),
        (trial(precision="tf32", gpus=1), (), None),  # given one by a scheduler, of which nothing is known
        (trial("numpy", precision="tf32"), (), None),
        (trial(precision="bf16"), (), None),
        (trial(precision="fp64"), (), None),
    ],
)
def test_tf32_needs_its_hardware(given: Trial, gpus: tuple[Gpu, ...], found: str | None) -> None:
    told = refused(given, gpus=gpus)
    if found is None:
        assert told is None
    else:
        assert told is not None
        assert told.startswith(f"tf32 needs an NVIDIA GPU of compute capability 8.0 or more; found {found}; ")
        assert "-s runtime.precision=fp32" in told


def test_a_framework_without_gpu_support(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {
        "torch": "cuda: Optional[str] = None\nhip: Optional[str] = None\n",
        "tensorflow": "('is_cuda_build', False)",
    }
    devices: dict[str, Any] = {
        name: registry.framework_of(registry.resolve(name)).module for name in registry.FRAMEWORKS
    }
    for name in ("torch", "tf"):
        monkeypatch.setattr(devices[name], "_source", lambda package, *_parts: sources[package])
    monkeypatch.setattr(devices["jax"], "_PLUGINS", ("no_such_plugin",))
    for impl, what in (("torch", "PyTorch"), ("tf", "TensorFlow"), ("jax", "JAX")):
        told = refused(trial(impl, gpus=1), gpus=(AMPERE,))
        assert told is not None
        assert re.search(rf"for a GPU, but .*{what}.*capsbench\[gpu\].*resources\.gpus=0", told)
        assert refused(trial(impl)) is None
    sources |= {"torch": "cuda: Optional[str] = '12.8'\nhip = None", "tensorflow": "('is_cuda_build', True)"}
    monkeypatch.setattr(devices["jax"], "_PLUGINS", ("no_such_plugin", "json"))
    assert [refused(trial(impl, gpus=1), gpus=(AMPERE,)) for impl in ("torch", "tf", "jax")] == [None] * 3


def test_builds_are_recognised_by_their_own_files() -> None:
    """The files of the installed frameworks still say what `registry.without_gpu` looks for."""
    torch, tensorflow = pytest.importorskip("torch"), pytest.importorskip("tensorflow")
    assert (registry.without_gpu(registry.resolve("torch")) is None) == bool(torch.version.cuda or torch.version.hip)
    built = tensorflow.test.is_built_with_cuda() or tensorflow.test.is_built_with_rocm()
    assert (registry.without_gpu(registry.resolve("tf")) is None) == built


def test_a_batch_that_can_in_no_way_fit() -> None:
    least = least_bytes(PAPER, 55_000)
    assert refused(trial(batch=55_000), least) is None
    assert refused(trial(batch=55_000), None) is None
    told = refused(trial(batch=55_000), least - 1)
    assert told is not None
    assert told.startswith("out of memory before it starts: batch 55,000 needs at least ")
    batch = int(re.findall(r"train\.batch=(\d+)", told)[0])
    assert step_bytes(PAPER, batch) <= 0.9 * least < step_bytes(PAPER, batch + 8)
    assert refused(trial(batch=55_000, precision="fp64"), least) is not None
    assert "this machine" in told
    on_gpu = refused(trial(batch=55_000, gpus=1), None, (TURING,))
    assert on_gpu is not None
    assert "the GPU has 17.18 GB" in on_gpu


def test_a_model_that_fits_with_no_batch() -> None:
    told = refused(trial(batch=1), 10**8)
    assert told is not None
    assert "train.batch" not in told
    assert "smaller model" in told


def test_what_to_lower_once_memory_ran_out() -> None:
    def advised(given: Trial, peak: int | None, limit: int | None) -> int:
        return int(re.findall(r"train\.batch=(\d+)", out_of_memory(given, "it said so", peak, limit).hint)[0])

    given = trial(batch=8192)
    assert advised(given, None, None) == 4096  # nothing is known but that it was too much
    limit = 8 * 10**9
    plain, wasteful = advised(given, limit, limit), advised(given, 4 * step_bytes(PAPER, 8192), limit)
    assert 0 < 3 * wasteful < plain < 4096
    assert "smaller model" in out_of_memory(trial(batch=1), "it said so", None, None).hint
    assert out_of_memory(given, "it said so", 75 * 10**8, limit).cause == (
        "out of memory: it said so (reached 7.50 GB of 8.00 GB)"
    )


@pytest.mark.parametrize(
    ("flags", "given", "says"),
    [
        ({"avx512f"}, trial(precision="bf16"), "no AMX or AVX512-BF16"),
        (set[str](), trial(precision="bf16"), "unknown"),
        ({"amx_bf16"}, trial(precision="bf16"), None),
        ({"avx512f"}, trial(precision="bf16", gpus=1), None),
        ({"avx512f"}, trial(), None),
    ],
)
def test_bf16_without_units_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], given: Trial, says: str | None
) -> None:
    monkeypatch.setattr(verdict, "cpu_flags", lambda: flags)
    told = emulated(given)
    assert told is None if says is None else told is not None and says in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", True),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", True),
        ("ResourceExhaustedError: failed to allocate memory", True),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", True),
        ("CUDA_ERROR_OUT_OF_MEMORY", True),
        ("KeyError: memory", False),
        ("room for boom", False),
    ],
)
def test_starved(text: str, expected: bool) -> None:
    assert starved(text) is expected
