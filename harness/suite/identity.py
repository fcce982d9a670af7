"""A trial's identity: the hash of everything that can change its result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from harness.registry import Entry
from harness.sources import code_version

_IRRELEVANT = {"id", "suite", "params"}  # fields of a trial; params only repeats the sections
_IRRELEVANT_INSIDE = {"data": {"dir"}, "train": {"start_from"}, "parity": {"margin_pct"}}
"""Ignored keys of its sections: where files are (their content counts), and the margin, for judging finished trials."""
_ABSENT: dict[str, dict[str, Any]] = {"runtime": {"environment": {}}}
"""Keys of its sections that count only with another value: ids from before there was such a key stay as they are."""


def trial_id(document: Mapping[str, Any], impl_entry: Entry, fingerprint: Mapping[str, Any]) -> str:
    """12 hex digits of the SHA-256 of a trial's content, the code that determines its result, and its environment.

    Args:
        document: `Trial.model_dump(mode="json")`; id, suite, params, data.dir, train.start_from and parity.margin_pct
            are ignored.
        impl_entry: the entry of the trial's implementation, whose sources are hashed.
        fingerprint: JSON-serialisable facts of the environment that can change a result.
    """
    kind = document.get("model", {}).get("kind")
    identity = {"trial": relevant(document), "code": code_version(impl_entry, kind), "environment": fingerprint}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def relevant(document: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of a trial's document: all but what is said above to be ignored."""
    content = {key: value for key, value in document.items() if key not in _IRRELEVANT}
    for section, names in _IRRELEVANT_INSIDE.items():
        content[section] = {key: value for key, value in content.get(section, {}).items() if key not in names}
    for section, defaults in _ABSENT.items():
        own = content.get(section, {})
        content[section] = {key: value for key, value in own.items() if key not in defaults or value != defaults[key]}
    return content
