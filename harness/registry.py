"""Implementations by name: what is known of each before its import, and its class. The only place that names frameworks.

Nothing here imports a framework or NumPy before `load`: a worker is pinned to its cores first.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import platform
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness import modules
from harness.errors import UserError, nearest
from harness.frameworks import Framework, framework
from harness.own_file import is_file_name, target_of
from harness.plugins import registered

if TYPE_CHECKING:
    from harness.spec import Impl

GROUP = "capsbench.impls"
"""The entry-point group by which a distribution registers its implementations: `name = "package.module:Class"`."""

ADAPTER = ("load", "forward", "loss_and_grads")
"""The methods that `capsbench parity` needs; for a class with only these, the training levels are skipped."""

ORDINARY = "model:"
"""The prefix of an implementation's name if it is an ordinary model: see `harness.parity.ordinary.source`."""

SPECIFICATION = "numpy"
"""The implementation that all others are compared with; it is not meant for training."""

_LABELLED = re.compile(r"(.+)@([A-Za-z0-9][A-Za-z0-9._+-]{0,31})")
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True)
class Ordinary:
    """A framework whose models `capsbench parity --model` compares, using `ordinary` beside its implementation."""

    signs: tuple[str, ...]  # a file that imports one of them uses this framework; the first must be installed
    channels_first: bool  # images are (C, H, W)
    weight_files: tuple[str, ...]  # suffixes of its weight files
    methods: tuple[str, ...] = ()  # packages whose functions are methods of every model, not a model's own loss


@dataclass(frozen=True)
class Entry:
    """How to find one implementation, and what is known of it before it is imported.

    A registered implementation, or one named as package.module:Class, gives the same facts as constants of its `device.py`:
    see `harness.frameworks.FACTS`.
    """

    name: str  # in suites and tables
    target: str  # "package.module:Class"
    packages: tuple[str, ...]  # required import names; the first is the library that it computes with
    install: str  # what to do if they are missing
    devices: tuple[str, ...] = ("cpu", "gpu")
    distributions: tuple[str, ...] = ()  # those whose versions can change a result; empty: those of all frameworks
    short_name: str | None = None  # for narrow places; default: the name, or the class's
    title: str | None = None  # in sentences; default: the name
    color: str | None = None  # in charts, as #rrggbb; default: one of a few, chosen by name
    slow_start: int = 0  # implementations with larger values start first
    out_of_memory: tuple[str, ...] = ()  # exceptions that mean it, in addition to those whose text says so
    variables: tuple[str, ...] = ()  # beginnings of environment variables that change its results or times
    any_precision: bool = False  # rounds operands itself, whatever the hardware
    ordinary: Ordinary | None = None
    problem: str | None = None  # why its device.py cannot be used
    label: str | None = None  # what follows the @ of its name, as in torch@2.12: which environment it is run in

    @property
    def base(self) -> str:
        """Its name without the label."""
        return self.name if self.label is None else self.name.removesuffix(f"@{self.label}")

    @property
    def module(self) -> str:
        return self.target.partition(":")[0]

    @property
    def class_name(self) -> str:
        return self.target.partition(":")[2]

    @property
    def library(self) -> str:
        """Its name in tables of rates."""
        return self.packages[0] if self.packages else self.name

    @property
    def is_built_in(self) -> bool:
        return self.base in _BUILT_IN


