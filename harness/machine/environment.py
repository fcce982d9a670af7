"""Where results come from: the machine, the versions, the code. Reads files and metadata; imports no framework."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.machine import cgroups
from harness.machine.surroundings import given, record

_BENCH_DISTS = ("ray", "mlflow")
_ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, Any]:
    """JSON-able: host, os, cpu, cores, memory_bytes, gpus (names), python, versions by dist, git {commit, dirty}, variables.

    `memory_bytes` is None if the platform does not tell; `git` is None if the code is not in its own checkout;
    `variables` says what became of the shell's (`harness.machine.surroundings.record`).
    """
    return {
        "host": platform.node(),
        "os": platform.platform(),
        "cpu": cpu_model(),
        "cores": available_cores(),
        "memory_bytes": memory_bytes(),
        "gpus": [gpu.name for gpu in gpus()],
        "python": platform.python_version(),
        "versions": versions((*registry.distributions(), *_BENCH_DISTS)),
        "git": git_state(_ROOT),
        "variables": record(),
    }


def fingerprint(env: dict[str, Any], impl: str) -> dict[str, Any]:
    """The part of `environment()` that can change a trial's result: hardware, Python, and the libraries of `impl`.

    For an external implementation that does not name them, these are all frameworks, since it may use any.
    """
    entry = registry.known(impl)
    own = entry.distributions if entry else ()
    everyone = registry.resolve(registry.SPECIFICATION).distributions
    dists = {*(own or registry.distributions()), *everyone}
    found = {**versions([dist for dist in own if dist not in registry.distributions()]), **env["versions"]}
    used = {dist: version for dist, version in found.items() if dist in dists}
    return {key: env[key] for key in ("cpu", "cores", "gpus", "python")} | {"versions": used}


def versions(dists: Iterable[str]) -> dict[str, str]:
    """The versions of those of `dists` that are installed."""
    found: dict[str, str] = {}
    for dist in dists:
        try:
            found[dist] = importlib.metadata.version(dist)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """The processor's marketing name, or what the platform knows of it."""
    match = re.search(r"^model name\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    if match:
        return match[1].strip()
    name = _output("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    return name or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Instruction sets by their Linux names ("avx512f", "amx_bf16"); empty if unknown."""
    match = re.search(r"^(?:flags|Features)\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return set(match[1].split()) if match else set()


def available_cores() -> int:
    """The number of cores that this process may use, given its affinity and the container's quota."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = cgroups.cpu_quota()
    return max(1, cores if quota is None else min(cores, math.floor(quota)))


def memory_bytes() -> int | None:
    """Memory that this process may use: the machine's, or the container's or process's own limit if lower."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    own, limit = resource.getrlimit(resource.RLIMIT_AS)[0], cgroups.memory_limit()
    return min([physical, *([] if limit is None else [limit]), *([] if own == resource.RLIM_INFINITY else [own])])


def available_memory_bytes() -> int | None:
    """Memory available now without swapping, within the container's limit; None if the platform does not tell."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", _text("/proc/meminfo"), re.MULTILINE)
    if not match:
        return None
    free, left = int(match[1]) * 1024, cgroups.memory_left()
    return free if left is None else min(free, left)


def out_of_memory_kills() -> int | None:
    """How many processes this machine's kernel has killed for lack of memory; None if it does not tell."""
    match = re.search(r"^oom_kill (\d+)$", _text("/proc/vmstat"), re.MULTILINE)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver reports it; unknown values are None."""

    name: str
    memory_bytes: int | None
    capability: tuple[int, int] | None  # (8, 0) is Ampere


def gpus(ids: Sequence[str] = ()) -> list[Gpu]:
    """The NVIDIA GPUs of this machine, or those in `ids` (as in `CUDA_VISIBLE_DEVICES`); empty without a driver."""
    chosen = ["-i", ",".join(ids)] if ids else []
    fields = "--query-gpu=memory.total,compute_cap,name"
    table = _output("nvidia-smi", *chosen, fields, "--format=csv,noheader,nounits")
    return [_gpu(line) for line in (table or "").splitlines() if line.count(",") >= 2]


def _gpu(line: str) -> Gpu:
    mebibytes, capability, name = (part.strip() for part in line.split(",", 2))
    version = re.fullmatch(r"(\d+)\.(\d+)", capability)
    memory = int(mebibytes) * 2**20 if mebibytes.isdigit() else None  # "[N/A]" if the GPU shares the machine's memory
    return Gpu(name, memory, (int(version[1]), int(version[2])) if version else None)


def gpu_ids(proc: Path = Path("/proc")) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids of the GPUs for trials, as in `CUDA_VISIBLE_DEVICES`; and what it names that the driver does not show."""
    visible = given().get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip():
        return (), ()
    listed = re.findall(r"^GPU (\d+):.*\(UUID: ([\w-]+)\)", table := _output("nvidia-smi", "-L") or "", re.MULTILINE)
    if not listed:  # a container may have the driver without its tools
        shown = sorted((proc / "driver/nvidia/gpus").glob("*/information"))
        found = [re.search(r"^GPU UUID:\s*(\S+)", _text(path), re.MULTILINE) for path in shown]
        listed = [(str(index), match[1] if match else "") for index, match in enumerate(found)]
    indices = [index for index, _ in listed]
    if visible is None:
        return tuple(indices), ()
    uuids = [uuid for _, uuid in listed] + re.findall(r"\(UUID: (MIG-[\w/-]+)\)", table)
    there: list[str] = []
    absent: list[str] = []
    for name in (part.strip() for part in visible.split(",")):
        if name.startswith("-") or name == "NoDevFiles":  # CUDA ignores what follows
            break
        is_shown = name in indices or (name[:4] in ("GPU-", "MIG-") and any(uuid.startswith(name) for uuid in uuids))
        (there if is_shown else absent).append(name)
    return tuple(there), tuple(name for name in absent if name)


def git_state(root: Path) -> dict[str, Any] | None:
    """`{"commit": hash, "dirty": bool}` of the checkout whose top is `root`; None if there is none."""
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    # If the code is installed in an environment inside another checkout, it does not belong to that checkout.
    if not top or not commit or Path(top).resolve() != root.resolve():
        return None
    return {"commit": commit, "dirty": bool(_output("git", "-C", str(root), "status", "--porcelain"))}


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _output(*command: str) -> str | None:
    """The command's output, or None if it does not exist, fails, or hangs."""
    if not shutil.which(command[0]):
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
