"""What `bf16` means: the same rounding in every framework, and a parity check that notices if it is missing."""

from __future__ import annotations

import numpy as np
import pytest

from harness import registry
from harness.parity import Ladder, Report
from harness.spec import OptimSpec, Runtime
from impls.numpy.layers import rounded
from tests.helpers.impl_helpers import FRAMEWORKS, THREADS, batch_of, small_model

# A number of types that is a power of two: the released code's division by it commutes with rounding.
MODEL = small_model(kernel=5, conv_channels=16, primary_types=4, routing=3)


def climb(name: str, precision: str) -> Report:
    """An implementation in `precision`, held to bfloat16."""
    compile = name == "jax"  # sooner compiled than run step by step
    runtime = Runtime.model_validate({"precision": precision, "compile": compile, "threads": THREADS})
    impl = registry.load(registry.resolve(name))(MODEL, OptimSpec(), runtime)
    ladder = Ladder(impl, MODEL, OptimSpec(), runtime.model_copy(update={"precision": "bf16"}), *batch_of(MODEL, 7))
    ladder.climb("L4")
    return ladder.report(name)


@pytest.mark.parametrize("name", ["numpy", *FRAMEWORKS])
def test_operands_are_rounded(name: str) -> None:
    report = climb(name, "bf16")
    assert report.ok, report.worst


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_no_rounding_is_found(name: str) -> None:
    assert climb(name, "fp32").failed_level in ("L2", "L3", "L4")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("digits", [8, 11])
def test_rounding_keeps_the_nearest_number_of_so_many_digits(dtype: type, digits: int) -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    mantissa, exponent = np.frexp(x)
    expected = np.ldexp(np.round(mantissa * 2.0**digits) / 2.0**digits, exponent)
    assert np.array_equal(rounded(x, digits), expected.astype(dtype))
