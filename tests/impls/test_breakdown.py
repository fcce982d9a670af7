"""Training steps cut short after each of their parts, and the trace of whole ones, in every framework."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.spec import Cut, ModelSpec, Truncated, Weights
from harness.spec.plans import plan_epoch
from harness.weights import initial_weights
from tests.helpers.impl_helpers import FRAMEWORKS, batch_of, loaded, small_model

MODEL = small_model(profile="official")
PARTS = ["other", "data", "conv1", "primary", "votes", "routing", "decoder", "loss", "optimiser"]
WEIGHTS = {
    # part: the weights that its gradients reach
    "conv1": ["conv1"],
    "primary": ["conv1", "primary"],
    "votes": ["conv1", "primary", "digit.w"],
    "routing": ["conv1", "primary", "digit"],
    "decoder": ["conv1", "primary", "digit", "dec"],
}
PLAN = plan_epoch(0, 1, 8, 4, 0)


def ready(name: str, model: ModelSpec = MODEL, precision: str = "fp64", compile: bool | None = None) -> Any:
    """An implementation with images; what it compiles, it compiles when it is first used."""
    impl = loaded(name, model, initial_weights(model, 0), precision=precision, compile=compile)
    impl.stage(*batch_of(model, 8))
    assert isinstance(impl, Truncated)
    return impl


shared = cache(ready)


def recorded(impl: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the programs return that are compiled from now on."""
    found: list[Any] = []
    own = impl.compiled

    def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        run = own(function, **options)

        def call(*inputs: Any) -> Any:
            found.append(run(*inputs))
            return found[-1]

        return call

    monkeypatch.setattr(impl, "compiled", compiled)
    return found


def gradients(name: str, impl: Any, cut: Cut, found: list[Any]) -> Weights:
    """Of a cut step, under canonical names."""
    if name == "torch":
        impl.adam.zero_grad()
        cut.whole(PLAN)
        return impl._numpy({own: each.grad for own, each in impl.net.named_parameters() if each.grad is not None})
    cut.whole(PLAN)
    return {weight: np.array(grad) for weight, grad in found[-1].items()}