# The colours are distinct for colour-blind eyes too.
_BUILT_IN = {
    entry.name: entry
    for entry in (
        Entry(
            SPECIFICATION, "impls.numpy:NumpyImpl", ("numpy", "array_api_compat"), "pip install capsbench",
            devices=("cpu", "gpu") if importlib.util.find_spec("cupy") else ("cpu",),
            distributions=("numpy",), title="NumPy", color="#7F7F7F", any_precision=True,
        ),
        Entry(
            "torch", "impls.torch:TorchImpl", ("torch",), 'pip install "capsbench[torch]"',
            distributions=("torch",), title="PyTorch", color="#D55E00",
            variables=("TORCH_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "PYTORCH_", "ATEN_", "TRITON_", "THP_MEM_"),
            ordinary=Ordinary(("torch", "torchvision"), channels_first=True, weight_files=(".pt", ".pth")),
        ),
        Entry(
            "tf", "impls.tf:TfImpl", ("tensorflow", "keras"), 'pip install "capsbench[tf]"',
            distributions=("tensorflow", "tensorflow-cpu", "keras"), title="TensorFlow", color="#009E73",
            variables=("TF_", "TF2_", "KERAS_", "AUTOGRAPH_"),
            slow_start=1,  # it is slow to import
            ordinary=Ordinary(
                ("keras", "tensorflow", "tf_keras"), channels_first=False, weight_files=(".h5", ".keras"),
                methods=("keras", "tensorflow"),
            ),
        ),
        Entry(
            "jax", "impls.jax:JaxImpl", ("jax", "optax"), 'pip install "capsbench[jax]"',
            # JAX does not pin its GPU plugins, so their versions count too.
            distributions=("jax", "jaxlib", "optax", "jax-cuda12-plugin", "jax-cuda13-plugin"), title="JAX", color="#0072B2",
            variables=("XLA_", "JAX_"),
            slow_start=2,  # it compiles every operation each time
        ),
    )
}  # fmt: skip
_FORMATS = {
    entry.name: entry
    for entry in (
        Entry("onnx", "impls.onnx:", ("onnx", "onnxruntime"), 'pip install "capsbench[onnx]"', devices=("cpu",)),
    )
}
"""File formats of no implementation here that weights can be exported to; only `exporting` knows them."""
NEEDS = (
    "numpy>=2", "autograd>=1.8", "array-api-compat>=1.12", "pyyaml>=6", "pydantic>=2.10", "rich>=13.9", "safetensors>=0.5",
    "jaxtyping>=0.3", "scikit-learn>=1.5", "scipy>=1.14", "filelock>=3.16", "platformdirs>=4.3", "requests>=2.32", "pillow>=12",
)  # fmt: skip
"""What capsbench itself needs in every Python that it uses: its dependencies in pyproject.toml."""
_IS_PC = sys.platform == "linux" and platform.machine() == "x86_64"
_REQUIREMENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "torch": {"cpu": ("torch>=2.9",), "gpu": ("torch>=2.9",)},
    "tf": {
        "cpu": ("tensorflow-cpu>=2.20" if _IS_PC else "tensorflow>=2.20",), "gpu": ("tensorflow[and-cuda]>=2.20",),
    },
    "jax": {"cpu": ("jax>=0.8", "optax>=0.2.6"), "gpu": ("jax[cuda13]>=0.8", "optax>=0.2.6")},
}  # fmt: skip
"""What to install for a framework, as the extras in pyproject.toml say; the first is what its version is of."""
_INSTALLERS = {"torch": {"UV_TORCH_BACKEND": "cpu"}}
"""Variables of installers without which the build for the CPU is one for GPUs too, of gigabytes."""
BUILT_IN = tuple(_BUILT_IN)
FRAMEWORKS = tuple(name for name in BUILT_IN if name != SPECIFICATION)
"""The built-in implementations for training; texts list them with `", ".join`."""


def names() -> tuple[str, ...]:
    """The built-in implementations, then those that installed distributions register; built-in names cannot be overridden."""
    return (*_BUILT_IN, *sorted({point.name for point in registered(GROUP)} - set(_BUILT_IN)))


