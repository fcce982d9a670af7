"""Is this folder a run's? Its plan, or in words what it is instead and which folder was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from harness.disk import obstacle
from harness.errors import UserError, nearest, note
from harness.journal import schema
from harness.journal.seals import CHECK, verdict
from harness.sniff import remedy, what_is

_SHOWN = 5


def read_plan(run_dir: Path) -> dict[str, Any]:
    """plan.json in the form of today; empty if there is none. Raises `UserError` if it is no plan, or of a newer capsbench."""
    path = run_dir / "plan.json"
    try:
        content = path.read_bytes()
        document = json.loads(content)
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(
                f"{path} is {what_is(path)}. Correct the link, or write elsewhere with --out DIR."
            ) from None
        return {}
    except NotADirectoryError:
        return {}
    except OSError as error:
        why = "is a folder" if isinstance(error, IsADirectoryError) else f"cannot be read: {error.strerror or error}"
        raise UserError(f"{path} {why}. Choose another folder with --out DIR.") from error
    except (ValueError, RecursionError):
        found = what_is(path)
        advice = remedy(found) or "restore it from a copy, or write elsewhere with --out DIR"
        raise UserError(f"{path} is not the plan of a run: it is {found}; {advice}.") from None
    if not isinstance(document, dict) or not isinstance(document.get("trials", []), list):  # pyright: ignore
        raise UserError(
            f"{path} is not the plan of a run: it is {what_is(path)} of another program. "
            "Move it away, or write elsewhere with --out DIR."
        )
    plan = cast(dict[str, Any], document)
    schema.require_readable(plan, run_dir)
    if not all(isinstance(each, dict) and "id" in each for each in plan.get("trials", [])) or "trials" not in plan:
        raise UserError(
            f"{path} is not the plan of a run: it has no trials as capsbench writes them. "
            "Move it away, or write elsewhere with --out DIR."
        )
    if verdict(content) == "changed":
        note(
            f"{path} was changed or damaged after it was written. Of each trial, its own folder is what counts; "
            "`capsbench run` writes the plan anew"
        )
    plan.pop(CHECK, None)
    return schema.upgraded_plan(plan)


def require_run(run_dir: Path) -> dict[str, Any]:
    """The plan of a run's directory. Raises `UserError` for anything else, naming the folder that was meant if it can tell."""
    if plan := read_plan(run_dir):
        return plan
    try:
        instead = _instead(run_dir)
    except OSError as error:
        instead = f"it cannot be read: {error.strerror or error}."
    raise UserError(f"{run_dir} is not a run directory: {instead}")


def _instead(path: Path) -> str:
    if run_dir := _around(path):
        inside = path.resolve().relative_to(run_dir.resolve())
        trial = inside.parts[1] if inside.parts[0] == "trials" and len(inside.parts) > 1 else None
        part = f"the folder of a trial ({trial})" if trial and len(inside.parts) == 2 else "a part"
        return f"it is {part} of the run {run_dir}. Give {run_dir}{f' and the trial {trial}' if trial else ''}."
    if path.is_dir():
        if inner := sorted(plan.parent for plan in path.glob("*/plan.json")):
            more = f" and {len(inner) - _SHOWN} more" if inner[_SHOWN:] else ""
            held = "runs. Give one of them: " if inner[1:] else "a run. Give "
            return f"it has no plan.json, but holds {held}{', '.join(map(str, inner[:_SHOWN]))}{more}."
        found = "it has no plan.json"
    else:
        is_there = path.exists() or path.is_symlink()
        nothing = obstacle(path, to_write=False) or "it has no plan.json, as there is no such folder"
        found = f"it is {what_is(path)}" if is_there else nothing
    return f"{found}{_similar(path)}"


def _around(path: Path) -> Path | None:
    """The run directory that `path` is in, written as the user wrote it."""
    for written, real in zip(path.parents, path.absolute().parents, strict=False):
        if (real / "plan.json").is_file() and (real / "trials").is_dir():
            return written
    real = path.absolute()
    found = next((each for each in real.parents if (each / "plan.json").is_file() and (each / "trials").is_dir()), None)
    return found


def _similar(path: Path) -> str:
    """The runs beside it, and those in runs/, the nearest first."""
    folders = {path.parent, Path("runs")}
    runs = {str(plan.parent) for folder in folders if folder.is_dir() for plan in folder.glob("*/plan.json")}
    by_name = [run for run in runs if Path(run).name == path.name]
    if len(by_name) == 1:
        return f'; did you mean "{by_name[0]}"?'
    return (
        nearest(str(path), runs)
        if runs
        else ". Give the folder that `run` named; `capsbench run SUITE` makes one in runs/."
    )
