"""A trial's identity: the hash of everything that can change its result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from harness.registry import Entry
from harness.sources import code_version

_IRRELEVANT = {"id", "suite", "params", "interpreter"}  # fields of a trial; params only repeats the sections
_IRRELEVANT_INSIDE = {
    "data": {"dir", "path", "test_path", "classes", "own"}, "train": {"start_from"}, "parity": {"margin_pct"},
    "runtime": {"retries", "hang_s"},
}  # fmt: skip
"""Ignored keys of its sections: where files are and what classes are called (the content counts), the margin, for
judging finished trials, and how a lost worker is noticed and replaced.
"""
_ADDED: dict[str, dict[str, Any]] = {
    "model": {"none_of_the_above": False},
    "runtime": {"environment": {}, "warm": "auto"},
    "data": {
        "module": None, "channels": None, "shape": None, "label_column": None, "resize": None,
        "fit": "stretch", "crop": None, "pad": None, "split": {"test": 0.2, "validation": 0.1, "seed": 0},
    },
}  # fmt: skip
"""Keys that came later, with their defaults: at these they do not count, so that earlier ids stay as they are."""
_ADDED_TO_AUGMENT = {"crop": "centre"}

_ADDED_TO_A_TRIAL: dict[str, tuple[Any, ...]] = {
    "gpu_type": (None,), "exclusive": (None,), "phase": (None, "confirmation"),
}  # fmt: skip
"""The same of a trial itself: like its cores and GPUs, they are part of what is timed. A proposal of a search is no
result, as it sees no test images; what confirms the best one is a trial like any other.
"""


class Sources:
    """The hashes of the sources that determine trials, each read once: for the trials of one plan."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], str] = {}

    def version(self, document: Mapping[str, Any], impl_entry: Entry) -> str:
        """Of the code that determines the result of this trial."""
        key = impl_entry, document.get("model", {}).get("kind"), tuple(_datasets(document))
        if key not in self._known:
            self._known[key] = code_version(*key)
        return self._known[key]


def trial_id(
    document: Mapping[str, Any], impl_entry: Entry, fingerprint: Mapping[str, Any], sources: Sources | None = None
) -> str:
    """12 hex digits of the SHA-256 of a trial's content, the code that determines its result, and its environment.

    Args:
        document: `Trial.model_dump(mode="json")`; id, suite, params, interpreter, data.dir, the paths and class names of
            one's own pictures, train.start_from and parity.margin_pct are ignored. Of what was found there, the digest counts.
        impl_entry: the entry of the trial's implementation, whose sources are hashed.
        fingerprint: JSON-serialisable facts of the environment that can change a result, an interpreter's versions among them.
        sources: where several ids are made at once, so that each source is read once.
    """
    identity = {
        "trial": relevant(document),
        "code": (sources or Sources()).version(document, impl_entry),
        "environment": fingerprint,
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def relevant(document: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of a trial's document: all but what is said above to be ignored."""
    content = {key: value for key, value in document.items() if key not in _IRRELEVANT}
    for key, plain in _ADDED_TO_A_TRIAL.items():
        if content.get(key) in plain:
            content.pop(key, None)
    for section, names in _IRRELEVANT_INSIDE.items():
        content[section] = {key: value for key, value in content.get(section, {}).items() if key not in names}
    for section, defaults in _ADDED.items():
        given = content.get(section, {}).items()
        content[section] = {key: value for key, value in given if key not in defaults or value != defaults[key]}
    if augment := content["data"].get("augment"):
        content["data"]["augment"] = {k: v for k, v in augment.items() if v != _ADDED_TO_AUGMENT.get(k, ...)}
    own = document.get("data", {}).get("own")
    if own and own["sha256"]:
        content["data"]["sha256"] = own["sha256"]
    return content


def _datasets(document: Mapping[str, Any]) -> list[str]:
    """The names of its data sets."""
    data = document.get("data", {})
    return [name for name in (data.get("name"), data.get("test_from")) if name]
