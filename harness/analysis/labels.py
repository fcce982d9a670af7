"""What trials and implementations are called in tables, legends and MLflow, and the colours of implementations."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any, cast

from harness import registry
from harness.spec.trial import Trial


def setting(params: Mapping[str, Any]) -> str:
    """A trial's grid values in short: "routing 3, batch 64"."""
    return ", ".join(f"{key.rpartition('.')[2]} {_shown(value)}" for key, value in params.items())


def _shown(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return " ".join(f"{name}={each}" for name, each in cast("Mapping[str, Any]", value).items()) or "none"


NAME_LENGTH = 20  # characters of a run's name that MLflow's table and legends show
_OTHER_COLORS = ("#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
_SHADES = (-0.2, 0.45, -0.5, 0.25, 0.65)  # towards black or white
_SHORT = {  # grid keys as written in run names; others are the first letters of their last part
    "model.routing": "r", "train.batch": "b", "train.lr": "lr", "train.epochs": "e", "data.train": "n", "data.canvas": "c",
    "data.augment.shift": "shift", "data.augment.crop": "crop-", "runtime.precision": "", "data.name": "",
    "data.test_from": "on-", "model.profile": "", "model.kind": "", "runtime.environment": "",
}  # fmt: skip


def run_name(trial: Trial) -> str:
    """At most 20 characters, framework first, seed last: `torch r3 s0`."""
    return short_name(trial, f" s{trial.seed}")


def short_name(trial: Trial, tail: str) -> str:
    """The implementation and the setting in short, and `tail` in full."""
    body = " ".join([impl_name(trial.impl), *(_short(key, value) for key, value in trial.params.items())])
    return body[: NAME_LENGTH - len(tail)].rstrip() + tail


def impl_name(impl: str) -> str:
    """The implementation's name where there is little room: its own short name, else its name or its class's."""
    entry = registry.known(impl)
    if entry and entry.short_name:
        return f"{entry.short_name}@{entry.label}" if entry.label else entry.short_name
    return impl.rpartition(":")[2]


def spoken(impl: str) -> str:
    """The implementation's name in a sentence: "PyTorch", "TensorFlow 2.19", else as it is written."""
    entry = registry.known(impl)
    return f"{entry.title} {entry.label or ''}".rstrip() if entry and entry.title else impl


def color(impl: str) -> str:
    """The implementation's colour in charts, as #rrggbb; if it has none, one of a few, chosen by its name."""
    entry = registry.known(impl)
    own = (entry and entry.color) or _OTHER_COLORS[zlib.crc32(impl.encode()) % len(_OTHER_COLORS)]
    return _shade(own, entry.label) if entry and entry.label else own


def _shade(color: str, label: str) -> str:
    """A darker or lighter shade for the label: environments of one implementation are told apart, versions next door surely."""
    numbers = re.findall(r"\d+", label)
    amount = _SHADES[(int(numbers[-1]) if numbers else zlib.crc32(label.encode())) % len(_SHADES)]
    parts = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part + abs(amount) * ((255 if amount > 0 else 0) - part)):02X}" for part in parts)


def _short(key: str, value: Any) -> str:
    last = key.rpartition(".")[2]
    if isinstance(value, bool):
        return last[:7] if value else f"no-{last[:7]}"
    return _SHORT.get(key, last[:3]) + (f"{value:g}" if isinstance(value, float) else _shown(value))
