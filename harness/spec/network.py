"""What a framework tells of a network of its own, and does with it: the border to `impls`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np


class Parameter(NamedTuple):
    """One trainable tensor. `order` transposes it to the canonical layout of its `kind`.

    Kinds: "conv" (y, x, in, out), "dense" (in, out), "bias" of the parameter `of`, or "" for any other.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = ""
    order: tuple[int, ...] = ()
    of: str = ""


@dataclass(frozen=True)
class Step:
    """The result of one operation of a forward pass, the `index`-th of them."""

    index: int
    op: str
    array: np.ndarray


class Ran(NamedTuple):
    """A forward pass: outputs by their place in what the model returned ("0", "0.1", "digit"), the steps watched.

    Values are tensors of the framework; steps of a pass that was recorded as a whole are `Step`s.
    """

    outputs: list[tuple[str, Any]]
    kept: dict[int, Any]
    steps: list[Step]


class Network(Protocol):
    """A model of a framework, on the CPU and in one precision. Each framework's `ordinary` module has one."""

    channels_first: bool  # of its convolutions
    takes_lists: bool  # of several inputs
    is_compiled: bool  # with a loss, as Keras means it
    model: Any

    def parameters(self) -> list[Parameter]: ...

    def takes(self) -> tuple[int, int]:
        """How many tensors it needs, and how many it takes."""
        ...

    def values(self) -> dict[str, np.ndarray]: ...

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None: ...

    def run(
        self,
        arguments: Sequence[np.ndarray],
        *,
        as_list: bool = False,
        training: bool = False,
        record: bool = False,
        keep: Sequence[int] = (),
        replace: Mapping[int, np.ndarray] | None = None,
        then: Callable[[list[tuple[str, Any]]], Any] | None = None,
    ) -> Ran:
        """A forward pass; arguments that are floating-point come in the network's precision, others as int64.

        With `record`, every operation's result is a `Step`. Results of the operations in `keep` are kept as tensors.
        Those in `replace` are replaced, on the way, by the arrays given. `then` makes more of the outputs, as part of the pass.
        """
        ...

    def modules(self) -> dict[str, Any]:
        """Its layers by their names, itself included."""
        ...

    def apply(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """A function of the user's on tensors, such as a loss."""
        ...

    def masked(self, digit: Any, present: Any, flat: bool) -> Any:
        """Capsules (B, J, ...), all but those in `present` (B, J) zero; `flat`: (B, J * ...)."""
        ...

    def arranged(self, tensor: Any, shape: Sequence[int], order: Sequence[int]) -> Any:
        """Reshaped, then transposed."""
        ...

    def numpy(self, tensor: Any) -> np.ndarray: ...

    def read_weights(self, path: Path) -> dict[str, np.ndarray]:
        """A file of the framework's own. Raises what it likes for one that cannot be read."""
        ...

    def tensor(self, array: np.ndarray) -> Any: ...

    def differentiate(self, loss: Callable[[], Sequence[Any]]) -> tuple[list[float], dict[str, np.ndarray]]:
        """Values of what `loss` returns, and the gradient of the first for every parameter; none for those without."""
        ...

    def compiled_loss(self, outputs: Sequence[Any], targets: Sequence[Any]) -> Any:
        """Of a model that `is_compiled`, the loss that it was compiled with, of its outputs and the target of each."""
        ...

    def specified_loss(
        self, digit: Any, lengths: Any | None, reconstruction: Any | None, images: Any, present: Any
    ) -> list[Any]:
        """Total, margin and reconstruction (Eq. 4, section 4.1) of digit capsules (B, J, e), pixels (B, P), labels (B, J).

        Of the model's own lengths where it gives some.
        """
        ...
