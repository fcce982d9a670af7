"""A framework is a plug-in: an invented fifth one, from outside, right and broken; what the built-in ones answer."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import frameworks, registry
from harness.analysis import labels
from harness.commands.doctor import probe
from harness.commands.plugin import fault, lacking
from harness.errors import UserError, starved
from harness.machine.environment import environment, fingerprint
from harness.spec.device import Device
from harness.supervisor.parity import Climb, _rank
from harness.supervisor.seat import Seat, worker_environment
from harness.worker.channel import explain
from tests.helpers.executor_helpers import tiny_trial
from tests.helpers.run_helpers import HELPERS, ROOT, capsbench, events_of, write_suite

FIFTH = HELPERS / "fifth"
HIDDEN = "torch,tensorflow,jax"

_WORDS = re.compile(r"\b(torch|tf|jax|tensorflow|keras|optax|pytorch|torchvision|cupy)\b|^.?numpy.?$", re.IGNORECASE)
ALLOWED = {
    "registry.py": "the one place that names frameworks",
    "commands/cli.py": "what the project is, in its own help",
    "data/fashion_mnist.py": "a mirror's address",
    "weights/files.py": "an argument of safetensors: arrays are to be NumPy's",
    "weights/whole.py": "an argument of safetensors: arrays are to be NumPy's",
}


@pytest.fixture
def fifth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs the fifth framework: a copy in which edits, (file, old, new), have been made; gives its folder."""

    def install(*edits: tuple[str, str, str]) -> Path:
        folder = tmp_path / "site"
        shutil.copytree(FIFTH, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name, old, new in edits:
            text = (folder / name).read_text()
            assert old in text, (name, old)
            (folder / name).write_text(text.replace(old, new))
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT), str(HELPERS)]))
        importlib.invalidate_caches()
        return folder

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] in ("fifthlib", "fifthcaps")]:
        del sys.modules[name]


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`capsbench ARGUMENTS`, with the fifth framework installed and a stale variable of it around."""
    path = os.environ["PYTHONPATH"]
    hiding = str(folder / "hiding")  # `capsbench` below writes it
    return capsbench(folder, *arguments, hide=HIDDEN, PYTHONPATH=os.pathsep.join([hiding, path]), FIFTH_STALE="1")


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
        "__init__", "__subclasshook__"
    }  # fmt: skip


def test_device_modules_import_no_framework() -> None:
    code = (
        "import sys; from harness import registry; "
        "[(registry.framework_of(registry.resolve(n)), registry.environment(n, 1, 'fp32', False)) for n in registry.BUILT_IN]; "
        "[registry.without_gpu(registry.resolve(n)) for n in registry.BUILT_IN]; "
        "print(sorted({'torch', 'tensorflow', 'jax', 'numpy', 'impls'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("impl", [*registry.BUILT_IN, "tests.helpers.executor_helpers:TinyNet"])
@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("precision", ["fp32", "fp64", "tf32", "bf16"])
def test_the_environment_of_a_worker(impl: str, gpus: int, precision: str) -> None:
    """The same for every implementation, built in or not, since any may use any framework."""
    tiny = tiny_trial(gpus=gpus)
    runtime = tiny.runtime.model_copy(update={"precision": precision})
    trial = tiny.model_copy(update={"impl": impl, "cpus": 3, "runtime": runtime})
    stale = {"JAX_PLATFORMS": "tpu", "NVIDIA_TF32_OVERRIDE": "1", "TF_CPP_MIN_LOG_LEVEL": "0", "JAX_ENABLE_X64": "9"}
    base = {"A": "1", "RAY_X": "1", "GLIBC_TUNABLES": "x=1", "PYTHONPATH": "/p", **stale}
    found = worker_environment(trial, Seat((0, 1, 2), ("3",) * gpus), base)
    malloc = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184"
    expected = {
        "A": "1",
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "TF_NUM_INTRAOP_THREADS": "3",
        "TF_NUM_INTEROP_THREADS": "3",
        "CUDA_VISIBLE_DEVICES": "3" if gpus else "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "GLIBC_TUNABLES": f"{malloc}:x=1",
        "THP_MEM_ALLOC_ENABLE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": f"{ROOT}{os.pathsep}/p",
        "JAX_ENABLE_X64": "1" if precision == "fp64" else "0",
    }
    expected |= {"NVIDIA_TF32_OVERRIDE": "0"} if precision in ("fp32", "fp64") else {}
    expected |= {} if gpus else {"JAX_PLATFORMS": "cpu"}
    assert found == expected


def test_what_is_known_of_the_fifth(fifth: Callable[..., Path]) -> None:
    elsewhere = fingerprint(environment(), "torch")
    fifth()
    assert registry.names() == (*registry.BUILT_IN, "fifth")
    entry = registry.resolve("fifth")
    assert (entry.packages, entry.devices) == (("fifthlib", "fifthcaps"), ("cpu",))
    assert entry.install == "pip install fifthcaps[fast]"
    assert (entry.library, entry.problem, registry.missing(entry)) == ("fifthlib", None, None)
    assert labels.color("fifth") == "#123ABC"
    trial = tiny_trial(1).model_copy(update={"impl": "fifth"})
    assert labels.run_name(trial).startswith("5th ")
    assert registry.without_gpu(entry) == "fifth runs on the CPU only"
    assert "fifthlib" not in sys.modules
    found = fingerprint(environment(), "fifth")
    assert set(found["versions"]) == {"numpy", "fifthlib", "fifthcaps"}
    assert found["versions"]["fifthlib"] == "9.1"
    assert fingerprint(environment(), "torch") == elsewhere
    assert registry.exporters() == (*registry.FRAMEWORKS, "fifth")
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


def test_the_slowest_to_start_begins_first(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth()
    climbs: list[Climb] = []
    for name in ("numpy", "torch", "tf", "jax", "fifth"):
        for precision in ("fp64", "fp32"):
            runtime = tiny_trial().runtime.model_copy(update={"precision": precision})
            trial = tiny_trial().model_copy(update={"impl": name, "runtime": runtime})
            climbs.append(Climb(trial, "L4", 1, tmp_path))
    order = [climb.who for climb in sorted(climbs, key=_rank)]
    assert order == [
        "fifth fp32", "fifth fp64", "jax fp32", "jax fp64", "tf fp32", "tf fp64",
        "numpy fp64", "numpy fp32", "torch fp64", "torch fp32",
    ]  # fmt: skip


def test_memory_that_ran_out_has_a_name(fifth: Callable[..., Path]) -> None:
    fifth()
    entry = registry.resolve("fifth")
    full = type("HeapFull", (Exception,), {})("no more")
    assert not starved(full)
    assert starved(full, entry.out_of_memory)
    assert str(explain(full, entry.out_of_memory).hint).startswith("not enough memory")
    assert explain(full).hint is None


def test_doctor_and_plan(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth()
    found = json.loads(command(tmp_path, "doctor", "--json").stdout)
    (check,) = [check for check in found["checks"] if check["name"] == "fifth"]
    assert (check["state"], check["detail"]) == ("ok", "fifthlib 9.1, fifthcaps ?; cpu, Engine 9.1")
    assert check["versions"]["fifthlib"] == "9.1"
    assert check["devices"] == ["cpu", "Engine 9.1"]
    assert found["ready"] == ["fifth"]
    assert found["environment"]["versions"]["fifthlib"] == "9.1"
    planned = command(
        tmp_path, "plan", write_suite(tmp_path, grid={"impl": ["fifth"]}), "--executor", "inline", "--json"
    )
    assert planned.returncode == 0, planned.stderr
    assert [(row["impl"], row["state"]) for row in json.loads(planned.stdout)["trials"]] == [("fifth", "pending")]


def test_parity_and_speed(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth()
    suite = write_suite(tmp_path)
    climbed = command(tmp_path, "parity", suite, "--impl", "fifth", "--level", "L4", "--precision", "fp64", "--json")
    assert climbed.returncode == 0, climbed.stderr
    assert "fifth fp64" in climbed.stderr
    measured = command(
        tmp_path, "speed", suite, "--impl", "fifth", "--rounds", 2, "--steps", 1, "--matmul", 100, "--json"
    )
    assert measured.returncode == 0, measured.stderr
    document = json.loads(measured.stdout)
    assert set(document["matmul"]["flops_per_s"]) == {"fifthlib", "numpy"}
    (cell,) = document["cells"]
    assert (cell["impl"], cell["status"]) == ("fifth", "ok")


def test_run_and_export(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth()
    suite = write_suite(tmp_path, grid={"impl": ["fifth"]}, train={"epochs": 1})
    done = command(tmp_path, "run", suite, "--executor", "inline", "--no-mlflow")
    assert done.returncode == 0, done.stderr
    events = events_of(tmp_path / "runs" / "small", "fifth")
    (attempt,) = [event for event in events if event["kind"] == "attempt"]
    assert (attempt["versions"]["fifthlib"], attempt["versions"]["fifthcaps"]) == ("9.1", "2.0")
    assert [event["ok"] for event in events if event["kind"] == "parity"] == [True]
    (trial,) = [path.name for path in (tmp_path / "runs" / "small" / "trials").iterdir()]
    exported = command(tmp_path, "export", "runs/small", trial, "--to", "fifth", "--out", "out", "--json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["files"] == ["model.py", "config.json", "weights.fifth.npz"]
    assert (tmp_path / "out" / "model.py").read_text() == (FIFTH / "fifthcaps" / "standalone.py").read_text()


BROKEN_DEVICE = {
    # an edit of fifthcaps/device.py: what is said of it
    ("SLOW_START = 3", 'SLOW_START = "slow"'): "SLOW_START is 'slow'; expected a whole number, 0 or more",
    ('"#123ABC"', '"blue"'): """COLOR is 'blue'; expected a colour such as "#CC79A7\"""",
    ('("cpu",)', '("cpu", "tpu")'): "DEVICES is ('cpu', 'tpu'); expected one or both of",
    ("from typing import Any", "import no_such"): "by itself raised ModuleNotFoundError: No module named 'no_such'",
    ("def gpus() -> list[str]:", "def gpus( -> list[str]:"): "by itself raised SyntaxError",
    ('"FIFTH_STALE": None}', '"FIFTH_STALE": 0}'): "environment() returned {'FIFTH_THREADS': '1', 'FIFTH_STALE': 0}; expected",
    ("    return {", "    raise ValueError('no\\nsuch')\n    return {"): "environment() raised ValueError: no such",
    ("def product(", "product = 3\ndef other("): "product is 3; expected a function",
}  # fmt: skip


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


