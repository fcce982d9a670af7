"""Names of implementations -> lazily imported classes. Nothing here imports a framework before `load`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

from harness.errors import UserError, nearest
from harness.spec import Impl

GROUP = "capsbench.impls"
"""The entry-point group by which a distribution registers its implementations: `name = "package.module:Class"`."""

ADAPTER = ("load", "forward", "loss_and_grads")
"""The methods that `capsbench parity` asks for; of a class that has no more, the levels of training are skipped."""

ORDINARY = "model:"
"""What the name of an implementation begins with that is an ordinary model: see `harness.parity.ordinary.source`."""

_JAX_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin")
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True)
class Entry:
    """How to find one implementation: its name in suites and tables, its class, and what it takes to import it."""

    name: str
    target: str  # "package.module:Class"
    packages: tuple[str, ...]  # import names that must be there
    install: str  # what to do if they are not
    devices: tuple[str, ...] = ("cpu", "gpu")

    @property
    def module(self) -> str:
        return self.target.partition(":")[0]

    @property
    def class_name(self) -> str:
        return self.target.partition(":")[2]

    @property
    def is_built_in(self) -> bool:
        return self.name in _BUILT_IN


_BUILT_IN = {
    entry.name: entry
    for entry in (
        Entry(
            "numpy", "impls.numpy:NumpyImpl", ("numpy", "array_api_compat"), "pip install capsbench",
            devices=("cpu", "gpu") if importlib.util.find_spec("cupy") else ("cpu",),
        ),
        Entry("torch", "impls.torch:TorchImpl", ("torch",), 'pip install "capsbench[torch]"'),
        Entry("tf", "impls.tf:TfImpl", ("tensorflow", "keras"), 'pip install "capsbench[tf]"'),
        Entry("jax", "impls.jax:JaxImpl", ("jax", "optax"), 'pip install "capsbench[jax]"'),
    )
}  # fmt: skip


def names() -> tuple[str, ...]:
    """The built-in implementations, then those that installed distributions register; no built-in name can be taken."""
    return (*_BUILT_IN, *sorted(set(entry_points(group=GROUP).names) - set(_BUILT_IN)))


def resolve(name: str) -> Entry:
    """The entry of `name`, which may also be "package.module:Class". Nothing is imported.

    Raises `UserError` for an unknown name, a malformed target, or a package that cannot be found.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    if name.startswith(ORDINARY):
        return Entry(name, "harness.parity.ordinary.adapter:Ordinary", (), "", devices=("cpu",))
    for point in entry_points(group=GROUP, name=name):
        return _registered(point)
    if ":" not in name:
        raise UserError(f'unknown implementation "{name}"{_nearest(name)} Or name a class: package.module:Class')
    if not _TARGET.fullmatch(name):
        raise UserError(f'"{name}" does not name an implementation: expected package.module:Class')
    top = name.partition(":")[0].partition(".")[0]
    if _find(top) is None:
        raise UserError(f'implementation "{name}": no package "{top}"; install it, or put its folder in PYTHONPATH')
    return Entry(name, name, (top,), f'install "{top}", or put its folder in PYTHONPATH')


def missing(entry: Entry) -> str | None:
    """What is not installed and how to install it, or None. Imports nothing."""
    absent = [package for package in entry.packages if _find(package) is None]
    if absent:
        return f"not installed: {', '.join(absent)}; {entry.install}"
    return None


def without_gpu(entry: Entry) -> str | None:
    """Why what is installed cannot compute on a GPU, or None if it can or nothing is known of it. Imports nothing."""
    if "gpu" not in entry.devices:
        return f"{entry.name} runs on the CPU only"
    match entry.name:
        case "torch" if re.search(r"^cuda\b[^=]*= *None", _source("torch", "version.py"), re.MULTILINE):
            rocm = re.search(r"^(hip|rocm)\b[^=]*= *['\"]", _source("torch", "version.py"), re.MULTILINE)
            return None if rocm else "the PyTorch installed here was built without CUDA"
        case "tf" if (
            "'is_cuda_build', False" in (info := _source("tensorflow", "python", "platform", "build_info.py"))
            and "'is_rocm_build', True" not in info
        ):
            return "the TensorFlow installed here was built without CUDA"
        case "jax" if not any(_find(plugin) for plugin in _JAX_PLUGINS):
            return "JAX is installed here without a CUDA plugin"
        case _:
            return None


def load(entry: Entry, *, adapter: bool = False) -> type[Impl]:
    """Imports the implementation's class; with `adapter`, one that may have no other methods than those of `ADAPTER`.

    Raises `UserError` if a package is missing, the import fails for any reason, or the class lacks a method of
    `harness.spec.Impl`; the cause is chained.
    """
    what = f'implementation "{entry.name}"'
    if reason := missing(entry):
        raise UserError(f"{what}: {reason}")
    try:
        module = importlib.import_module(entry.module)
    except (Exception, SystemExit) as error:  # a broken installation fails in any way it likes
        cause = str(error).strip().partition("\n")[0]
        raise UserError(f"{what}: importing {entry.module} failed: {type(error).__name__}: {cause}") from error
    found = getattr(module, entry.class_name, None)
    if not inspect.isclass(found):
        classes = [name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")]
        hint = nearest(entry.class_name, classes) if classes else "."
        raise UserError(f"{what}: {entry.module} has no class {entry.class_name}{hint}")
    wanted = [name for name, value in vars(Impl).items() if inspect.isfunction(value) and not name.startswith("_")]
    lacking = [name for name in wanted if not callable(getattr(found, name, None))]
    if adapter:
        lacking = [name for name in lacking if name in ADAPTER]
    if lacking:
        hint = "" if set(ADAPTER) & set(lacking) else "; as it is, it is an adapter: `capsbench parity` can check it"
        raise UserError(f"{what}: {entry.target} lacks {', '.join(lacking)}; harness.spec.Impl says what they do{hint}")
    return cast("type[Impl]", found)


@contextmanager
def importable(folder: Path) -> Generator[None]:
    """Modules in `folder` are found, after all that is installed, for the length of the `with` block."""
    importlib.invalidate_caches()  # the folder may have been looked into before the module was written
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def locate(module: str) -> ModuleSpec | None:
    """Where `module` would be imported from, without importing its parent packages; None if it cannot be found."""
    top, *rest = module.split(".")
    spec = _find(top)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        # By its last name alone: under its full one, a folder without __init__.py wants its parent imported.
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    return spec


def _nearest(name: str) -> str:
    """As `errors.nearest`; a framework's own name counts too: "tensorflow" and "keras" mean tf."""
    packages = {package: entry.name for entry in _BUILT_IN.values() for package in entry.packages}
    close = difflib.get_close_matches(name.lower(), packages, n=1)
    return nearest(packages[close[0]] if close else name, names())


def _source(package: str, *parts: str) -> str:
    """The text of a package's file; empty if there is none."""
    spec = _find(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder, *parts)).is_file():
            return path.read_text(errors="replace")
    return ""


def _find(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except (ImportError, ValueError):  # ValueError: in sys.modules without a spec
        return None


def _registered(point: EntryPoint) -> Entry:
    distribution = point.dist.name if point.dist else point.module
    top = point.module.partition(".")[0]
    return Entry(point.name, f"{point.module}:{point.attr}", (top,), f"pip install {distribution}")
