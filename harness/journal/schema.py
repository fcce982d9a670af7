"""The version of a run directory's form, what is done about an older one, and which newer one is refused.

A directory has one version, in its plan.json: MAJOR.MINOR. A new key is a new minor version: readers of an older one
ignore it, and leave it in the file. Where a key changes its meaning or goes, that is a new major version, and a step from the
one before is added to `_STEPS`. Events have versions of their own (`harness.events.base`).

Nothing is changed on disk by reading. The next run writes the plan anew, in the form of today; what earlier trials left
stays as it is, so a directory may hold documents of several versions. Therefore every step only adds what is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import UserError

SCHEMA: tuple[int, int] = (2, 2)
"""What is written, and the newest that can be read but for its minor version."""
OLDEST: tuple[int, int] = (1, 0)
"""Of directories that tell no version: those of capsbench 0.1 and 0.2."""

Document = dict[str, Any]


def stamp(before: Mapping[str, Any]) -> dict[str, str]:
    """The version to write into a plan that replaces `before`: today's, or the newer minor one that is there."""
    return {
        "schema": ".".join(map(str, max(SCHEMA, _version(before) or OLDEST))),
        "made_by": f"capsbench {__version__}",
    }


def require_readable(plan: Mapping[str, Any], run_dir: Path) -> None:
    """Raises `UserError` for a directory of a newer major version, or one whose version is none."""
    version = _version(plan)
    if version is None:
        raise UserError(
            f"{run_dir}/plan.json says that its schema is {plan['schema']!r}; expected MAJOR.MINOR, such as "
            f'"{SCHEMA[0]}.{SCHEMA[1]}". Restore the file from a copy, or write elsewhere with --out DIR.'
        )
    if version[0] > SCHEMA[0]:
        by = plan.get("made_by")
        maker = by[:60] if isinstance(by, str) and by.isprintable() and by else "a newer capsbench"
        wanted = re.fullmatch(r"capsbench (\d[\w.]*)", maker)
        raise UserError(
            f"{run_dir} was made by {maker}, schema {plan['schema']}; this one, capsbench {__version__}, reads up to "
            f"{SCHEMA[0]}.x. Install {'capsbench ' + wanted[1] + ' or newer' if wanted else 'the newer capsbench'} to read "
            "it; to run a suite, give another folder with --out DIR."
        )


def is_newer(plan: Mapping[str, Any]) -> bool:
    """Whether a readable directory is of a newer minor version, so that its documents may have keys unknown here."""
    return (_version(plan) or OLDEST) > SCHEMA


def upgraded(kind: str, document: Document, version: tuple[int, int] = OLDEST) -> Document:
    """A document ("plan" or "result") of this version in the form of today. Keys that are not known are kept."""
    for major in range(version[0], SCHEMA[0]):
        step = _STEPS[major].get(kind)
        document = step(document) if step else document
    return document


def upgraded_plan(plan: Document) -> Document:
    return upgraded("plan", plan, _version(plan) or OLDEST)


def _version(plan: Mapping[str, Any]) -> tuple[int, int] | None:
    told = plan.get("schema", ".".join(map(str, OLDEST)))
    match = re.fullmatch(r"([1-9]\d{0,5})\.(\d{1,6})", told) if isinstance(told, str) else None
    return (int(match[1]), int(match[2])) if match else None


def _plan_1_to_2(plan: Document) -> Document:
    """Plans tell who made them; the first ones told neither overrides nor whether they were quick."""
    return {"made_by": "capsbench 0.2 or older", "question": "", "overrides": [], "quick": False, **plan}


def _result_1_to_2(result: Document) -> Document:
    """Results tell which trial they go on from; the first ones told neither of an audit nor of the best epoch."""
    added = ("continued_from", "audit", "best_epoch", "best_test_err_pct", "stopped_on", "img_per_s", "compile_s")
    return {**dict.fromkeys(added), **result}


_STEPS: dict[int, dict[str, Callable[[Document], Document]]] = {
    1: {"plan": _plan_1_to_2, "result": _result_1_to_2},
}
"""Major version -> kind of document -> the step to the next one."""