def test_commands_name_a_broken_plugin(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth(("fifthcaps/device.py", "SLOW_START = 3", "SLOW_START = -1"))
    suite = write_suite(tmp_path, grid={"impl": ["numpy", "fifth"]})
    planned = command(tmp_path, "plan", suite, "--executor", "inline")
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"fifth: .*SLOW_START is -1; expected a whole number", planned.stdout)
    for arguments in (("parity", "--impl", "fifth"), ("speed", suite, "--impl", "fifth")):
        refused = command(tmp_path, *arguments, "--json")
        assert refused.returncode == 2, refused.stderr
        assert re.match(r"fifth: .*SLOW_START is -1; expected", json.loads(refused.stdout)["error"])


FAULTS = {
    # an edit of a file: what doctor says
    ("fifthcaps/__init__.py", "import fifthlib\n", "import fifthlib\nraise OSError('libfifth.so: not found')\n"):
        "OSError: libfifth.so: not found",
    ("fifthcaps/__init__.py", "class FifthNet(", "class FivethNet("):
        'fifthcaps has no class FifthNet; did you mean "FivethNet"?',
    ("fifthcaps/__init__.py", "    def compile(", "    forward = None\n\n    def compile("):
        "fifthcaps:FifthNet lacks forward; harness.spec.Impl says what they do",
    ("fifthcaps/__init__.py", "    def compile(", "    def dump(self):\n        return {}\n\n    def compile("):
        "with a tiny model, fifth fp32: L1 weight conv1.w: missing",
    ("fifthcaps/__init__.py", "    def compile(", "    def forward(self, images):\n        return 1 / 0\n\n    def compile("):
        "with a tiny model it raised ZeroDivisionError: division by zero",
    ("fifthcaps/device.py", "        a @ b\n", "        a @ b[:3]\n"):
        "what product() returned raised ValueError: matmul: ",
    ("fifthcaps/device.py", "    return run", "    return 5"):
        "product() returned 5; expected a function without arguments",
}  # fmt: skip


