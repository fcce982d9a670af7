"""What the processes that capsbench starts find around them: one environment, whatever the user's shell has set.

Variables that change results or times are cleared. A suite that wants one names it (`runtime.environment`), or the shell
does (`CAPSBENCH_KEEP=XLA_FLAGS,LD_PRELOAD`, for all suites): it is then part of each trial's identity, and recorded.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness import registry
from harness.errors import UserError

KEEP = "CAPSBENCH_KEEP"
"""The environment variable that names variables, separated by commas, which trials keep as if a suite had set them."""

_LIBRARIES = (
    "MKL_", "MKLDNN_", "DNNL_", "ONEDNN_", "OPENBLAS_", "GOTO_", "BLIS_", "NVPL_", "ARMPL_", "VECLIB_", "FLEXIBLAS",
    "LIBXSMM_", "NPY_", "NUMPY_", "SCIPY_", "NUMEXPR_", "OMP_", "GOMP_", "KMP_", "TBB_", "CUDA_", "CUBLAS", "CUDNN_", "NCCL_",
    "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
_SYSTEM = (
    "LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES", "MALLOC_", "TCMALLOC_", "JEMALLOC_", "MIMALLOC_",
)  # fmt: skip
_HARMLESS = re.compile(
    r"\w+_(HOME|PATH|ROOT|ROOT_DIR|VERSION|BUILD_VERSION)|CUDA_(PATH\w*|ARCH\w*|MPS_\w+)"  # where something is, and which
    # Terraform's
    r"|TF_(CLI_\w+|VAR_\w+|TOKEN_\w+|LOG\w*|DATA_DIR|INPUT|IN_AUTOMATION|REGISTRY_\w+|WORKSPACE|PLUGIN_CACHE_DIR)"
)
_OWN = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "KERAS_HOME", "MPLBACKEND")
"""Set anew for every process or trial."""
_LOADING = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "CUDA_HOME", "CUDA_PATH")
"""Kept, since an installation may need them, though they decide which libraries are loaded."""
_PYTHON = {
    "PYTHONPATH", "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "PYTHONNOUSERSITE", "PYTHONUSERBASE",
    "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONFAULTHANDLER", "PYTHONUNBUFFERED",
}  # fmt: skip
"""The variables of Python itself that its children keep; others make it warn, stop or count differently."""
_OF_ONE_PYTHON = ("PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__", "PYTHONPATH")
_TOOLS = ("RAY_", "TUNE_", "MLFLOW_")
"""A worker is not part of Ray or MLflow: their addresses, tokens and patched devices are not for it."""
_PACKAGES = Path(__file__).resolve().parents[2]
_BENCH = [] if _PACKAGES.name in ("site-packages", "dist-packages") else [str(_PACKAGES)]
"""Where it is installed the interpreter finds it, and on the import path all of its neighbours would hide Python's own."""

Fate = Literal["cleared", "replaced", "kept"]


@dataclass(frozen=True)
class Variable:
    """A variable of the user's shell that could matter to a trial, and what becomes of it."""

    name: str
    value: str
    fate: Fate


_given: dict[str, str] | None = None  # what the shell had set, once `settle` has cleared this process's environment


def given() -> Mapping[str, str]:
    """The environment that this process was started with."""
    return os.environ if _given is None else _given


def settle() -> None:
    """Clears this process's own environment, for all that it loads and starts; called once, when a command begins."""
    global _given
    _given = dict(os.environ)
    try:
        wanted = _cleared(_given)
    except UserError:  # no place for temporary files: what needs one will say so
        return
    for name in _given.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def child_environment(base: Mapping[str, str], keep: Collection[str] = ()) -> dict[str, str]:
    """The environment of any process that capsbench starts; `base` is that of the process which starts it.

    `keep`: beginnings of names that are dropped otherwise, such as "MLFLOW_" for MLflow's server. Raises `UserError` if
    there is no folder for temporary files.
    """
    dropped = tuple(each for each in _TOOLS if each not in keep)
    env = {
        name: value
        for name, value in _cleared(base).items()
        if not name.startswith((*dropped, "LC_")) and name not in ("LANG", "LANGUAGE") and not _is_thread_count(name)
    }
    return env | {
        # Not the user's own settings.
        "KERAS_HOME": str(own_folder() / "settings"),
        # A file of the working directory must not pass for a library, in a child's own children too.
        "PYTHONSAFEPATH": "1",
        # Text in and out is UTF-8, numbers have a decimal point, whatever the user's language.
        "PYTHONUTF8": "1",
        "LC_ALL": "C.UTF-8",
        # Sets and dictionaries of strings in the same order in every run.
        "PYTHONHASHSEED": "0",
        # This harness, wherever it is, whatever the child's interpreter.
        "PYTHONPATH": os.pathsep.join(python_path(base)),
    }


