"""Implementations by name, by entry point, by class; nothing imported before `load`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import modules, registry
from harness.errors import UserError
from harness.registry import Entry
from harness.spec import Impl

WHOLE = """
class Caps:
    def __init__(self, model, optim, runtime): ...
    def load(self, weights, moments=None): ...
    def dump(self): ...
    def dump_moments(self): ...
    def stage(self, images, labels): ...
    def forward(self, images): ...
    def loss_and_grads(self, images, labels): ...
    def compile(self, batch): ...
    def train(self, plan): ...
    def evaluate(self, images, labels): ...
    def peak_bytes(self): ...
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Writes a file into a folder on the import path; what is imported from there is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)

    def put(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        importlib.invalidate_caches()
        return file

    yield put
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def register(place: Callable[[str, str], Path], name: str, target: str) -> None:
    place("thirdcaps-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thirdcaps\nVersion: 1.0\n")
    place("thirdcaps-1.0.dist-info/entry_points.txt", f"[capsbench.impls]\n{name} = {target}\n")


def test_built_in_names_come_first() -> None:
    assert registry.names()[:4] == ("numpy", "torch", "tf", "jax")


@pytest.mark.parametrize(
    ("name", "target", "devices"),
    [
        ("numpy", "impls.numpy:NumpyImpl", ("cpu", "gpu") if importlib.util.find_spec("cupy") else ("cpu",)),
        ("torch", "impls.torch:TorchImpl", ("cpu", "gpu")),
        ("tf", "impls.tf:TfImpl", ("cpu", "gpu")),
        ("jax", "impls.jax:JaxImpl", ("cpu", "gpu")),
    ],
)
def test_built_in_entries(name: str, target: str, devices: tuple[str, ...]) -> None:
    entry = registry.resolve(name)
    assert (entry.name, entry.target, entry.devices) == (name, target, devices)
    assert f"{entry.module}:{entry.class_name}" == target


@pytest.mark.parametrize(
    ("found", "meant"),
    [("torhc", "torch"), ("pytorch", "torch"), ("TensorFlow", "tf"), ("keras", "tf"), ("jaxx", "jax")],
)
def test_unknown_name_is_told_the_nearest(found: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        registry.resolve(found)
    assert str(caught.value).startswith(f'unknown implementation "{found}"; did you mean "{meant}"? Valid: jax, numpy,')
    assert str(caught.value).endswith("Or name a class: file.py:Class or package.module:Class")


def test_entry_point(place: Callable[[str, str], Path]) -> None:
    place("thirdcaps/fast.py", WHOLE)
    register(place, "fastcaps", "thirdcaps.fast:Caps")
    assert registry.names() == ("numpy", "torch", "tf", "jax", "fastcaps")
    entry = registry.resolve("fastcaps")
    assert entry == Entry("fastcaps", "thirdcaps.fast:Caps", ("thirdcaps",), "pip install thirdcaps")
    assert registry.load(entry).__name__ == "Caps"


def test_entry_point_takes_no_built_in_name(place: Callable[[str, str], Path]) -> None:
    register(place, "torch", "thirdcaps.fast:Caps")
    assert registry.names() == ("numpy", "torch", "tf", "jax")
    assert registry.resolve("torch").target == "impls.torch:TorchImpl"


def test_a_class_by_its_place_is_resolved_without_importing(place: Callable[[str, str], Path]) -> None:
    place("mycaps/__init__.py", "raise RuntimeError('imported')")
    place("mycaps/deep/model.py", "raise RuntimeError('imported')")
    entry = registry.resolve("mycaps.deep.model:Caps")
    assert (entry.name, entry.packages, entry.devices) == ("mycaps.deep.model:Caps", ("mycaps",), ("cpu", "gpu"))
    assert registry.missing(entry) is None
    spec = modules.locate(entry.module)
    assert spec is not None
    assert str(spec.origin).endswith("mycaps/deep/model.py")
    assert "mycaps" not in sys.modules


@pytest.mark.parametrize("module", ["nosuch", "nosuch.sub", "json.nosuch", "json.decoder.deeper", "impls.nosuch"])
def test_locate_what_is_not_there(module: str) -> None:
    assert modules.locate(module) is None


@pytest.mark.parametrize("name", ["a:", ":B", "a.b:", "a..b:C", "a b:C", "a-b:C", "a:B:C", "a:B()", "1a:B", ":"])
def test_malformed_target(name: str) -> None:
    with pytest.raises(UserError, match="does not name an implementation: expected package"):
        registry.resolve(name)


def test_target_in_no_package() -> None:
    with pytest.raises(UserError, match='no package "nosuch"; install it, or put its folder in PYTHONPATH'):
        registry.resolve("nosuch.mod:Caps")


def test_missing_says_what_and_how_to_install_it() -> None:
    entry = Entry("torch", "impls.torch:TorchImpl", ("numpy", "no_such_framework"), 'pip install "capsbench[torch]"')
    expected = 'not installed: no_such_framework; pip install "capsbench[torch]"'
    assert registry.missing(entry) == expected
    with pytest.raises(UserError) as caught:
        registry.load(entry)
    assert str(caught.value) == f'implementation "torch": {expected}'


def test_missing_is_none_where_all_is_there() -> None:
    assert registry.missing(registry.resolve("numpy")) is None


@pytest.mark.parametrize("blocked", [None, object()])
def test_missing_survives_a_package_blocked_in_sys_modules(monkeypatch: pytest.MonkeyPatch, blocked: object) -> None:
    monkeypatch.setitem(sys.modules, "blocked_framework", blocked)  # None: as import hooks do; object(): no __spec__
    entry = Entry("x", "x:X", ("blocked_framework",), "install it")
    assert registry.missing(entry) == "not installed: blocked_framework; install it"


def test_load_a_whole_implementation(place: Callable[[str, str], Path]) -> None:
    place("wholecaps.py", WHOLE)
    found = registry.load(registry.resolve("wholecaps:Caps"))
    assert found.__name__ == "Caps"
    assert issubclass(found, Impl)


@pytest.mark.parametrize(
    ("text", "message", "cause"),
    [
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'", ModuleNotFoundError),
        ("raise OSError('libcudart.so: cannot open\\nmore')", "OSError: libcudart.so: cannot open", OSError),
        ("def broken(:", "SyntaxError: invalid syntax", SyntaxError),
        ("raise SystemExit(3)", "SystemExit: 3", SystemExit),
    ],
)
def test_load_names_why_an_import_failed(
    place: Callable[[str, str], Path], text: str, message: str, cause: type[BaseException]
) -> None:
    place("brokencaps.py", text)
    with pytest.raises(UserError) as caught:
        registry.load(registry.resolve("brokencaps:Caps"))
    assert str(caught.value).startswith(f'implementation "brokencaps:Caps": importing brokencaps failed: {message}')
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, cause)


def test_load_names_the_nearest_class(place: Callable[[str, str], Path]) -> None:
    place("nearcaps.py", WHOLE)
    with pytest.raises(UserError, match='nearcaps has no class Capz; did you mean "Caps"'):
        registry.load(registry.resolve("nearcaps:Capz"))


def test_load_refuses_what_is_no_class(place: Callable[[str, str], Path]) -> None:
    place("functioncaps.py", "def Caps(model, optim, runtime): ...")
    with pytest.raises(UserError, match="functioncaps has no class Caps"):
        registry.load(registry.resolve("functioncaps:Caps"))


def test_load_names_the_methods_that_are_missing(place: Callable[[str, str], Path]) -> None:
    text = "\n".join(line for line in WHOLE.splitlines() if "def dump" not in line) + "\n    evaluate = None\n"
    place("partcaps.py", text)
    with pytest.raises(UserError) as caught:
        registry.load(registry.resolve("partcaps:Caps"))
    assert "partcaps:Caps lacks dump, dump_moments, evaluate; harness.spec.Impl says" in str(caught.value)