@pytest.mark.parametrize("edit", FAULTS)
def test_doctor_says_what_is_wrong_with_a_plugin(edit: tuple[str, str, str], fifth: Callable[..., Path]) -> None:
    fifth(edit)
    check = probe(registry.resolve("fifth"), sys.executable, 60)
    assert check.state == "broken"
    assert FAULTS[edit] in check.detail
    assert check.advice == (
        "mend it, or reinstall it (pip install fifthcaps[fast]); until then capsbench goes on without it"
        if edit[2].find("OSError") < 0
        else "reinstall it (pip install fifthcaps[fast]); until then capsbench goes on without it"
    )


def test_wrong_shapes_are_told(fifth: Callable[..., Path]) -> None:
    shape = "    def dump(self):\n        return {k: v.T for k, v in super().dump().items()}\n\n    def compile("
    fifth(("fifthcaps/__init__.py", "    def compile(", shape))
    told = fault("fifth")
    assert told is not None
    assert told.startswith(
        "with a tiny model, fifth fp32: L1 weight conv1.w: shape (4, 1, 5, 5), expected (5, 5, 1, 4)"
    )


def test_an_adapter_is_no_fault(fifth: Callable[..., Path]) -> None:
    fifth(("fifthcaps/__init__.py", "    def compile(", "    train = evaluate = None\n\n    def compile("))
    assert fault("fifth") is None
    assert lacking("fifth") == "train, evaluate"
    check = probe(registry.resolve("fifth"), sys.executable, 60)
    assert check.state == "warning"
    assert "an adapter: it lacks train, evaluate" in check.detail


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
