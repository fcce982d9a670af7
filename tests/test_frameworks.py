"""A framework is a plug-in: an invented fifth one from outside, working and broken; what the built-in ones answer."""

from __future__ import annotations

import inspect
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import frameworks, registry
from harness.analysis import labels
from harness.commands.doctor import probe
from harness.errors import UserError, starved
from harness.machine.environment import environment, fingerprint
from harness.spec.device import Device
from harness.supervisor.seat import Seat, worker_environment
from harness.worker.channel import explain
from tests.helpers.executor_helpers import tiny_trial
from tests.helpers.run_helpers import ROOT

_WORDS = re.compile(r"\b(torch|tf|jax|tensorflow|keras|optax|pytorch|torchvision|cupy)\b|^.?numpy.?$", re.IGNORECASE)
ALLOWED = {
    "registry.py": "the one place that names frameworks",
    "commands/cli.py": "what the project is, in its own help",
    "data/fashion_mnist.py": "a mirror's address",
    "sniff.py": "what formats of files are called",
    "weights/files.py": "an argument of safetensors: arrays are to be NumPy's",
    "weights/start.py": "how files of other programs are converted",
    "weights/whole.py": "an argument of safetensors: arrays are to be NumPy's",
}


def names_of_frameworks(source: str) -> list[str]:
    """The code's own words, comments and docstrings aside, that name a framework."""
    found: list[str] = []
    last = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.type == tokenize.STRING and last in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if token.type in (tokenize.NAME, tokenize.STRING) and not is_docstring and _WORDS.search(token.string):
            is_library = token.type == tokenize.NAME and token.string == "numpy"  # which the bench computes with
            found += [] if is_library else [token.string]
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            last = token.type
    return found


