"""Joules, if the hardware counts them: RAPL for processor packages and their memory, NVML for GPUs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_POWERCAP = Path("/sys/class/powercap")
_COUNTED = ("package", "dram")  # RAPL zones that do not contain one another


class Meter:
    """Reads energy counters; they count the whole package's or GPU's use, including other processes.

    Without a readable counter there is no reading. A process with GPUs has one only if every GPU's counter can be read:
    otherwise the host's share would be taken for the total.
    """

    def __init__(self, gpus: Sequence[str] = (), powercap: Path = _POWERCAP) -> None:
        """`gpus`: indices or UUIDs, as in `CUDA_VISIBLE_DEVICES`. `powercap`: where Linux shows RAPL."""
        self._zones = _zones(powercap)
        handles = _gpu_handles(gpus)
        self._gpus = handles or {}
        self._is_whole = handles is not None

    def read(self) -> dict[str, float] | None:
        """Joules by counter since some moment in the past; None if nothing can be read."""
        if not self._is_whole:
            return None
        try:
            found = {str(zone): float((zone / "energy_uj").read_text()) / 1e6 for zone in self._zones}
            for name, (nvml, handle) in self._gpus.items():
                found[name] = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        except Exception:  # pynvml's own errors for a GPU that does not count
            return None
        return found or None

    def joules(self, before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> float | None:
        """Energy between two readings; None if either is missing."""
        if before is None or after is None:
            return None
        return sum(self._used(name, after[name] - before[name]) for name in before)

    def _used(self, name: str, difference: float) -> float:
        # RAPL's counters wrap around, some within minutes
        return difference if difference >= 0 else difference + self._zones[Path(name)]


def _zones(powercap: Path) -> dict[Path, float]:
    """RAPL's readable zones, with the joules at which each counter wraps around to zero."""
    found: dict[Path, float] = {}
    for zone in sorted(powercap.glob("intel-rapl:*")):  # AMD's have this name, too
        try:
            if (zone / "name").read_text().startswith(_COUNTED):
                (zone / "energy_uj").read_text()  # readable only by root on most systems
                found[zone] = float((zone / "max_energy_range_uj").read_text()) / 1e6
        except OSError:
            continue
    return found


def _gpu_handles(gpus: Sequence[str]) -> dict[str, tuple[Any, Any]] | None:
    """Name -> NVML and its handle for each GPU; None unless all can be found."""
    if not gpus:
        return {}
    if importlib.util.find_spec("pynvml") is None:
        return None
    nvml: Any = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
        return {
            name: (
                nvml,
                nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name),
            )
            for name in gpus
        }
    except Exception:  # whatever the driver's library raises: no reading
        return None
