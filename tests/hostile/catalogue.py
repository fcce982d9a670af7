"""Fifty hostile surroundings for a small run: variables, locales, places and folders, each combined with others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COUNT = 50

VARIABLES: dict[str, tuple[str, dict[str, str]]] = {
    "nothing": ("numpy", {}),
    "warnings are errors": ("numpy", {"PYTHONWARNINGS": "error"}),
    "asserts and docstrings gone": ("numpy", {"PYTHONOPTIMIZE": "2"}),
    "python for debugging": ("numpy", {"PYTHONDEVMODE": "1", "PYTHONMALLOC": "debug", "PYTHONFAULTHANDLER": "1"}),
    "python's odds and ends": (
        "numpy",
        {
            "PYTHONHASHSEED": "4711",
            "PYTHONSTARTUP": "/nowhere.py",
            "PYTHONIOENCODING": "ascii:strict",
            "PYTHONUSERBASE": "/x",
        },
    ),
    "an empty entry in the import path": ("numpy", {"PYTHONPATH": "/nowhere:"}),
    "an older processor": (
        "numpy",
        {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3", "MKL_DEBUG_CPU_TYPE": "5"},
    ),
    "threads bound elsewhere": (
        "torch",
        {"OMP_PROC_BIND": "true", "OMP_PLACES": "{0}", "GOMP_CPU_AFFINITY": "0", "KMP_AFFINITY": "verbose,compact"},
    ),
    "too many threads": (
        "torch",
        {"OMP_NUM_THREADS": "64", "MKL_NUM_THREADS": "64", "OPENBLAS_NUM_THREADS": "64", "OMP_DYNAMIC": "true"},
    ),
    "hardly any threads": ("numpy", {"OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "none", "NUMEXPR_MAX_THREADS": "0"}),
    "an allocator that scribbles": (
        "numpy",
        {"MALLOC_PERTURB_": "165", "MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "x"},
    ),
    "a preloaded library": ("numpy", {"LD_PRELOAD": "/nowhere.so", "LD_BIND_NOW": "1"}),
    "flags of XLA": ("jax", {"XLA_FLAGS": "--xla_no_such_flag=1", "TF_XLA_FLAGS": "--tf_xla_no_such_flag"}),
    "another JAX": (
        "jax",
        {
            "JAX_PLATFORMS": "tpu",
            "JAX_ENABLE_X64": "1",
            "JAX_DISABLE_JIT": "1",
            "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
        },
    ),
    "JAX for debugging": (
        "jax",
        {"JAX_DEBUG_NANS": "1", "JAX_CHECK_TRACER_LEAKS": "1", "JAX_NUMPY_RANK_PROMOTION": "raise"},
    ),
    "another TensorFlow": (
        "tf",
        {
            "TF_ENABLE_ONEDNN_OPTS": "0",
            "TF_USE_LEGACY_KERAS": "1",
            "TF_NUM_INTRAOP_THREADS": "x",
            "KERAS_BACKEND": "torch",
        },
    ),
    "another Keras": ("tf", {"KERAS_BACKEND": "no such", "KERAS_HOME": "/proc/keras", "TF_CPP_MIN_LOG_LEVEL": "0"}),
    "another PyTorch": (
        "torch",
        {"ATEN_CPU_CAPABILITY": "default", "TORCH_LOGS": "nonsense", "TORCHDYNAMO_DISABLE": "1", "PYTORCH_JIT": "0"},
    ),
    "another oneDNN": (
        "torch",
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "MKL_CBWR": "COMPATIBLE"},
    ),
    "a GPU that is gone": (
        "numpy",
        {"CUDA_VISIBLE_DEVICES": "7", "CUDA_DEVICE_ORDER": "x", "NVIDIA_TF32_OVERRIDE": "1"},
    ),
    "windows": ("numpy", {"MPLBACKEND": "TkAgg", "DISPLAY": ":99"}),
    "a window toolkit that is none": ("numpy", {"MPLBACKEND": "module://nowhere"}),
    "a terminal of three columns": ("numpy", {"COLUMNS": "3", "LINES": "1", "TERM": "dumb", "FORCE_COLOR": "1"}),
    "servers that are gone": (
        "numpy",
        {"RAY_ADDRESS": "nowhere:1", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
    ),
    "folders of ours that cannot be": (
        "numpy",
        {"CAPSBENCH_DATA": "/nowhere", "CAPSBENCH_GATE_CACHE": "/proc/nothing"},
    ),
}
"""What it is -> the implementation that would feel it most, and the variables."""

LOCALES: dict[str, dict[str, str]] = {
    "UTF-8": {"LANG": "C.UTF-8"},
    "none": {},
    "C": {"LC_ALL": "C"},
    "plain ASCII": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "German": {"LANG": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8", "LANGUAGE": "de"},
    "Turkish": {"LC_ALL": "tr_TR.UTF-8"},
    "broken": {"LC_ALL": "xx_YY.nonsense", "LANG": "?"},
}

PLACES = (
    "plain",
    "with spaces  in it",
    "what? #1 100%25",
    'it\'s "quoted" $HOME `id`',
    "Übergrößenträger",
    f"{'long' * 25}/{'longer' * 18}",
    "[bold]brackets[/bold] {braces}",
    "-s",
    "\N{SLIGHTLY SMILING FACE}; & | < >",
)
"""Where it runs: the working directory's path below some folder."""

