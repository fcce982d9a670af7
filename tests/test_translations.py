"""The implementations are translations of one another: the same modules, the same public names in the same order."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import impls.architecture

IMPLS = Path(impls.architecture.__file__).parent
FRAMEWORKS = ("torch", "tf", "jax")
SHARED = ("impls.architecture", "impls.spectral")
"""What an implementation may import of `impls` besides its own modules."""

HERE_ALONE = {
    "layers.py CHUNK": (
        "torch",
        "takes a batch's votes a few images at a time; XLA and TensorFlow have no use for that",
    ),
    "layers.py votes_vjp": ("torch", "one rule for the gradient of votes and routing; in the others, of routing alone"),
    "layers.py routed": ("tf jax", "routing with its rule for the gradient, see votes_vjp"),
    "convolution.py convolution": ("jax", "XLA's own convolutions have slow gradients on a CPU"),
    "convolution.py same_convolution": ("jax", "as convolution"),
    "precision.py Precision": ("jax", "XLA is told at every product what it may do; the others, once a process"),
    "precision.py matmul": ("jax", "as Precision; the others have their framework's own"),
    "models/capsnet.py CapsNet.canonical": ("torch tf", "a module's tensors have names of its own"),
    "models/cnn.py Cnn.canonical": ("torch tf", "as CapsNet.canonical"),
    "models/capsnet.py CapsNet.primary": ("jax", "an attribute in the others, whose layers keep their weights"),
    "steps.py Steps.net": ("jax", "an attribute in the others, as CapsNet.primary"),
    "steps.py BLOCK": ("jax", "a loop of steps is compiled as one program"),
    "steps.py Steps.train_steps": ("jax", "as BLOCK"),
    "steps.py Steps.eval_steps": ("jax", "as BLOCK"),
}
"""Module and public name -> the frameworks that have it, and why the others have not."""

RECIPES = ("export/capsnet.py", "export/cnn.py")
"""What goes with exported weights, as people who know the framework alone write it: modules, models or functions."""

ORDINARY = ("ordinary.py", "watched.py")
"""the other end of `harness.parity.ordinary`: how networks of other people's are read, which PyTorch and Keras differ in."""

CALLED = {"forward": "__call__", "call": "__call__"}
"""What a layer's call is named in PyTorch and in Keras."""


def modules(framework: str) -> set[str]:
    """The framework's modules, as paths inside its folder."""
    folder = IMPLS / framework
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def tree(framework: str, module: str) -> ast.Module:
    return ast.parse((IMPLS / framework / module).read_text(encoding="utf-8"))


def is_public(name: str) -> bool:
    return name == "__call__" or not name.startswith("_")


def public_names(module: ast.Module) -> Iterator[str]:
    """What a module defines at its top level, and its classes' methods, in its order."""
    for node in module.body:
        match node:
            case ast.FunctionDef(name=name):
                names = [name]
            case ast.ClassDef(name=name, body=body):
                methods = [each.name for each in body if isinstance(each, ast.FunctionDef)]
                methods = [CALLED.get(method, method) for method in methods] if name[0] != "_" else []
                names = [name, *(f"{name}.{method}" for method in methods if is_public(method))]
            case ast.Assign(targets=targets):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case _:
                names = []
        yield from (name for name in names if is_public(name))


def common_names(framework: str, module: str) -> list[str]:
    """Without those that the framework alone may have; of the implementation's class, the methods."""
    names = [name.replace(f"{framework.title()}Impl", "Impl") for name in public_names(tree(framework, module))]

    def is_alone(name: str) -> bool:
        """By itself, or with its class."""
        places = (f"{module} {name}", f"{module} {name.partition('.')[0]}")
        return any(framework in HERE_ALONE[place][0].split() for place in places if place in HERE_ALONE)

    return [name for name in names if not is_alone(name)]


def imports(framework: str, module: str) -> set[str]:
    """Modules of `harness` and `impls` that a module imports, for types alone too; of a package, what is taken from it."""
    found: set[str] = set()
    for node in ast.walk(tree(framework, module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            origin = node.module or ""
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                is_module = any(
                    IMPLS.parent.joinpath(*inner.split(".")).with_suffix(end).exists() for end in ("", ".py")
                )
                found.add(inner if is_module else origin)
    return {name for name in found if name.partition(".")[0] in ("harness", "impls")}


def dotted(framework: str, module: str) -> str:
    parts = Path(module).with_suffix("").parts
    return ".".join(("impls", framework, *(part for part in parts if part != "__init__")))


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The nodes of a circle, the first again at its end; none where there is no circle."""
    over: set[str] = set()

    def visit(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in over or node not in graph:
            return []
        for other in sorted(graph[node]):
            if found := visit(other, [*way, node]):
                return found
        over.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def test_all_three_have_the_same_modules() -> None:
    own = [modules(framework) - set(ORDINARY) for framework in FRAMEWORKS]
    assert own[0] == own[1] == own[2]


@pytest.mark.parametrize("module", sorted(modules("torch") - {*RECIPES, *ORDINARY}))
def test_a_module_has_the_same_public_names_in_the_same_order(module: str) -> None:
    torch, tf, jax = (common_names(framework, module) for framework in FRAMEWORKS)
    assert torch == tf == jax


def test_what_a_framework_alone_has_is_there() -> None:
    for place, (frameworks, why) in HERE_ALONE.items():
        module, name = place.split()
        assert why
        having = [framework for framework in FRAMEWORKS if name in public_names(tree(framework, module))]
        assert having == frameworks.split(), place


@pytest.mark.parametrize("framework", ["numpy", *FRAMEWORKS])
def test_a_kind_of_model_has_what_its_contract_says(framework: str) -> None:
    contract = next(public_names_of("Specification" if framework == "numpy" else "Architecture"))
    kinds = modules(framework) & {path for path in modules(framework) if path.startswith("models/")}
    assert {"models/capsnet.py", "models/cnn.py"} <= kinds
    for module in kinds - {"models/__init__.py"}:
        names = list(public_names(tree(framework, module)))
        assert [name for name in names if name in contract] == contract, module


def public_names_of(protocol: str) -> Iterator[list[str]]:
    """The members of a protocol of `impls.architecture`."""
    for node in ast.parse((IMPLS / "architecture.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == protocol:
            yield list(public_names(ast.Module(node.body, [])))


@pytest.mark.parametrize("framework", ["numpy", *FRAMEWORKS])
def test_an_implementation_imports_no_other(framework: str) -> None:
    for module in modules(framework):
        allowed = (
            ("harness.spec", "harness.errors", "harness.spec.network") if module in ORDINARY else ("harness.spec",)
        )
        for name in imports(framework, module):
            is_own = name == f"impls.{framework}" or name.startswith(f"impls.{framework}.")
            assert is_own or name in SHARED or name in allowed, f"{framework}/{module} imports {name}"


@pytest.mark.parametrize("framework", ["numpy", *FRAMEWORKS])
def test_no_module_imports_itself_by_way_of_others(framework: str) -> None:
    graph = {dotted(framework, module): imports(framework, module) for module in modules(framework)}
    assert f"impls.{framework}.impl" in graph[f"impls.{framework}"]  # the graph has its edges
    assert not circle(graph)


def test_what_differs_and_what_goes_in_a_circle_is_found() -> None:
    source = (
        "A = 1\nB: int = 2\n_C = 3\ndef f(): ...\ndef _g(): ...\nclass D:\n  def call(self): ...\n  def _h(self): ..."
    )
    assert list(public_names(ast.parse(source))) == ["A", "B", "f", "D", "D.__call__"]
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": {"elsewhere"}}) == []
