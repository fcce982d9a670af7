"""Where a training step's time goes: steps cut short after each of their parts, and a trace by JAX's profiler."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from harness.spec import Cut, EpochPlan
from impls.architecture import stages_of
from impls.jax.overlay import overlay
from impls.jax.steps import BLOCK, Steps

_Train = Callable[[EpochPlan], object]


def truncated(steps: Steps, train: _Train) -> list[Cut]:
    """See `harness.spec.Truncated`. Every step runs in `train` itself, in the place of the whole one.

    Like the whole one it is the body of a compiled loop, which keeps all that the step computes: XLA leaves out whatever
    has no use.
    """
    nothing = np.zeros((BLOCK, len(steps.model.loss_terms) + 1), steps.dtype)

    def within(step: Callable[..., Any]) -> _Train:
        """`train` with another step."""

        def block(params: Any, data: Any, inputs: Any, count: Any, kept: Any) -> Any:
            def one(index: Any, _: Any) -> Any:
                # depends on the step's number, or XLA would compute what needs the weights alone once for all steps
                own, _ = lax.optimization_barrier((params, index))
                return step(own, data, *(part[index] for part in inputs))

            return steps.loop(count, one, kept)

        compiled = steps.compiled(block, donate_argnums=4)
        kept: Any = None  # of the steps before: each call writes into the last one's memory

        def ended(state: Any, data: Any, inputs: tuple[np.ndarray, ...], count: int) -> tuple[Any, np.ndarray]:
            nonlocal kept
            if kept is None:
                shapes = jax.eval_shape(step, state[0], data, *(part[0] for part in inputs))
                zeros = jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), shapes)
                kept = jax.device_put(zeros, steps.device)
            kept = jax.block_until_ready(compiled(state[0], data, inputs, count, kept))
            return state, nothing

        def run(plan: EpochPlan) -> None:
            whole = vars(steps)["_train_steps"]
            vars(steps)["_train_steps"] = ended
            try:
                train(plan)
            finally:
                vars(steps)["_train_steps"] = whole

        return run

    def data(params: Any, staged: Any, order: Array, shifts: Array, *rest: Array) -> tuple[Array, Array]:
        digits, labels = steps.batch_of(staged, order, shifts)
        return overlay(digits), labels

    def cut(part: str, stage: Callable[..., Array]) -> Cut:
        def forward(params: Any, staged: Any, order: Array, shifts: Array, weight: Array, *kept: Array) -> Array:
            images, labels = data(params, staged, order, shifts)
            return stage(steps.net(params), images, labels, *kept)

        def both(params: Any, *inputs: Any) -> dict[str, Array]:
            def output(some: dict[str, Array]) -> Array:
                return forward(params | some, *inputs)

            found, pull = jax.vjp(output, {name: params[name] for name in _read(output, params)})
            return pull(found)[0]

        return Cut(part, within(both), within(forward))

    return [
        Cut("other", within(lambda *rest: ())),
        Cut("data", within(data)),
        *(cut(part, stage) for part, stage in stages_of(steps.kind, steps.model).items()),
        Cut("loss", within(steps.training_gradients), within(steps.training_losses)),
        Cut("optimiser", train),
    ]


def _read(function: Callable[[Any], object], params: dict[str, Array]) -> list[str]:
    """The weights that a function reads. JAX would make zeros of the others' gradients, and the step write them."""
    traced = jax.make_jaxpr(function)(params).jaxpr
    used = {id(variable) for equation in traced.eqns for variable in equation.invars}
    return [name for name, variable in zip(sorted(params), traced.invars, strict=True) if id(variable) in used]


def trace(train: Callable[[], object], path: Path) -> None:
    """Runs `train` under JAX's profiler; `path`, which ends in .json.gz, opens in Perfetto (ui.perfetto.dev)."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            train()
        [written] = Path(folder).rglob("*.trace.json.gz")
        shutil.move(written, path)