def resolve(name: str) -> Entry:
    """The entry of `name`, which may also be "package.module:Class" or "some-file.py:Class", and may end in "@label".

    A label tells contestants apart that are the same implementation in several environments (`harness.environments`).
    Nothing is imported but its `device.py`. Raises `UserError` for an unknown name, a malformed target, or a package or
    file that cannot be found.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    if name.startswith(ORDINARY):
        return Entry(name, "harness.parity.ordinary.adapter:Ordinary", (), "", devices=("cpu",))
    for point in (each for each in registered(GROUP) if each.name == name):
        return _registered(point)
    if labelled := _LABELLED.fullmatch(name):
        return replace(resolve(labelled[1]), name=name, label=labelled[2])
    if is_file_name(name):
        target = target_of(name, modules.locate)
        return _with_facts(Entry(name, target, (target.partition(":")[0],), f"keep {name.rpartition(':')[0]} there"))
    if ":" not in name:
        raise UserError(
            f'unknown implementation "{name}"{_nearest(name)} Or name a class: file.py:Class or package.module:Class'
        )
    if not _TARGET.fullmatch(name):
        raise UserError(f'"{name}" does not name an implementation: expected package.module:Class or file.py:Class')
    top = name.partition(":")[0].partition(".")[0]
    if modules.find(top) is None:
        raise UserError(f'implementation "{name}": no package "{top}"; install it, or put its folder in PYTHONPATH')
    return _with_facts(Entry(name, name, (top,), f'install "{top}", or put its folder in PYTHONPATH'))


def known(name: str) -> Entry | None:
    """As `resolve`, for what may not be installed here: None if nothing is known of it."""
    try:
        return resolve(name)
    except UserError:
        return None


def missing(entry: Entry) -> str | None:
    """What is not installed and how to install it, or what is wrong with its `device.py`; None if nothing is missing."""
    found = ((package, modules.find(package)) for package in entry.packages)
    absent = [
        package for package, spec in found if spec is None or (entry.is_built_in and modules.is_lying_about(spec))
    ]
    if absent:
        return f"not installed: {', '.join(absent)}; {entry.install}"
    return entry.problem


def without_gpu(entry: Entry) -> str | None:
    """Why the installed version cannot use a GPU, or None if it can or is unknown. Imports nothing."""
    if "gpu" not in entry.devices:
        return f"{entry.name} runs on the CPU only"
    return framework_of(entry).without_gpu()


def framework_of(entry: Entry) -> Framework:
    """The content of the `device.py` beside the implementation. Imports no framework. Raises `UserError` if it is broken."""
    return framework(entry.name, _device_file(entry))


def environment(name: str, threads: int, precision: str, gpu: bool) -> dict[str, str | None]:
    """The variables from `Device.environment` for a worker of implementation `name`, for all frameworks it may import.

    Raises `UserError` if a plug-in fails to give its variables.
    """
    return _variables(name, lambda framework: framework.environment(threads, precision, gpu))


def keep_compiled(name: str, folder: str) -> dict[str, str | None]:
    """The variables from `Device.keep_compiled`, for all frameworks that implementation `name` may import.

    Raises `UserError` if a plug-in fails to give its variables.
    """
    return _variables(name, lambda framework: framework.keep_compiled(folder))


def _variables(name: str, asked: Callable[[Framework], dict[str, str | None]]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    own = known(name)
    for entry in (*_BUILT_IN.values(), *([own] if own and not own.is_built_in else ())):
        found |= asked(framework_of(entry))
    return found


def distributions(names: Iterable[str] = ()) -> tuple[str, ...]:
    """Distributions whose versions can change a result: of the built-in implementations, then of known ones in `names`."""
    more = [entry for name in names if (entry := known(name))]
    return tuple(dict.fromkeys(dist for entry in (*_BUILT_IN.values(), *more) for dist in entry.distributions))


def used_by(entry: Entry) -> tuple[str, ...]:
    """The distributions whose versions can change its results; for one that does not say, of all frameworks."""
    return tuple(dict.fromkeys((*(entry.distributions or distributions()), *_BUILT_IN[SPECIFICATION].distributions)))


def requirements(name: str, version: str | None = None, *, gpu: bool = False) -> tuple[str, ...]:
    """What pip is to install for a built-in framework, of a `version` such as 2.12 if one is asked for.

    Raises `UserError` for a version that is too old to run here.
    """
    first, *more = _REQUIREMENTS[name]["gpu" if gpu else "cpu"]
    library, _, least = first.partition(">=")
    if version is None:
        return first, *more
    if [int(part) for part in version.split(".")] < [int(part) for part in least.split(".")][: version.count(".") + 1]:
        raise UserError(f"{name}@{version}: capsbench needs {library} {least} or newer")
    return f"{library}=={version}.*", *more


def installer_variables(name: str, *, gpu: bool) -> dict[str, str]:
    """Environment variables for what installs a built-in framework."""
    return {} if gpu else _INSTALLERS.get(name, {})


def variables() -> tuple[str, ...]:
    """The beginnings of the environment variables that change results or times of any implementation here."""
    entries = (entry for name in names() if (entry := known(name)))
    return tuple(dict.fromkeys(beginning for entry in entries for beginning in entry.variables))


def exporter(entry: Entry) -> str | None:
    """The module that writes weights in the framework's own formats, `export` beside the implementation; None without one."""
    package = _package(entry)
    name = f"{package}.export" if package else ""
    return name if name and modules.locate(name) else None


