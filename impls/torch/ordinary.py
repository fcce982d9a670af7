"""An ordinary `torch.nn.Module` for `harness.parity.ordinary`: its parameters, and its forward pass step by step."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.errors import UserError
from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, SQUASH_EPSILON
from harness.spec.network import Parameter, Ran, Step

LARGEST = 1 << 26  # elements of a step that is still recorded


class _Here(TorchFunctionMode):
    """Requests for a GPU stay on the CPU, and requests for float32 get the precision of the computation."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name == "cuda" and args and isinstance(args[0], Tensor):
            return args[0]
        if name == "float" and args and isinstance(args[0], Tensor):
            return args[0].to(self.dtype)
        args = tuple(self._moved(each, name == "to") for each in args)
        kwargs = {key: self._moved(value, key == "device") for key, value in kwargs.items()}
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if name != "view" or "Use .reshape" not in str(error):
                raise
            return args[0].reshape(*args[1:])  # strides were others in the PyTorch that it was written for

    def _moved(self, value: Any, places: bool) -> Any:
        if value is torch.float32:
            return self.dtype
        if isinstance(value, torch.device) and value.type != "meta":
            return torch.device("cpu")
        return "cpu" if places and isinstance(value, str) and value.startswith("cuda") else value


class _Watch(TorchFunctionMode):
    """Counts the operations whose results are tensors; records, keeps or replaces some."""

    def __init__(self, record: bool, keep: Sequence[int], replace: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.record, self.keep, self.replace = record, set(keep), replace
        self.count = 0
        self.kept: dict[int, Tensor] = {}
        self.steps: list[Step] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, (list, tuple)) and all(isinstance(each, Tensor) for each in result):
            return type(result)(self._seen(func, each) for each in result) if type(result) in (list, tuple) else result
        return self._seen(func, result) if isinstance(result, Tensor) else result

    def _seen(self, func: Any, result: Tensor) -> Tensor:
        index = self.count
        self.count += 1
        if (other := self.replace.get(index)) is not None:
            with torch.no_grad():  # in place too: an operation may have been one
                result = other.reshape(result.shape)
        if index in self.keep:
            self.kept[index] = result
        if self.record and result.numel() <= LARGEST:
            array = result.detach().clone().numpy() if result.dtype != torch.bool else np.zeros(0)
            self.steps.append(Step(index, str(getattr(func, "__name__", func)), array))
        return result


def start(precision: str, threads: int) -> Any:
    """Sets the precision before the model's file is imported; returns a context in which to construct the model."""
    dtype = torch.float64 if precision == "fp64" else torch.float32
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    torch.sqrt(torch.ones(1))
    if not torch.cuda.is_available():  # a network that moves itself to a GPU is none that needs one
        nn.Module.cuda = lambda self, device=None: self  # type: ignore[method-assign]
    return _Here(dtype)


def names() -> dict[str, Any]:
    """Names that scripts often import only under `if __name__ == "__main__"`, though their networks use them."""
    return {"Variable": torch.autograd.Variable, "torch": torch, "nn": nn, "F": F}


EXPECTED = "a torch.nn.Module"


def chosen(made: object) -> object:
    """The first model among the objects that a factory returned."""
    return next((each for each in made if isinstance(each, nn.Module)), made) if isinstance(made, tuple) else made


def is_network(found: object) -> bool:
    """Whether a class, constructed without arguments, has weights, unlike a loss."""
    try:
        return isinstance(found, type) and issubclass(found, nn.Module) and any(True for _ in found().parameters())
    except Exception:
        return False


def is_model(found: object) -> bool:
    return isinstance(found, nn.Module)


