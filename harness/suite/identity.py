"""A trial's identity: the hash of everything that can change its result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from harness.registry import Entry
from harness.sources import code_version

_IRRELEVANT = {"id", "suite", "params"}  # fields of a trial; params only repeats the sections
_IRRELEVANT_INSIDE = {
    "data": {"dir", "path", "test_path", "classes", "own"}, "train": {"start_from"}, "parity": {"margin_pct"},
    "runtime": {"retries", "hang_s"},
}  # fmt: skip
"""Ignored keys of its sections: where files are and what classes are called (the content counts), the margin, for
judging finished trials, and how a lost worker is noticed and replaced.
"""
_ADDED: dict[str, dict[str, Any]] = {
    "runtime": {"environment": {}},
    "data": {
        "module": None, "channels": None, "shape": None, "label_column": None, "resize": None,
        "fit": "stretch", "crop": None, "pad": None, "split": {"test": 0.2, "validation": 0.1, "seed": 0},
    },
}  # fmt: skip
"""Keys that came later, with their defaults: at these they do not count, so that earlier ids stay as they are."""


def trial_id(document: Mapping[str, Any], impl_entry: Entry, fingerprint: Mapping[str, Any]) -> str:
    """12 hex digits of the SHA-256 of a trial's content, the code that determines its result, and its environment.

    Args:
        document: `Trial.model_dump(mode="json")`; id, suite, params, data.dir, the paths and class names of one's own
            pictures, train.start_from and parity.margin_pct are ignored. Of what was found there, the digest counts.
        impl_entry: the entry of the trial's implementation, whose sources are hashed.
        fingerprint: JSON-serialisable facts of the environment that can change a result.
    """
    kind = document.get("model", {}).get("kind")
    identity = {
        "trial": relevant(document),
        "code": code_version(impl_entry, kind, _datasets(document)),
        "environment": fingerprint,
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def relevant(document: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of a trial's document: all but what is said above to be ignored."""
    content = {key: value for key, value in document.items() if key not in _IRRELEVANT}
    for section, names in _IRRELEVANT_INSIDE.items():
        content[section] = {key: value for key, value in content.get(section, {}).items() if key not in names}
    for section, defaults in _ADDED.items():
        given = content.get(section, {}).items()
        content[section] = {key: value for key, value in given if key not in defaults or value != defaults[key]}
    own = document.get("data", {}).get("own")
    if own and own["sha256"]:
        content["data"]["sha256"] = own["sha256"]
    return content


def _datasets(document: Mapping[str, Any]) -> list[str]:
    """The names of its data sets."""
    data = document.get("data", {})
    return [name for name in (data.get("name"), data.get("test_from")) if name]