BESIDE = ("random", "types", "signal", "torch", "numpy", "jax", "yaml", "harness", "impls", "sitecustomize", "secrets")
"""Modules that lie in the working directory, and must not pass for others."""


def _no_home(env: dict[str, str], base: Path, here: Path) -> None:
    del env["HOME"]


def _missing_home(env: dict[str, str], base: Path, here: Path) -> None:
    env["HOME"] = str(base / "nowhere")


def _read_only_home(env: dict[str, str], base: Path, here: Path) -> None:
    Path(env["HOME"]).chmod(0o555)


def _empty_home(env: dict[str, str], base: Path, here: Path) -> None:
    env["HOME"] = ""


def _home_is_a_file(env: dict[str, str], base: Path, here: Path) -> None:
    env["HOME"] = str(here / "small.yaml")


def _missing_tmp(env: dict[str, str], base: Path, here: Path) -> None:
    env["TMPDIR"] = str(base / "nowhere")


def _read_only_tmp(env: dict[str, str], base: Path, here: Path) -> None:
    Path(env["TMPDIR"]).chmod(0o555)


def _long_tmp(env: dict[str, str], base: Path, here: Path) -> None:
    folder = base / ("deep" * 40)
    folder.mkdir()
    env["TMPDIR"] = str(folder)


def _relative_xdg(env: dict[str, str], base: Path, here: Path) -> None:
    env.update(XDG_CACHE_HOME="cache", XDG_CONFIG_HOME="./config", XDG_DATA_HOME="~/data")


def _read_only_xdg(env: dict[str, str], base: Path, here: Path) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        folder = base / name
        folder.mkdir()
        folder.chmod(0o555)
        env[name] = str(folder)


def _read_only_here(env: dict[str, str], base: Path, here: Path) -> None:
    here.chmod(0o555)


def _no_path(env: dict[str, str], base: Path, here: Path) -> None:
    env["PATH"] = ""


def _as_it_is(env: dict[str, str], base: Path, here: Path) -> None:
    pass


FOLDERS: dict[str, Callable[[dict[str, str], Path, Path], None]] = {
    "as it is": _as_it_is,
    "no HOME": _no_home,
    "HOME is not there": _missing_home,
    "HOME is read-only": _read_only_home,
    "HOME is empty": _empty_home,
    "HOME is a file": _home_is_a_file,
    "TMPDIR is not there": _missing_tmp,
    "TMPDIR is read-only": _read_only_tmp,
    "TMPDIR is long": _long_tmp,
    "XDG folders are relative": _relative_xdg,
    "XDG folders are read-only": _read_only_xdg,
    "the working directory is read-only": _read_only_here,
    "no PATH": _no_path,
}

REFUSED = ("the working directory is read-only",)
"""Folders with which there can be no run: exit code 2 and a sentence."""


@dataclass(frozen=True)
class Surroundings:
    """One of the fifty; each part is a key, or a member, of the tables above."""

    variables: str
    locale: str
    place: str
    folders: str
    has_account: bool  # False: the system knows no name and no home for the user
    has_modules: bool  # True: those of `BESIDE` lie in the working directory

    @property
    def name(self) -> str:
        more = [*([] if self.has_account else ["no account"]), *(["modules beside"] if self.has_modules else [])]
        return "; ".join([self.variables, f"locale {self.locale}", self.place[:24], self.folders, *more])

    @property
    def impl(self) -> str:
        return VARIABLES[self.variables][0]

    @property
    def environment(self) -> Mapping[str, str]:
        return {**VARIABLES[self.variables][1], **LOCALES[self.locale]}

    @property
    def may_be_refused(self) -> bool:
        return self.folders in REFUSED


def every() -> list[Surroundings]:
    """All fifty: each value of each table several times, beside others of the other tables."""
    variables, locales, folders = list(VARIABLES), list(LOCALES), list(FOLDERS)
    return [
        Surroundings(
            variables[i % len(variables)],
            locales[(3 * i + i // len(variables)) % len(locales)],
            PLACES[(2 * i + i // len(PLACES)) % len(PLACES)],
            folders[(5 * i + i // len(folders)) % len(folders)],
            has_account=i % 4 != 3,
            # With an empty entry in its import path, Python itself takes the working directory's before capsbench begins.
            has_modules=i % 3 == 1 and not VARIABLES[variables[i % len(variables)]][1].get("PYTHONPATH"),
        )
        for i in range(COUNT)
    ]


def sample(candidates: Sequence[Surroundings], count: int, seed: str) -> list[Surroundings]:
    """`count` of them, the same for the same seed."""
    return sorted(candidates, key=lambda each: hashlib.sha256(f"{seed} {each.name}".encode()).digest())[:count]
