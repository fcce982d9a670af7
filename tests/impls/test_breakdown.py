"""The parts of a training step and the trace of one, in every framework."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from harness.spec import Profiled
from harness.spec.plans import plan_epoch
from harness.weights import initial_weights
from tests.helpers.impl_helpers import FRAMEWORKS, batch_of, loaded, small_model

PARTS = ["data", "conv", "votes", "routing", "decoder", "optimiser"]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_parts_and_trace(name: str, tmp_path: Path) -> None:
    model = small_model(profile="official")
    impl = loaded(name, model, initial_weights(model, 0), precision="fp32", compile=True)
    impl.stage(*batch_of(model, 7))
    impl.compile(4)
    assert isinstance(impl, Profiled)
    impl.train(plan_epoch(0, 1, 7, 4, 1))
    before, moments = impl.dump(), impl.dump_moments()
    parts = impl.parts()
    assert list(parts) == PARTS
    for part in parts.values():
        assert part() is None
        part()
    after = impl.dump()
    assert all(np.array_equal(after[tensor], before[tensor]) for tensor in before)
    assert impl.dump_moments().step == moments.step

    path = tmp_path / "trace.json.gz"
    impl.trace(plan_epoch(0, 2, 7, 4, 1), path)
    assert impl.dump_moments().step == moments.step + 2
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    spans = [event for event in events if event.get("ph") == "X"]
    assert len(spans) > 10
    assert all(event["dur"] >= 0 for event in spans)


@pytest.mark.parametrize("name", ["torch", "tf"])  # JAX, without a compiler, takes a quarter of a minute
def test_no_decoder_no_part(name: str) -> None:
    model = small_model(decoder=False)
    impl = loaded(name, model, initial_weights(model, 0), precision="fp32", compile=False)
    impl.stage(*batch_of(model, 4))
    impl.compile(4)
    assert isinstance(impl, Profiled)
    assert list(impl.parts()) == [part for part in PARTS if part != "decoder"]