def exporting(name: str) -> Entry:
    """The file format or implementation of that name, for `exporter`. Raises `UserError` as `resolve` does."""
    return _FORMATS.get(name) or resolve(name)


def exporters() -> tuple[str, ...]:
    """The names of the implementations that have an exporter, then the other file formats."""
    return (*(name for name in names() if (entry := known(name)) and exporter(entry)), *_FORMATS)


def ordinary() -> dict[str, Ordinary]:
    """The frameworks whose models can be compared, by the name of the implementation."""
    return {entry.name: entry.ordinary for entry in _BUILT_IN.values() if entry.ordinary}


def ordinary_packages() -> tuple[str, ...]:
    """The packages of these frameworks."""
    return tuple(package for name in ordinary() for package in _BUILT_IN[name].packages)


def specification() -> Any:
    """The class of the specification, which takes more arguments than an `Impl`: see `impls.numpy`."""
    return load(resolve(SPECIFICATION))


def load(entry: Entry, *, adapter: bool = False) -> type[Impl]:
    """Imports the implementation's class; with `adapter`, the methods of `ADAPTER` suffice.

    Raises `UserError` if a package is missing, the import fails for any reason, or the class lacks a method of
    `harness.spec.Impl`; the cause is chained.
    """
    what = f'implementation "{entry.name}"'
    from harness.spec import Impl

    if reason := missing(entry):
        raise UserError(f"{what}: {reason}")
    try:
        module = importlib.import_module(entry.module)
    except (Exception, SystemExit) as error:  # a broken installation may fail in any way
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


def _nearest(name: str) -> str:
    """As `errors.nearest`, but framework names count too: "tensorflow" and "keras" mean tf."""
    packages = {package: entry.name for entry in _BUILT_IN.values() for package in entry.packages}
    close = difflib.get_close_matches(name.lower(), packages, n=1)
    return nearest(packages[close[0]] if close else name, names())


def _package(entry: Entry) -> str | None:
    """The innermost package around the class; None if its module is in no package."""
    spec = modules.locate(entry.module)
    if spec and spec.submodule_search_locations is not None:
        return entry.module
    return entry.module.rpartition(".")[0] or None


def _device_file(entry: Entry) -> Path | None:
    package = _package(entry)
    spec = modules.locate(f"{package}.device") if package else None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _with_facts(entry: Entry) -> Entry:
    """The entry with the facts from its `device.py`, or with the reason why that cannot be used."""
    for built_in in _BUILT_IN.values():
        if _package(entry) == built_in.module:  # another class of that package: its framework is known
            return replace(entry, packages=built_in.packages, install=built_in.install)
    try:
        own = framework_of(entry)
        entry = replace(entry, **own.facts)
        own.environment(1, "fp32", False)
        own.without_gpu()
        return entry
    except UserError as error:
        return replace(entry, problem=str(error).removeprefix(f'implementation "{entry.name}": '))


def _registered(point: EntryPoint) -> Entry:
    distribution = point.dist.name if point.dist else point.module
    top = point.module.partition(".")[0]
    return _with_facts(Entry(point.name, f"{point.module}:{point.attr}", (top,), f"pip install {distribution}"))
