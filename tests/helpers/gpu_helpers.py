"""A driver's tool that shows GPUs where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest


def put_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, parts: str = "") -> Path:
    """An `nvidia-smi` that lists `count` GPUs, "GPU-1f0" and so on, and a part of the last; the only program there is."""
    lines = [f"GPU {index}: NVIDIA H100 (UUID: GPU-1f{index})" for index in range(count)]
    lines += [f"  MIG 1g.10gb     Device  0: (UUID: {parts})"] if parts else []
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return tool