def in_another_python(env: Mapping[str, str]) -> dict[str, str]:
    """`env`, as `child_environment` gives it, for an interpreter that is not ours: without what was set or installed for ours.

    Of PYTHONPATH the folders stay in which nothing is installed, such as the user's own modules.
    """
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path and not holds_packages(path)]
    found = {name: value for name, value in env.items() if name not in _OF_ONE_PYTHON}
    return found | {"PYTHONPATH": os.pathsep.join(path for path in paths if path not in _BENCH)}


def holds_packages(folder: str) -> bool:
    """Whether distributions are installed in the folder, which are for one Python and may not work in another."""
    path = Path(folder)
    return path.name in ("site-packages", "dist-packages") or any(path.glob("*.dist-info"))


def kept() -> dict[str, str]:
    """The variables that `CAPSBENCH_KEEP` names, as far as they are set. Raises `UserError` for one that is ours to set."""
    names = [name.strip() for name in given().get(KEEP, "").split(",")]
    found = {name: given()[name] for name in names if name in given()}
    for name in found:
        if reason := refused(name):
            raise UserError(f"{KEEP}: {name}: {reason}")
    return found


def refused(name: str) -> str | None:
    """Why a suite cannot set the variable; None if it can."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return "expected the name of an environment variable, such as XLA_FLAGS"
    if name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        return "capsbench sets it; use resources.gpus"
    if name == "NVIDIA_TF32_OVERRIDE":
        return "capsbench sets it; use runtime.precision"
    if name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        return "capsbench sets it; use resources.cpus"
    if name.startswith(("PYTHON", "CAPSBENCH_", "LC_")) or name in ("LANG", "HOME", "MPLBACKEND", "KERAS_HOME"):
        return "capsbench sets it, the same for every trial"
    return None


def found() -> list[Variable]:
    """The variables of the user's shell that could change a result or a time, and what becomes of each."""
    wanted, beginnings = kept_names(), _decisive()
    rows: list[Variable] = []
    for name, value in sorted(given().items()):
        if name in wanted or name in _LOADING:
            rows.append(Variable(name, value, "kept"))
        elif name in _OWN or _is_thread_count(name):
            rows.append(Variable(name, value, "replaced"))
        elif _is_cleared(name, beginnings):
            rows.append(Variable(name, value, "cleared"))
    return rows


def record() -> dict[str, dict[str, str]]:
    """The same as JSON: fate -> name -> value."""
    rows = found()
    fates: tuple[Fate, ...] = ("cleared", "replaced", "kept")
    return {fate: {row.name: row.value for row in rows if row.fate == fate} for fate in fates}


def remark() -> str | None:
    """A sentence about what was cleared that a user may have meant for the trials; None if there is nothing."""
    cleared = (row.name for row in found() if row.fate == "cleared")
    names = [name for name in cleared if not name.startswith("PYTHON") and "_LOG" not in name]
    if not names:
        return None
    return (
        f"set here, but not for the trials: {', '.join(names)}; to have one: -s runtime.environment.{names[0]}=... "
        "(it then counts in the trial's id)"
    )


def kept_names() -> set[str]:
    """The names in `CAPSBENCH_KEEP`."""
    return {name.strip() for name in given().get(KEEP, "").split(",")} - {""}


def python_path(base: Mapping[str, str]) -> list[str]:
    """The import path of a child, as in PYTHONPATH: this harness, wherever it is, then the user's own."""
    return list(dict.fromkeys([*_BENCH, *_python_path(base)]))