def test_harness_knows_no_framework_by_name() -> None:
    paths = {str(path.relative_to(ROOT / "harness")): path for path in (ROOT / "harness").rglob("*.py")}
    found = {name: words for name, path in paths.items() if (words := names_of_frameworks(path.read_text()))}
    assert {name: words for name, words in found.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) <= set(found), "an exception that is none"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('if name == "torch":\n    pass\n', 1),
        ("import tensorflow\n", 1),
        ('x = f"{a} of JAX"\n', 1),
        ('load("numpy")\n', 1),
        ("import numpy as np  # torch\n", 0),
        ('def f():\n    """As torch does."""\n', 0),
        ('x = "torchlight"\n', 0),
    ],
)
def test_what_names_a_framework(source: str, count: int) -> None:
    assert len(names_of_frameworks(source)) == count


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_a_device_module_is_as_the_protocol_says(name: str) -> None:
    module = registry.framework_of(registry.resolve(name)).module
    own = {key: value for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")}
    assert set(own) <= set(frameworks.FUNCTIONS)
    for function, value in own.items():
        expected = list(inspect.signature(getattr(Device, function)).parameters)[1:]
        assert list(inspect.signature(value).parameters) == expected
    if name in registry.FRAMEWORKS:
        assert tuple(own) == frameworks.FUNCTIONS
    assert set(frameworks.FUNCTIONS) == {key for key, value in vars(Device).items() if inspect.isfunction(value)} - {
        "__init__",
        "__subclasshook__",
    }


def test_device_modules_import_no_framework() -> None:
    code = (
        "import sys; from harness import registry; "
        "[(registry.framework_of(registry.resolve(n)), registry.environment(n, 1, 'fp32', False)) for n in registry.BUILT_IN]; "
        "[registry.without_gpu(registry.resolve(n)) for n in registry.BUILT_IN]; "
        "print(sorted({'torch', 'tensorflow', 'jax', 'numpy', 'impls'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_known_of_the_fifth(fifth: Callable[..., Path]) -> None:
    elsewhere = fingerprint(environment(), "torch")
    fifth()
    assert registry.names() == (*registry.BUILT_IN, "fifth")
    entry = registry.resolve("fifth")
    assert (entry.packages, entry.devices) == (("fifthlib", "fifthcaps"), ("cpu",))
    assert entry.install == "pip install fifthcaps[fast]"
    assert (entry.library, entry.problem, registry.missing(entry)) == ("fifthlib", None, None)
    assert labels.color("fifth") == "#123ABC"
    trial = tiny_trial().model_copy(update={"impl": "fifth"})
    assert labels.run_name(trial).startswith("5th ")
    assert registry.without_gpu(entry) == "fifth runs on the CPU only"
    assert "fifthlib" not in sys.modules
    found = fingerprint(environment(), "fifth")
    assert set(found["versions"]) == {"numpy", "fifthlib", "fifthcaps"}
    assert found["versions"]["fifthlib"] == "9.1"
    assert fingerprint(environment(), "torch") == elsewhere
    assert registry.exporters() == (*registry.FRAMEWORKS, "fifth", "onnx")
    base = {"FIFTH_STALE": "1"}
    own = worker_environment(trial, Seat((0,)), base)
    assert (own["FIFTH_THREADS"], "FIFTH_STALE" in own, own["JAX_PLATFORMS"]) == ("1", False, "cpu")
    of_another = worker_environment(tiny_trial(), Seat((0,)), base)
    assert "FIFTH_THREADS" not in of_another
    assert of_another["FIFTH_STALE"] == "1"


def test_a_class_by_its_place_has_its_package_s_facts(fifth: Callable[..., Path]) -> None:
    fifth()
    entry = registry.resolve("fifthcaps:FifthNet")
    assert (entry.color, entry.library, entry.devices) == ("#123ABC", "fifthlib", ("cpu",))
    assert set(fingerprint(environment(), "fifthcaps:FifthNet")["versions"]) == {"numpy", "fifthlib", "fifthcaps"}


def test_memory_that_ran_out_has_a_name(fifth: Callable[..., Path]) -> None:
    fifth()
    entry = registry.resolve("fifth")
    full = type("HeapFull", (Exception,), {})("no more")
    assert not starved(full)
    assert starved(full, entry.out_of_memory)
    assert str(explain(full, entry.out_of_memory).hint).startswith("not enough memory")
    assert explain(full).hint is None


BROKEN_DEVICE = {
    # an edit of fifthcaps/device.py: what is said of it
    ("SLOW_START = 3", 'SLOW_START = "slow"'): "SLOW_START is 'slow'; expected a whole number, 0 or more",
    ('"#123ABC"', '"blue"'): """COLOR is 'blue'; expected a colour such as "#CC79A7\"""",
    ('("cpu",)', '("cpu", "tpu")'): "DEVICES is ('cpu', 'tpu'); expected one or both of",
    ("from typing import Any", "import no_such"): "by itself raised ModuleNotFoundError: No module named 'no_such'",
    ("def gpus() -> list[str]:", "def gpus( -> list[str]:"): "by itself raised SyntaxError",
    (
        '"FIFTH_STALE": None}',
        '"FIFTH_STALE": 0}',
    ): "environment() returned {'FIFTH_THREADS': '1', 'FIFTH_STALE': 0}; expected",
    ("    return {", "    raise ValueError('no\\nsuch')\n    return {"): "environment() raised ValueError: no such",
    ("def product(", "product = 3\ndef other("): "product is 3; expected a function",
}


@pytest.mark.parametrize("edit", BROKEN_DEVICE)
def test_a_broken_device_module_is_named(edit: tuple[str, str], fifth: Callable[..., Path], tmp_path: Path) -> None:
    folder = fifth(("fifthcaps/device.py", *edit))
    entry = registry.resolve("fifth")
    assert BROKEN_DEVICE[edit] in str(entry.problem)
    assert str(folder / "fifthcaps" / "device.py") in str(entry.problem)
    assert registry.missing(entry) == entry.problem
    with pytest.raises(UserError) as caught:
        registry.load(entry)
    assert str(caught.value) == f'implementation "fifth": {entry.problem}'
    assert labels.color("fifth").startswith("#")
    check = probe(entry, sys.executable, 60)
    assert (check.state, check.detail) == ("broken", entry.problem)
    assert set(environment()["versions"]) >= {"numpy"}


def test_what_is_not_installed_is_told_before_all_else(fifth: Callable[..., Path]) -> None:
    fifth(("fifthcaps/device.py", 'PACKAGES = ("fifthlib",', 'PACKAGES = ("fifthlib", "sixthlib",'))
    entry = registry.resolve("fifth")
    assert registry.missing(entry) == "not installed: sixthlib; pip install fifthcaps[fast]"
    assert probe(entry, sys.executable, 60).state == "absent"


def test_a_module_of_the_same_name_that_is_not_for_the_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "otherlib").mkdir()
    (tmp_path / "otherlib" / "__init__.py").write_text("")
    (tmp_path / "otherlib" / "device.py").write_text("raise RuntimeError('run')\nDEVICE = 'cuda:0'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = registry.resolve("otherlib:Caps")
    assert (entry.problem, entry.color, registry.framework_of(entry).module) == (None, None, None)


def test_another_class_of_a_built_in_package_computes_with_its_framework() -> None:
    entry = registry.resolve("impls.torch:Another")
    assert (entry.library, entry.install, entry.target) == (
        "torch",
        'pip install "capsbench[torch]"',
        "impls.torch:Another",
    )
    assert registry.framework_of(entry).has("product")
