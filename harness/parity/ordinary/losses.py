"""A model's own loss: where it is, and the meaning of its arguments by their names."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from harness import registry
from harness.errors import UserError, nearest
from harness.parity.ordinary.source import said

_METHODS = (
    "loss",
    "loss_fn",
    "loss_function",
    "criterion",
    "total_loss",
    "caps_loss",
    "calculate_loss",
    "get_loss",
    "calc_loss",
)
_MEANINGS: dict[str, tuple[str, ...]] = {
    "images": (
        "data", "images", "image", "imgs", "img", "x", "input", "inputs", "x_true", "original", "originals", "pixels",
        "input_images",
    ),
    "labels": ("target", "targets", "labels", "label", "y", "y_true", "t", "true", "one_hot", "t_c", "classes_true", "truth"),
    "reconstruction": (
        "reconstruction", "reconstructions", "recon", "recons", "x_recon", "reconst", "decoded", "decoder_output", "rec",
        "x_hat", "recon_x", "reconstructed", "decoder_out", "generated",
    ),
    "output": (
        "output", "outputs", "x", "v", "v_c", "v_j", "digit", "digits", "digit_caps", "capsules", "caps", "y_pred", "pred",
        "preds", "predictions", "lengths", "length", "classes", "probs", "logits", "inputs", "input", "scores", "y_hat",
        "class_probs", "caps_output", "digit_capsules",
    ),
}  # fmt: skip
_CONSTANTS = {
    "m_plus": 0.9, "m_pos": 0.9, "m_minus": 0.1, "m_neg": 0.1, "lambda_": 0.5, "lam": 0.5, "lmbda": 0.5, "loss_lambda": 0.5,
}  # fmt: skip
_MOST_TRIES = 64


@dataclass(frozen=True)
class LossFunction:
    """A function of tensors. `meanings` has the possible meanings of each argument."""

    name: str
    function: Callable[..., Any]
    meanings: dict[str, tuple[str, ...]]
    constants: dict[str, Any]

    @property
    def is_whole(self) -> bool:
        """Whether it takes a reconstruction."""
        return any("reconstruction" in each for each in self.meanings.values())

    def assignments(self, have: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        """Every way to assign the available values to its arguments, no meaning twice; the likeliest first."""
        names = list(self.meanings)
        found: list[dict[str, Any]] = []
        for meanings in itertools.product(*(self.meanings[name] for name in names)):
            if len(set(meanings)) < len(meanings) or any(not have.get(each) for each in meanings):
                continue
            for values in itertools.product(*(have[each] for each in meanings)):
                found.append(dict(zip(names, values, strict=True)))
        return found[:_MOST_TRIES]


def find_loss(
    model: Any,
    module: ModuleType,
    option: str | None,
    arguments: Mapping[str, Any],
    needs_whole: bool,
    load: Callable[[str], tuple[ModuleType, str]],
    is_network: Callable[[object], bool],
) -> tuple[LossFunction | None, str]:
    """The loss, or None and why there is none. `option` is `--loss`: a method, a name in the model's file, or file.py:name.

    Raises `UserError` if the requested one does not exist.
    """
    if option:
        return _asked(model, module, option, arguments, load), ""
    tried: list[str] = []
    methods = tuple(package for each in registry.ordinary().values() for package in each.methods)
    functions: list[tuple[str, Any]] = [(name, getattr(model, name, None)) for name in _METHODS]
    functions += [
        (name, value)
        for name, value in vars(module).items()
        if "loss" in name.lower()
        and callable(value)
        and not str(getattr(value, "__module__", "")).startswith((*registry.ordinary_packages(), "harness"))
    ]
    for name, function in functions:
        if (
            is_network(function)
            or not callable(function)
            or str(getattr(function, "__module__", "")).startswith(methods)
        ):
            continue
        try:
            found = _signature(name, function, {})
        except UserError as error:
            tried.append(str(error))
            continue
        if found.is_whole or not needs_whole:
            return found, ""
        tried.append(f"{name} takes no reconstruction")
    return None, "; ".join(tried)


def _asked(
    model: Any,
    module: ModuleType,
    option: str,
    arguments: Mapping[str, Any],
    load: Callable[[str], tuple[ModuleType, str]],
) -> LossFunction:
    where, name = module, option
    if ":" in option:
        where, name = load(option)
    elif callable(getattr(model, option, None)):
        return _signature(option, getattr(model, option), arguments)
    if not callable(found := getattr(where, name, None)):
        functions = [key for key, value in vars(where).items() if callable(value) and not key.startswith("_")]
        raise UserError(f'--loss: neither the model nor its file has a function "{name}"{nearest(name, functions)}')
    return _signature(name, found, arguments)


def _signature(name: str, function: Any, arguments: Mapping[str, Any]) -> LossFunction:
    """The loss function with its arguments' meanings. Raises `UserError` for an unknown argument."""
    constants = dict(arguments)
    if inspect.isclass(function):
        given = {key: value for key, value in constants.items() if key in inspect.signature(function).parameters}
        constants = {key: value for key, value in constants.items() if key not in given}
        for key, parameter in inspect.signature(function).parameters.items():
            if key in _CONSTANTS and parameter.default is parameter.empty:
                given.setdefault(key, _CONSTANTS[key])
        try:
            function = function(**given)
        except Exception as error:
            raise UserError(f"{name} raised {said(error)}: pass --loss-args") from error
    call = getattr(function, "forward", None) or getattr(function, "call", None) or function
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} has no signature that can be read") from error
    meanings: dict[str, tuple[str, ...]] = {}
    for key, parameter in parameters.items():
        if key in constants or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        possible = tuple(meaning for meaning, names in _MEANINGS.items() if key.lower() in names)
        if possible:
            meanings[key] = possible
        elif parameter.default is not parameter.empty:
            continue
        elif key in _CONSTANTS:
            constants[key] = _CONSTANTS[key]
        elif "lam" in key.lower() or "weight" in key.lower() or "alpha" in key.lower() or "scale" in key.lower():
            raise UserError(f"{name} needs {key}, a number: pass --loss {name} --loss-args '{{\"{key}\": 0.0005}}'")
        else:
            meanings[key] = ("output", "labels", "images", "reconstruction")
    return LossFunction(name, function, meanings, constants)
