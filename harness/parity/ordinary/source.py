"""From the command line to a model: a file or module, a class, factory or instance, and its arguments."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec as ImportSpec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from harness import registry
from harness.errors import UserError, nearest
from harness.registry import ORDINARY

VARIABLE = "CAPSBENCH_MODEL"
"""The environment variable that passes a `Source` to the process in which an implementation climbs."""

_KNOWN: dict[str, tuple[str, ...]] = {
    "routing": (
        "routing", "routings", "num_routing", "num_routings", "routing_iterations", "num_routing_iterations",
        "n_routing", "n_iterations", "num_iterations", "iterations", "n_iter", "num_iter", "r",
    ),
    "classes": (
        "classes", "num_classes", "n_classes", "n_class", "num_class", "nb_classes", "class_num", "num_digit_caps",
        "num_class_caps", "out_caps", "n_digits",
    ),
    "in_channels": ("in_channels", "input_channels", "image_channels", "img_channels", "channels_in", "n_channels"),
    "image": ("input_size", "input_shape", "img_shape", "image_shape", "in_shape", "shape", "image_dim"),
    "side": ("image_size", "img_size", "input_width", "input_height", "width", "height", "image_side", "size"),
    "conv_channels": ("channels", "conv_channels", "num_filters", "conv1_channels", "out_channels", "filters"),
    "primary_types": (
        "primary_types", "types", "num_types", "num_primary_types", "num_primary", "primary_channels", "num_primary_caps",
    ),
    "primary_dim": ("primary_dim", "dim", "dim_primary", "primary_capsule_dim", "primary_caps_dim", "in_dim"),
    "digit_dim": ("digit_dim", "out_dim", "dim_digit", "digit_caps_dim", "class_dim", "output_dim"),
    "kernel": ("kernel", "kernel_size"),
    "decoder": ("decoder", "use_decoder", "reconstruction", "with_reconstruction"),
    "decoder_units": ("decoder_units", "decoder_sizes", "hidden_units"),
    "device": ("device",),
}  # fmt: skip
"""Possible names of a model's arguments, and the values that they get."""
_ROUTING_ATTRIBUTES = _KNOWN["routing"][:-1]


@dataclass(frozen=True)
class Source:
    """The values of `--model` and related options; `found` is the result of an inspection."""

    target: str  # path.py:name or package.module:name
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    loss: str | None = None
    loss_arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    weights: dict[str, str] = field(default_factory=dict[str, str])  # canonical name -> the model's own
    sizes: dict[str, Any] = field(default_factory=dict[str, Any])  # keys of `ModelSpec` that the user gave
    cwd: str = "."

    def __post_init__(self) -> None:
        """Turns JSON's lists into tuples."""
        for key, value in self.sizes.items():
            self.sizes[key] = tuple(cast("list[int]", value)) if isinstance(value, list) else value

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> Source:
        """Raises `UserError` outside of `capsbench parity --model`."""
        if VARIABLE not in os.environ:
            raise UserError("an ordinary model can be checked, not run: capsbench parity --model FILE.py:NAME")
        return cls(**json.loads(os.environ[VARIABLE]))

    @property
    def name(self) -> str:
        """The name in reports: the file without its folder."""
        file, _, attribute = self.target.rpartition(":")
        return f"{ORDINARY}{Path(file).name}:{attribute}"


def split_target(target: str, option: str = "--model") -> tuple[str, str]:
    """ "net.py:CapsNet" -> ("net.py", "CapsNet"). Raises `UserError` for any other form."""
    where, colon, attribute = target.rpartition(":")
    if not colon or not where or not attribute.replace(".", "").isidentifier():
        raise UserError(
            f'{option}: "{target}" names no model; expected file.py:name or package.module:name, where name is a class, '
            "a function without arguments that returns a model, or a model"
        )
    return where, attribute


def is_model_name(text: str) -> bool:
    """Whether `text` has the form of a model: something, a colon and a Python name."""
    where, colon, attribute = text.rpartition(":")
    return bool(colon and where) and attribute.isidentifier()


def load_file(where: str, cwd: Path, known: Callable[[], Mapping[str, Any]], option: str = "--model") -> ModuleType:
    """The module of a file or a dotted name. `known` has names that scripts forget to import.

    Imported packages that are not installed get stand-ins, whose functions raise when called. Raises `UserError` for a
    file that does not exist, or that raises.
    """
    path = (cwd / where).expanduser()
    is_path = where.endswith(".py") or "/" in where or path.is_file()
    if is_path and not path.is_file():
        siblings = [each.name for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=1)
        hint = (
            f'; did you mean "{path.with_name(close[0]).name}"?'
            if close
            else "; files are found from the current folder"
        )
        raise UserError(f'{option}: no file "{where}"{hint}')
    folder = str(path.parent.resolve() if is_path else cwd)
    if folder not in sys.path:
        sys.path.append(folder)
    absent = _Absent()
    sys.meta_path.append(absent)
    try:
        if not is_path:
            return importlib.import_module(where)
        name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else f"model_of_{abs(hash(path))}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        for key, value in known().items():
            setattr(module, key, value)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f'{option}: importing "{where}" raised {said(error)}') from error
    finally:
        sys.meta_path.remove(absent)
        for package in absent.stood_in:
            print(f'"{package}" is not installed: stood in for, since the network may not need it', file=sys.stderr)