class TorchNetwork:
    """See `harness.spec.network.Network`."""

    channels_first, takes_lists, is_compiled = True, False, False

    def __init__(self, model: nn.Module, precision: str) -> None:
        for inner in ("module", "_orig_mod"):  # DataParallel, torch.compile
            wrapped = getattr(model, inner, None)
            if type(model).__name__ in ("DataParallel", "DistributedDataParallel", "OptimizedModule") and wrapped:
                model = wrapped
        if isinstance(model, torch.jit.ScriptModule):
            raise UserError(
                "--model: it is TorchScript, whose operations and layers cannot be seen; name the class or function that it "
                "was made from"
            )
        self.dtype = torch.float64 if precision == "fp64" else torch.float32
        self.model = model.to("cpu").to(self.dtype)
        self.here = _Here(self.dtype)
        self._differentiates = False

    def takes(self) -> tuple[int, int]:
        places = [
            each
            for each in inspect.signature(self.model.forward).parameters.values()
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
        return max(1, sum(each.default is each.empty for each in places)), len(places)

    def parameters(self) -> list[Parameter]:
        found: list[Parameter] = []
        for prefix, module in self.model.named_modules():
            for own, tensor in module.named_parameters(recurse=False):
                name, shape = f"{prefix}.{own}" if prefix else own, tuple(tensor.shape)
                if own == "weight" and isinstance(module, nn.Conv2d):
                    found.append(Parameter(name, shape, "conv", (2, 3, 1, 0)))
                elif own == "weight" and isinstance(module, nn.Linear):
                    found.append(Parameter(name, shape, "dense", (1, 0)))
                elif own == "bias" and isinstance(module, (nn.Conv2d, nn.Linear)):
                    found.append(Parameter(name, shape, "bias", (), f"{name.removesuffix('bias')}weight"))
                else:
                    found.append(Parameter(name, shape))
        return found

    def values(self) -> dict[str, np.ndarray]:
        return {name: tensor.detach().clone().numpy() for name, tensor in self.model.named_parameters()}

    @torch.no_grad()
    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        own = dict(self.model.named_parameters())
        for name, array in arrays.items():
            own[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))

    def read_weights(self, path: Path) -> dict[str, np.ndarray]:
        """Reads a state_dict, or an object that contains one. Raises whatever `torch.load` raises."""
        if path.suffix not in (".pt", ".pth"):
            raise ValueError("expected .pt, .pth, .safetensors or .npz for a PyTorch model")
        found = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model_state_dict", "model"):
            found = found.get(key, found)
        return {name.removeprefix("module."): tensor.numpy() for name, tensor in found.items()}

    def tensor(self, array: np.ndarray) -> Tensor:
        # A copy: with one channel, channels last counts as contiguous, and convolutions would propagate its strides.
        made = torch.from_numpy(np.array(array, order="C"))
        return made.to(self.dtype) if made.is_floating_point() else made.long()

    def numpy(self, tensor: Any) -> np.ndarray:
        return tensor.detach().numpy()

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
        self.model.train(training)
        inputs = [self.tensor(array) for array in arguments]
        watch = _Watch(record, keep, {index: self.tensor(array) for index, array in (replace or {}).items()})
        with torch.set_grad_enabled(self._differentiates), self.here, watch:
            returned = self.model(inputs) if as_list else self.model(*inputs)
            outputs = list(_flat(returned))
            if then:
                outputs += list(_flat(then(outputs), "decoder"))
        return Ran(outputs, watch.kept, watch.steps)

    def modules(self) -> dict[str, Any]:
        return dict(self.model.named_modules())

    def masked(self, digit: Tensor, present: Tensor, flat: bool) -> Tensor:
        """Capsules (B, J, ...), all but those in `present` (B, J) zero."""
        made = digit * present.reshape(*present.shape, *([1] * (digit.ndim - 2)))
        return made.flatten(1) if flat else made

    def arranged(self, tensor: Tensor, shape: Sequence[int], order: Sequence[int]) -> Tensor:
        return tensor.reshape(list(shape)).permute(list(order))

    def apply(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Applies a user's function, such as a loss, to tensors."""
        with self.here:
            return function(*arguments, **named)

    def differentiate(self, loss: Callable[[], Sequence[Any]]) -> tuple[list[float], dict[str, np.ndarray]]:
        own = dict(self.model.named_parameters())
        for tensor in own.values():
            tensor.requires_grad_()
        self._differentiates = True
        try:
            values = loss()
            if not values[0].requires_grad:
                raise ValueError(
                    "no gradient flows through its forward pass (torch.no_grad, .detach() or .data in it?)"
                )
            found_grads = torch.autograd.grad(values[0], list(own.values()), allow_unused=True)
            grads = cast("Sequence[Tensor | None]", found_grads)
        finally:
            self._differentiates = False
        found = {name: grad.numpy() for name, grad in zip(own, grads, strict=True) if grad is not None}
        return [float(value.detach()) for value in values], found

    def compiled_loss(self, outputs: Sequence[Any], targets: Sequence[Any]) -> Any:
        raise NotImplementedError("PyTorch's modules have no loss of their own")

    def specified_loss(
        self, digit: Tensor, lengths: Tensor | None, reconstruction: Tensor | None, images: Tensor, present: Tensor
    ) -> list[Any]:
        own = torch.sqrt((digit * digit).sum(-1) + SQUASH_EPSILON)
        length = own if lengths is None or not lengths.requires_grad else lengths.reshape(own.shape)
        missed, imagined = F.relu(MARGIN_PLUS - length) ** 2, F.relu(length - MARGIN_MINUS) ** 2
        margin = (present * missed + MARGIN_LAMBDA * (1 - present) * imagined).sum(1).mean()
        squares = torch.zeros((), dtype=self.dtype)
        if reconstruction is not None:
            squares = ((reconstruction.flatten(1) - images.flatten(1)) ** 2).sum(1).mean()
        return [margin + RECONSTRUCTION_WEIGHT * squares, margin, squares]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors in a model's result: tuples, lists, dictionaries and data classes, at any depth."""
    if isinstance(value, Tensor):
        yield name or "0", value
        return
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = zip(getattr(value, "_fields", itertools.count()), value, strict=False)
    elif hasattr(value, "__dataclass_fields__"):
        parts = vars(value).items()
    else:
        return
    for key, part in parts:
        yield from _flat(part, f"{name}.{key}" if name else str(key))


network = TorchNetwork