def own_folder() -> Path:
    """The user's folder for capsbench on this node, of this user alone. Raises `UserError` if there can be none."""
    try:
        base = tempfile.gettempdir()
        if base == os.path.abspath(os.curdir) and not any(map(_is_usable, _temporary())):  # noqa: PTH100
            raise FileNotFoundError  # Python's last resort: nothing of ours belongs there
    except FileNotFoundError as error:
        raise UserError("there is no folder for temporary files that can be written to; set TMPDIR to one") from error
    folder = Path(base) / f"capsbench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise UserError(f"cannot keep leases of cores in {folder}: {error.strerror}; set TMPDIR") from error
    if owner != os.getuid():
        raise UserError(f"cannot keep leases of cores in {folder}: it belongs to another user; set TMPDIR elsewhere")
    return folder


def _cleared(base: Mapping[str, str]) -> dict[str, str]:
    """`base` without what changes results, times or Python, and with the folders that programs need."""
    wanted, beginnings = kept_names(), _decisive()
    env = {
        name: value
        for name, value in base.items()
        if name in wanted
        or name in _OWN
        or _is_thread_count(name)
        or not (_is_cleared(name, beginnings) or _is_lost(name, value))
    }
    if "PYTHONPATH" in env:
        env["PYTHONPATH"] = os.pathsep.join(_python_path(base))
    return env | {"MPLBACKEND": "Agg"} | _folders(base)  # no windows


def _decisive() -> tuple[str, ...]:
    """How the variables begin that change results or times."""
    return (*_LIBRARIES, *_SYSTEM, *registry.variables())


def _is_cleared(name: str, beginnings: tuple[str, ...]) -> bool:
    is_decisive = name.startswith(beginnings) and not _HARMLESS.fullmatch(name)
    return is_decisive or (name.startswith("PYTHON") and name not in _PYTHON)


def _is_lost(name: str, value: str) -> bool:
    """Whether it is a relative path where the standard says to ignore one: files would appear anywhere."""
    return name.startswith("XDG_") and name.endswith("_HOME") and not os.path.isabs(value)  # noqa: PTH117


def _is_thread_count(name: str) -> bool:
    """Whether it is the number of a library's threads: a trial gets its own, the bench's own process obeys it."""
    return name.endswith(("_NUM_THREADS", "_MAXIMUM_THREADS", "_MAX_THREADS"))


def _python_path(base: Mapping[str, str]) -> list[str]:
    """The user's own import path. An empty entry, as in "$PYTHONPATH:/mine", would be the working directory: it goes."""
    return [os.path.abspath(path) for path in base.get("PYTHONPATH", "").split(os.pathsep) if path]  # noqa: PTH100


def _folders(base: Mapping[str, str]) -> dict[str, str]:
    """A home, a name and a folder for temporary files, where the shell gives none that can be used."""
    found: dict[str, str] = {}
    home, is_named = _account(base)
    if home and _is_usable(home):
        found["HOME"] = home
    else:
        own = own_folder() / "home"
        own.mkdir(exist_ok=True)
        found |= {"HOME": str(own), "MPLCONFIGDIR": str(own / "matplotlib")}
        if home and Path(home, ".cache").is_dir():  # what is there can still be read
            found |= {} if base.get("XDG_CACHE_HOME") else {"XDG_CACHE_HOME": str(Path(home, ".cache"))}
    if not is_named:  # libraries ask for the user's name, and fail without
        found |= {"USER": f"uid{os.getuid()}", "LOGNAME": f"uid{os.getuid()}"}
    if base.get("TMPDIR") and not _is_usable(base["TMPDIR"]):
        found["TMPDIR"] = str(own_folder().parent)
    return found


def _account(base: Mapping[str, str]) -> tuple[str | None, bool]:
    """The user's home, if the shell or the system knows one; whether the user has a name."""
    home, is_named = base.get("HOME"), bool(base.get("LOGNAME") or base.get("USER"))
    with suppress(ImportError, KeyError):
        import pwd

        entry = pwd.getpwuid(os.getuid())
        return home or entry.pw_dir, True
    return home, is_named


def _temporary() -> list[str]:
    """Where Python looks for a folder for temporary files, before it takes the working directory."""
    asked = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return [folder for folder in (*asked, "/tmp", "/var/tmp", "/usr/tmp") if folder]


def _is_usable(folder: str) -> bool:
    return os.path.isabs(folder) and Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)  # noqa: PTH117