def said(error: BaseException) -> str:
    """An exception in one line: its type, its message, and where in the user's file it was raised."""
    text = " ".join(str(error).split())[:300]
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not _is_ours_or_installed(file):
            place = f" (line {trace.tb_lineno} of {Path(file).name})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {text}".removesuffix(": ") + place


def _is_ours_or_installed(file: str) -> bool:
    root = Path(__file__).resolve().parents[3]
    ours = (str(root / "harness"), str(root / "impls"), sys.prefix, sys.base_prefix, "<")
    return file.startswith(ours) or "site-packages" in file


def attribute(module: ModuleType, name: str, where: str, option: str = "--model") -> Any:
    """The module's attribute `name`. If there is none, raises `UserError` with the nearest names."""
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            things = cast("dict[str, Any]", vars(found))
            own = [key for key, value in things.items() if getattr(value, "__module__", None) == module.__name__]
            raise UserError(f'{option}: "{where}" has no "{part}"{nearest(part, own) if own else "."}')
        found = getattr(found, part)
    return found


def construct(found: Any, sizes: Mapping[str, Any], own: Mapping[str, Any], name: str, channels_first: bool) -> Any:
    """An instance of a class or from a factory, with the arguments `own` and values from `sizes` for the others.

    Defaults are kept, except for arguments in `sizes["asked"]`. Raises `UserError` if a required argument is unknown,
    or if the constructor raises.
    """
    if not callable(found) or (not inspect.isclass(found) and not inspect.isroutine(found)):
        return found
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(found).parameters
    except (TypeError, ValueError):
        parameters = dict[str, inspect.Parameter]()
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    if unknown := [key for key in own if key not in parameters and not takes_any]:
        raise UserError(f'--model-args: {name} takes no "{unknown[0]}"{nearest(unknown[0], parameters)}')
    given, missing = dict(own), list[str]()
    for key, parameter in parameters.items():
        if key in given or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        is_needed = parameter.default is parameter.empty
        if is_needed and key == "batch_size" and not channels_first:  # of a model's input: any
            given[key] = None
            continue
        value = _known(key, sizes, channels_first)
        if value is not None and (is_needed or meaning(key) in sizes.get("asked", ())):
            given[key] = value
        elif is_needed:
            missing.append(key)
    if missing:
        example = json.dumps(dict.fromkeys(missing, 1))
        raise UserError(
            f"--model: {name} needs {', '.join(missing)}, of which nothing is known: pass --model-args '{example}', with "
            "values of your own, or name a function that takes no arguments"
        )
    try:
        return found(**given)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        told = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise UserError(f"--model: {name}({told}) raised {said(error)}") from error


def meaning(argument: str) -> str | None:
    """The meaning of an argument of that name: a key of `_KNOWN`."""
    return next((key for key, names in _KNOWN.items() if argument.lower() in names), None)


def takes_routing(found: Any) -> bool:
    """Whether it can be built with another number of routing iterations."""
    try:
        return any(meaning(key) == "routing" for key in inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return False


def _known(argument: str, sizes: Mapping[str, Any], channels_first: bool) -> Any:
    what = meaning(argument)
    height, width, channels = sizes["image"]
    if what == "image":
        return (channels, height, width) if channels_first else (height, width, channels)
    if what == "in_channels":
        return channels
    if what == "side":
        return height
    if what == "device":
        return "cpu"
    return sizes.get(what) if what else None


def routing_attributes(modules: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """Objects with an attribute for the number of routing iterations, which can be changed after construction."""
    return [
        (module, name)
        for module in modules.values()
        for name in _ROUTING_ATTRIBUTES
        if type(getattr(module, name, None)) is int
    ]


class _Absent(MetaPathFinder, Loader):
    """Placed after all finders: packages that are not installed become modules whose names raise when called."""

    def __init__(self) -> None:
        self.stood_in: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ImportSpec | None:
        top = fullname.partition(".")[0]
        # Only imports of the user's own file: libraries also probe for optional packages.
        importers = (frame.f_code.co_filename for frame, _ in traceback.walk_stack(None))
        file = next((each for each in importers if each != __file__ and "importlib" not in each), "")
        if _is_ours_or_installed(file) or top in registry.ordinary_packages():
            return None
        if top not in self.stood_in:
            self.stood_in.append(top)
        return ImportSpec(fullname, self, is_package=True)

    def create_module(self, spec: ImportSpec) -> ModuleType:
        return _Stand(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Stand(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        package = self.__name__

        def refuse(*_: Any, **__: Any) -> Any:
            raise ImportError(f"{package.partition('.')[0]} is not installed, and {package}.{name} is needed")

        return type(name, (), {"__init__": refuse, "__doc__": f"Stands in for {package}.{name}"})