@pytest.fixture(scope="module")
def reference() -> Mapping[str, Weights]:
    """The gradients of every cut step in PyTorch, by autograd alone: half the square of a stage's output, differentiated."""
    import torch

    impl = shared("torch")
    images, labels = batch_of(MODEL, 8)
    last = PLAN.order[4:]  # a cut's gradients are those of its last step
    pixels, classes = torch.tensor(images[last] / 255), torch.tensor(labels[last])[:, None]
    found: dict[str, Weights] = {}
    for part, stage in impl.kind.stages(MODEL).items():
        impl.adam.zero_grad()
        (0.5 * (stage(impl.net, pixels, classes) ** 2).sum()).backward()
        found[part] = impl._numpy({own: p.grad for own, p in impl.net.named_parameters() if p.grad is not None})
    return found


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_cut_step_computes_the_gradients_up_to_its_part(
    name: str, reference: Mapping[str, Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    impl = shared(name)
    found = recorded(impl, monkeypatch)
    cuts = {cut.part: cut for cut in impl.truncated()}
    assert list(cuts) == PARTS
    assert [part for part, cut in cuts.items() if cut.forward] == [*WEIGHTS, "loss"]
    before, moments = impl.dump(), impl.dump_moments()
    for part, reached in WEIGHTS.items():
        grads = gradients(name, impl, cuts[part], found)
        assert {*grads} == {weight for weight in before if weight.startswith(tuple(reached))}, part
        for weight, grad in grads.items():
            assert np.allclose(grad, reference[part][weight], rtol=1e-9, atol=1e-12), (part, weight)
    for cut in (cuts["other"], cuts["data"], cuts["loss"]):
        cut.whole(PLAN)
    after = impl.dump()
    assert all(np.array_equal(after[weight], before[weight]) for weight in before)
    cuts["optimiser"].whole(PLAN)
    assert impl.dump_moments().step == moments.step + 2  # the whole step, with two batches
    whole = impl.dump()
    assert not any(np.array_equal(whole[weight], before[weight]) for weight in before)


def test_votes_of_which_only_a_few_exist_at_a_time(
    reference: Mapping[str, Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impls.torch.layers.CHUNK", 3)
    impl = ready("torch")
    (cut,) = (cut for cut in impl.truncated() if cut.part == "votes")
    grads = gradients("torch", impl, cut, [])
    assert all(np.allclose(grad, reference["votes"][weight]) for weight, grad in grads.items())


@pytest.mark.parametrize("name", ["torch", "tf"])
def test_what_a_part_needs_runs_from_its_cut_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter stands where a delay would: routing runs in the steps that end with it or later, and in no other."""
    impl = shared(name)
    calls = 0
    module = f"impls.{name}.layers"
    route = __import__(module, fromlist=["route"]).route

    def counted(*inputs: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return route(*inputs, **options)

    monkeypatch.setattr(f"{module}.route", counted)
    ran: list[str] = []
    for cut in impl.truncated():
        for way in ("forward", "whole"):
            calls = 0
            if run := getattr(cut, way):
                run(PLAN)
                assert calls in (0, 2)  # two steps
                ran += [f"{cut.part} {way}"] * (calls > 0)
    later = [f"{part} {way}" for part in ("routing", "decoder", "loss") for way in ("forward", "whole")]
    assert ran == [*later, "optimiser whole"]


def test_xla_leaves_the_work_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What depends on the weights alone, such as the kernel's spectrum, must be computed in every step, as in the whole one."""
    impl = ready("jax", precision="fp32")  # optimised as what is timed
    found: list[Any] = []
    own = impl.compiled

    def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        run = own(function, **options)

        def call(*inputs: Any) -> Any:
            found.append(run.lower(*inputs).compile())
            return found[-1](*inputs)

        return call

    monkeypatch.setattr(impl, "compiled", compiled)
    (cut,) = (cut for cut in impl.truncated() if cut.part == "primary")
    cut.forward(PLAN)
    outside, inside = products(found[0].as_text())
    assert inside == 5  # conv1; the spectra of image and kernel, their product, its transform
    assert outside == 0


def products(program: str) -> tuple[int, int]:
    """Matrix products outside and inside the loop of an XLA program."""
    bodies = {
        match[1]: match[0] for match in re.finditer(r"^(?:ENTRY )?%?([\w.-]+) [^\n]*\{$.*?^\}", program, re.M | re.S)
    }
    (entry,) = re.findall(r"^ENTRY %?([\w.-]+)", program, re.M)
    (loop,) = {*re.findall(r"body=%?([\w.-]+)", bodies[entry])}

    def count(name: str, seen: set[str]) -> int:
        seen.add(name)
        called = {each for each in re.findall(r"%?([\w.-]+)", bodies[name]) if each in bodies} - seen
        own = len(re.findall(r" dot\(|custom-call\(.*matmul", bodies[name]))
        return own + sum(count(each, seen) for each in called if each not in seen)

    return count(entry, {loop}), count(loop, {entry})


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_trace(name: str, tmp_path: Path) -> None:
    impl = shared(name)
    before, path = impl.dump_moments().step, tmp_path / "trace.json.gz"
    impl.trace(PLAN, path)
    assert impl.dump_moments().step == before + 2
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    spans = [event for event in events if event.get("ph") == "X"]
    assert len(spans) > 10
    assert all(event["dur"] >= 0 for event in spans)


@pytest.mark.parametrize("name", ["torch", "tf"])  # JAX compiles for long
def test_no_decoder_no_part(name: str) -> None:
    impl = ready(name, small_model(decoder=False))
    assert [cut.part for cut in impl.truncated()] == [part for part in PARTS if part != "decoder"]


def test_a_kind_without_stages_is_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    impl = shared("torch")
    monkeypatch.delattr(impl.kind, "stages")
    assert [cut.part for cut in impl.truncated()] == ["other", "data", "loss", "optimiser"]
