"""One environment for every child, whatever the shell has set; what it found is told."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.machine import surroundings
from harness.machine.surroundings import (
    child_environment,
    found,
    kept,
    own_folder,
    record,
    refused,
    remark,
    settle,
    unusable,
)
from tests.helpers.run_helpers import ROOT

QUIET = {"PATH": "/bin", "HOME": str(Path.home()), "USER": "u"}
CHILD = {
    "PYTHONSAFEPATH": "1",
    "PYTHONUTF8": "1",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": str(ROOT),
    "MPLBACKEND": "Agg",
}


@pytest.fixture(autouse=True)
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A shell that has set nothing, and temporary files of this test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in os.environ.keys() - QUIET.keys():
        monkeypatch.delenv(name)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(surroundings, "_given", None)
    return monkeypatch


def child(**variables: str) -> dict[str, str]:
    return child_environment({**QUIET, **variables})


def test_a_child_of_a_quiet_shell() -> None:
    assert child() == {**QUIET, **CHILD, "KERAS_HOME": str(own_folder() / "settings")}


def test_a_library_to_preload_has_to_be_there() -> None:
    assert "no file /nowhere/libx.so" in (unusable("LD_PRELOAD", f"{__file__}:/nowhere/libx.so") or "")
    assert unusable("LD_PRELOAD", f"{__file__} libjemalloc.so.2 $LIB/x.so") is None
    assert unusable("XLA_FLAGS", "/nowhere") is None


@pytest.mark.parametrize(
    "name",
    [
        "XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "TORCH_LOGS",
        "TORCHINDUCTOR_CACHE_DIR", "PYTORCH_CUDA_ALLOC_CONF", "KERAS_BACKEND", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA",
        "DNNL_VERBOSE", "OPENBLAS_CORETYPE", "NVIDIA_TF32_OVERRIDE", "LD_PRELOAD", "OMP_PROC_BIND", "OMP_PLACES",
        "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "CUDA_LAUNCH_BLOCKING", "PYTHONWARNINGS",
        "PYTHONOPTIMIZE", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONMALLOC", "NPY_DISABLE_CPU_FEATURES",
    ],
)  # fmt: skip
def test_what_changes_results_or_times_is_cleared_and_told(name: str, shell: pytest.MonkeyPatch) -> None:
    assert name not in child(**{name: "1"})
    shell.setenv(name, "1")
    assert record()["cleared"] == {name: "1"}
    assert (name in (remark() or "")) == (not name.startswith("PYTHON") and "_LOG" not in name)


@pytest.mark.parametrize(
    "name",
    [
        "CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH", "TF_VAR_token", "TF_CLI_CONFIG_FILE", "TF_TOKEN_app", "CUDA_VERSION",
        "HTTPS_PROXY", "AWS_PROFILE", "SSL_CERT_FILE", "CAPSBENCH_DATA", "PYTHONDONTWRITEBYTECODE", "OMPI_COMM_WORLD_RANK",
    ],
)  # fmt: skip
def test_what_does_not_is_kept(name: str, shell: pytest.MonkeyPatch) -> None:
    assert child(**{name: "x"})[name] == "x"
    shell.setenv(name, "x")
    assert not record()["cleared"]
    assert remark() is None


def test_locale_and_threads_are_the_same_for_all() -> None:
    own = {"LANG": "de_DE", "LC_NUMERIC": "de_DE", "LANGUAGE": "de", "OMP_NUM_THREADS": "64", "PYTHONUTF8": "0"}
    assert child(**own) == child()


def test_tools_have_their_own_variables() -> None:
    own = {"MLFLOW_TRACKING_URI": "u", "RAY_ADDRESS": "a", "TUNE_X": "t"}
    assert child(**own) == child()
    assert child_environment({**QUIET, **own}, keep=("MLFLOW_",)) == {**child(), "MLFLOW_TRACKING_URI": "u"}


def test_an_empty_entry_of_the_import_path_is_not_the_working_directory() -> None:
    assert child(PYTHONPATH=f":/mine::{ROOT}:")["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/mine"]
    assert child(PYTHONPATH="")["PYTHONPATH"] == str(ROOT)


def test_an_installed_harness_does_not_put_its_neighbours_before_python_s_own(shell: pytest.MonkeyPatch) -> None:
    shell.setattr(surroundings, "_BENCH", [])
    assert child(PYTHONPATH="/mine")["PYTHONPATH"] == "/mine"


def test_modules_in_the_working_directory_are_not_python_s(tmp_path: Path) -> None:
    for name in ("random", "types", "torch", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('mine')\n")
    code = "import random, types, subprocess, sys; subprocess.run([sys.executable, '-c', 'import random'], check=True)"
    env = child(PATH=os.environ["PATH"], PYTHONPATH=":")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("home", [None, "", "/nowhere", "relative", __file__])
def test_a_home_where_there_is_none(home: str | None, shell: pytest.MonkeyPatch) -> None:
    shell.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such account")))
    base = {name: value for name, value in QUIET.items() if name not in ("HOME", "USER")}
    env = child_environment(base if home is None else {**base, "HOME": home})
    assert env["HOME"] == str(own_folder() / "home")
    assert os.access(env["HOME"], os.W_OK)
    assert env["MPLCONFIGDIR"].startswith(env["HOME"])
    assert env["USER"] == env["LOGNAME"] == f"uid{os.getuid()}"


def test_the_home_of_the_account_where_the_shell_names_none() -> None:
    import pwd

    own = pwd.getpwuid(os.getuid()).pw_dir
    assert child_environment({"PATH": "/bin"})["HOME"] == own


def test_a_read_only_home_can_still_be_read(tmp_path: Path, shell: pytest.MonkeyPatch) -> None:
    (tmp_path / "me" / ".cache").mkdir(parents=True)
    shell.setattr(surroundings, "_is_usable", lambda _: False)  # root may write anywhere
    env = child(HOME=str(tmp_path / "me"))
    assert env["HOME"] == str(own_folder() / "home")
    assert env["XDG_CACHE_HOME"] == str(tmp_path / "me" / ".cache")


def test_relative_folders_that_the_standard_ignores_are_dropped() -> None:
    found = child(XDG_CACHE_HOME="cache", XDG_CONFIG_HOME="/c", TMPDIR="/nowhere")
    assert "XDG_CACHE_HOME" not in found
    assert found["XDG_CONFIG_HOME"] == "/c"
    assert found["TMPDIR"] == tempfile.gettempdir()


def test_no_place_for_temporary_files_is_said(tmp_path: Path, shell: pytest.MonkeyPatch) -> None:
    shell.chdir(tmp_path)
    assert own_folder().parent == tmp_path  # a user at work in /tmp
    shell.setattr(surroundings, "_temporary", lambda: ["/nowhere"])  # Python's last resort
    with pytest.raises(UserError, match="set TMPDIR to one"):
        own_folder()
    shell.setattr(tempfile, "gettempdir", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    with pytest.raises(UserError, match="set TMPDIR to one"):
        own_folder()


def test_settling_clears_this_process_and_remembers(shell: pytest.MonkeyPatch) -> None:
    for name, value in {"XLA_FLAGS": "--x", "OMP_NUM_THREADS": "3", "RAY_ADDRESS": "a", "LANG": "de_DE"}.items():
        shell.setenv(name, value)
    settle()
    assert "XLA_FLAGS" not in os.environ
    assert (os.environ["OMP_NUM_THREADS"], os.environ["RAY_ADDRESS"], os.environ["LANG"]) == ("3", "a", "de_DE")
    assert os.environ["MPLBACKEND"] == "Agg"
    assert [(row.name, row.value, row.fate) for row in found()] == [
        ("OMP_NUM_THREADS", "3", "replaced"),
        ("XLA_FLAGS", "--x", "cleared"),
    ]


def test_the_shell_can_name_what_trials_keep(shell: pytest.MonkeyPatch) -> None:
    shell.setenv("CAPSBENCH_KEEP", "XLA_FLAGS, LD_PRELOAD,NOT_SET")
    shell.setenv("XLA_FLAGS", "--x")
    assert kept() == {"XLA_FLAGS": "--x"}
    assert record()["kept"] == {"XLA_FLAGS": "--x"}
    assert remark() is None
    shell.setenv("CAPSBENCH_KEEP", "CUDA_VISIBLE_DEVICES")
    shell.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError, match=r"CAPSBENCH_KEEP: CUDA_VISIBLE_DEVICES: .*resources\.gpus"):
        kept()


@pytest.mark.parametrize("name", ["XLA_FLAGS", "LD_PRELOAD", "MY_OWN", "KERAS_BACKEND", "_x1"])
def test_what_a_suite_may_set(name: str) -> None:
    assert refused(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("OMP_NUM_THREADS", "resources.cpus"),
        ("NVIDIA_TF32_OVERRIDE", "runtime.precision"),
        ("PYTHONPATH", "the same for every trial"),
        ("1X", "the name of an environment variable"),
        ("A=B", "the name of an environment variable"),
        ("", "the name of an environment variable"),
    ],
)
def test_what_it_may_not(name: str, reason: str) -> None:
    assert reason in str(refused(name))
