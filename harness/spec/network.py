"""How a framework describes and runs one of its own networks: the border to `impls`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np


class Parameter(NamedTuple):
    """One trainable tensor. `order` transposes it to the canonical layout of its `kind`.

    Kinds: "conv" (y, x, in, out), "dense" (in, out), "bias" (of the parameter `of`), or "" for any other.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = ""
    order: tuple[int, ...] = ()
    of: str = ""


@dataclass(frozen=True)
class Step:
    """The result of the `index`-th operation of a forward pass."""

    index: int
    op: str
    array: np.ndarray


class Ran(NamedTuple):
    """A forward pass: outputs by their place in what the model returned ("0", "0.1", "digit"), and the watched steps.

    Values are tensors of the framework; a pass recorded as a whole has `Step`s.
    """

    outputs: list[tuple[str, Any]]
    kept: dict[int, Any]
    steps: list[Step]


class Network(Protocol):
    """A framework's model, on the CPU and in one precision. Each framework's `ordinary` module has such a class."""

    channels_first: bool  # in its convolutions
    takes_lists: bool  # several inputs come as a list
    is_compiled: bool  # with a loss, in Keras's sense
    model: Any

    def parameters(self) -> list[Parameter]: ...

    def takes(self) -> tuple[int, int]:
        """The number of tensors that it needs, and the number that it takes."""
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
        """A forward pass; floating-point arguments are in the network's precision, others int64.

        With `record`, every operation's result is a `Step`. Results of the operations in `keep` are kept as tensors.
        Those in `replace` are replaced by the given arrays during the pass. `then` adds outputs, as part of the pass.
        """
        ...

    def modules(self) -> dict[str, Any]:
        """Its layers by their names, itself included."""
        ...

    def apply(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Applies a user's function, such as a loss, to tensors."""
        ...

    def masked(self, digit: Any, present: Any, flat: bool) -> Any:
        """Capsules (B, J, ...), all but those in `present` (B, J) zero; `flat`: (B, J * ...)."""
        ...

    def arranged(self, tensor: Any, shape: Sequence[int], order: Sequence[int]) -> Any:
        """Reshaped, then transposed."""
        ...

    def numpy(self, tensor: Any) -> np.ndarray: ...

    def read_weights(self, path: Path) -> dict[str, np.ndarray]:
        """Reads a file in the framework's own format. May raise anything if it cannot be read."""
        ...

    def tensor(self, array: np.ndarray) -> Any: ...

    def differentiate(self, loss: Callable[[], Sequence[Any]]) -> tuple[list[float], dict[str, np.ndarray]]:
        """The values that `loss` returns, and the first one's gradient for every parameter that has one."""
        ...

    def compiled_loss(self, outputs: Sequence[Any], targets: Sequence[Any]) -> Any:
        """The loss that a model with `is_compiled` was compiled with, for its outputs and their targets."""
        ...

    def specified_loss(
        self, digit: Any, lengths: Any | None, reconstruction: Any | None, images: Any, present: Any
    ) -> list[Any]:
        """Total, margin and reconstruction loss (Eq. 4, section 4.1); capsules (B, J, e), pixels (B, P), labels (B, J).

        Uses the model's own lengths if it returns them.
        """
        ...
