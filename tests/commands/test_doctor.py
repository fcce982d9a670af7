"""The doctor: real probes of real, broken and absent frameworks."""

from __future__ import annotations

import importlib.metadata
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness import registry
from harness.commands import doctor
from harness.commands.doctor import Check, Diagnosis, diagnose, probe, render
from harness.executors.listening import Instance
from harness.machine.environment import environment
from tests.helpers.gpu_helpers import put_gpus

FRAMEWORKS = ("torch", "tf", "jax")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with nothing installed."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a package into the path of the probes, before the installed one."""

    def put(package: str, source: str) -> None:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def look(name: str, python: str = sys.executable, timeout_s: float = 120.0) -> Check:
    return probe(registry.resolve(name), python, timeout_s)


def by_name(diagnosis: Diagnosis) -> dict[str, Check]:
    return {check.name: check for check in diagnosis.checks}


def printed(diagnosis: Diagnosis) -> str:
    console = Console(file=io.StringIO(), width=200)
    render(diagnosis, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("name", ["numpy", *FRAMEWORKS])
def test_installed_frameworks(name: str) -> None:
    entry = registry.resolve(name)
    if missing := registry.missing(entry):
        pytest.skip(missing)
    check = look(name)
    assert check.state == "ok"
    assert check.advice is None
    assert set(check.versions) == set(entry.packages)
    assert check.devices[0] == "cpu"
    for package, version in check.versions.items():
        dists = importlib.metadata.packages_distributions()[package]
        assert version in {importlib.metadata.version(dist) for dist in dists}
        assert f"{package} {version}" in check.detail


def test_absent(bare_python: str) -> None:
    check = look("jax", bare_python)
    assert (check.state, check.detail) == ("absent", "not installed: jax, optax")
    assert check.advice == 'pip install "capsbench[jax]"'
    assert check.devices == []


def test_a_folder_is_no_package(bare_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert look("torch", bare_python).state == "absent"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('raise ImportError("libcudart.so.11: no such file\\n\\nSee the guide.")', "libcudart.so.11: no such file"),
        ("import no_such_part", "ModuleNotFoundError: No module named 'no_such_part'"),
        ("raise SystemExit(3)", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL"),
        ("def f(:", "SyntaxError: invalid syntax"),
    ],
)
def test_broken(fake, source: str, reason: str) -> None:
    fake("tensorflow", f'print("noise"); __version__ = "1"\n{source}\n')
    check = look("tf")
    assert check.state == "broken"
    assert reason in check.detail
    assert "\n" not in check.detail
    assert check.advice
    assert 'pip install "capsbench[tf]"' in check.advice


def test_one_that_never_ends(fake) -> None:
    fake("torch", "import threading; threading.Event().wait()\n")
    check = look("torch", timeout_s=1.0)
    assert (check.state, check.detail) == ("broken", "importing torch took more than 1 s")


def test_noise_is_no_answer(fake) -> None:
    fake("numpy", 'import atexit; __version__ = "9.9"; print("hello"); atexit.register(print, "bye")\n')
    assert look("numpy").versions["numpy"] == "9.9"


def test_no_interpreter(tmp_path: Path) -> None:
    check = look("torch", str(tmp_path / "python"))
    assert check.state == "broken"
    assert "No such file" in check.detail


def test_the_bench_goes_on_without_a_broken_framework(fake, tmp_path: Path) -> None:
    fake("tensorflow", 'raise ImportError("broken on purpose")\n')
    cuda = "class cuda:\n    device_count = lambda: 1\n    get_device_name = lambda index: f'GPU number {index}'\n"
    fake("torch", f"__version__ = '1'\n{cuda}")
    fake("jax", "__version__ = '1'\ndef devices():\n    return []\n")
    fake("optax", "")
    found = diagnose(tmp_path / "runs", str(tmp_path / "data"))
    checks = by_name(found)
    assert found.ok
    assert found.ready == ["torch", "jax"]
    assert checks["tf"].detail == "ImportError: broken on purpose"
    assert checks["torch"].devices == ["cpu", "GPU number 0"]
    assert checks["ray"].detail == found.environment["versions"].get("ray", "not installed")
    assert json.loads(json.dumps(found.to_json()))["ready"] == ["torch", "jax"]
    text = printed(found)
    assert "ImportError: broken on purpose" in text
    assert 'pip install "capsbench[tf]"' in text  # not taken for markup
    assert "Ready to train with: torch, jax." in text


def test_nothing_can_run(bare_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "environment", lambda: environment() | {"versions": {}})  # no Ray, no MLflow
    found = diagnose(tmp_path / "runs", str(tmp_path / "data"), python=bare_python)
    checks = by_name(found)
    assert not found.ok
    assert found.ready == []
    assert {checks[name].state for name in FRAMEWORKS} == {"absent"}
    for check in found.checks:
        assert (check.advice is None) == (check.state == "ok"), check.name
    assert "--executor inline" in str(checks["ray"].advice)
    assert "capsbench sync" in str(checks["mlflow"].advice)
    assert checks["digits"].state == "ok"
    assert checks["mnist"].state == "absent"
    assert "CAPSBENCH_DATA" in str(checks["mnist"].advice)
    assert checks["cores"].detail.startswith(f"{found.environment['cores']} of ")
    assert not (tmp_path / "runs").exists()
    text = printed(found)
    assert "Nothing can be trained" in text
    for check in found.checks:
        assert check.name in text


def test_a_corrupt_data_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"junk")
    check = next(check for check in doctor._data(str(tmp_path)) if check.name == "mnist")
    assert check.state == "broken"
    assert "train-labels-idx1-ubyte: corrupt" in check.detail
    assert str(check.advice).startswith("Remove or replace")


def test_machine_warnings(tmp_path: Path) -> None:
    small = {"cores": 1, "memory_bytes": 10**9, "cpu": "c", "python": "3", "os": "o"}
    checks = {check.name: check for check in doctor._machine(small, load=0.9, out=tmp_path)}
    assert {name for name, check in checks.items() if check.state != "ok"} == {"cores", "load", "memory"}
    assert "resources.cpus=1" in str(checks["cores"].advice)
    large = small | {"cores": 8, "memory_bytes": 10**11}
    assert {check.state for check in doctor._machine(large, load=0.9, out=tmp_path)} == {"ok"}


def test_what_the_shell_has_set_is_listed() -> None:
    nothing = doctor._shell({"cleared": {}, "replaced": {}, "kept": {}})
    assert (nothing.state, nothing.advice) == ("ok", None)
    assert doctor._shell({"cleared": {}, "replaced": {"OMP_NUM_THREADS": "1"}, "kept": {}}).state == "ok"
    check = doctor._shell(
        {"cleared": {"XLA_FLAGS": "a", "MKL_CBWR": "b"}, "replaced": {"MPLBACKEND": "c"}, "kept": {"K": "d"}}
    )
    assert check.state == "warning"
    assert check.detail == "cleared for trials: XLA_FLAGS, MKL_CBWR; set anew for each: MPLBACKEND; kept: K"
    assert "-s runtime.environment.XLA_FLAGS=" in str(check.advice)


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(tmp_path, monkeypatch, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    check = doctor._gpus({"gpus": ["H100"]}, [])
    assert check.state == "warning"
    assert check.detail.startswith("CUDA_VISIBLE_DEVICES names 3, but the driver shows no such GPU")
    assert "nvidia-smi -L" in str(check.advice)


def test_gpus_that_a_framework_does_not_see() -> None:
    sees = Check("implementation", "torch", "ok", "", devices=["cpu", "H100"])
    blind = Check("implementation", "jax", "ok", "", devices=["cpu"])
    warned = doctor._gpus({"gpus": ["H100"]}, [sees, blind])
    assert warned.state == "warning"
    assert "not seen by jax" in warned.detail
    assert doctor._gpus({"gpus": ["H100"]}, [sees]).state == "ok"
    assert doctor._gpus({"gpus": []}, [blind]).state == "ok"


@pytest.mark.parametrize(
    ("address", "asks", "state", "told"),
    [
        (
            "127.0.0.1",
            True,
            "ok",
            "a private one of a bench, listens on 127.0.0.1: this machine alone; asks for a token",
        ),
        ("0.0.0.0", True, "ok", "listens on 0.0.0.0: ports 6379 (gcs_server); asks for a token"),
        ("::", False, "warning", "listens on ::: ports 6379 (gcs_server); asks for no token"),
    ],
)
def test_who_listens(address: str, asks: bool, state: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the sockets of a Ray are found is tested with the executor, on a real one."""
    ray = Instance(7, 6, is_private=True, asks_for_token=asks, sockets=((address, 6379, "gcs_server"),))
    monkeypatch.setattr(doctor, "ray_instances", lambda: [ray])
    [check] = doctor._listening()
    assert (check.name, check.state, check.detail) == ("Ray (6)", state, told)
    assert bool(check.advice) == (state == "warning")
