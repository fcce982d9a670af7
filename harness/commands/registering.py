"""`--register` of `run` and `sync`: which trials go into MLflow's registry of models, and what is said of it."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness import registry
from harness.errors import UserError, nearest
from harness.journal.journal import Journal
from harness.journal.kept import available, find_trial
from harness.journal.results import Result, summarise
from harness.prediction.trained import implementation, of_trial
from harness.text import ended, number
from harness.views.mlflow import probe, registration
from harness.views.mlflow.client import place
from harness.views.mlflow.registration import Chosen, Registered
from harness.views.mlflow.sink import Sink
from harness.views.mlflow.where import Where, locate


def options(command: argparse.ArgumentParser, last: str) -> None:
    """Adds --register [NAME]; `last`: what has to stand before it."""
    command.add_argument(
        "--register", nargs="?", const=True, metavar="NAME",
        help="put the trial of each implementation with the lowest validation error into MLflow's registry of models, as a "
        f"pyfunc of that name, default: capsbench-SUITE; {last} stands before it",
    )  # fmt: skip


def wanted(args: argparse.Namespace) -> str | None:
    """The name that was given, "" for the suite's; None if nothing is to be registered."""
    return "" if args.register is True else args.register


def require(name: str | None, suite: str, where: Where, out: Path) -> str:
    """The registered model's name. Raises `UserError` if MLflow cannot take a model of that name."""
    chosen = name or registration.default_name(suite)
    registration.require_name(chosen)
    if importlib.util.find_spec("mlflow") is None:
        raise UserError('--register needs MLflow, which is not installed: pip install "capsbench[mlflow]"')
    if problem := probe.problem(where, out):
        raise UserError(f"--register: {ended(problem)} Nothing was started.")
    registration.require_free(where, out, chosen)
    return chosen


def choose(run_dir: Path, trial_id: str | None = None, impl: str | None = None) -> list[Chosen]:
    """The trials to register: the one that is named, else of each implementation the best on validation images.

    Args:
        trial_id: a trial's id, or the beginning of it.
        impl: what is to compute; by default what trained, or the specification where that is a class of one's own.

    Raises `UserError` if there is none, or if it cannot be said which is the best; nothing is ever chosen on test images.
    """
    journal = Journal(run_dir)
    if trial_id is not None:
        trial = find_trial(run_dir, trial_id)
        result = summarise(trial, journal.events(trial.id))
        if flaw := result.flaw:
            raise UserError(f"trial {trial.id} is not registered: {flaw}")
        weights = "best" if "best" in available(journal, trial) else "last"
        return [_chosen(run_dir, result, weights, impl, "named by the user")]
    planned = [str(each["id"]) for each in journal.plan().get("trials", ())]
    results = [summarise(journal.trial(id), journal.events(id)) for id in planned]
    counted = [each for each in results if each.status == "finished" and not each.flaw and each.phase != "proposal"]
    if not counted:
        why = "; ".join(dict.fromkeys(each.flaw or each.cause or each.status for each in results))
        raise UserError(f"{run_dir}: no trial to register has finished well ({why or 'none is planned'})")
    return [_best(run_dir, each, impl) for each in _by_implementation(counted)]


def _by_implementation(results: Sequence[Result]) -> list[list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.impl, []).append(result)
    return list(found.values())


def _best(run_dir: Path, results: Sequence[Result], impl: str | None) -> Chosen:
    known = {
        result.id: error for result in results if (error := registration.validated_pct(result, "best")) is not None
    }
    if len(known) < len(results):
        if len(results) > 1:
            ids = ", ".join(result.id for result in results)
            raise UserError(
                f"which of the trials of {results[0].impl} is the best cannot be said: they have no validation images "
                f"(data.validation), and test images choose nothing. Name one: capsbench sync {run_dir} --register --trial "
                f"TRIAL ({ids})"
            )
        return _chosen(run_dir, results[0], "last", impl, f"the only trial of {results[0].impl}")
    best = min(results, key=lambda result: known[result.id])
    many = (
        f"the lowest of {len(results)} trials of {best.impl}" if len(results) > 1 else f"the only trial of {best.impl}"
    )
    return _chosen(run_dir, best, "best", impl, f"validation error {number(known[best.id])}%, {many}")


def _chosen(run_dir: Path, result: Result, weights: str, wanted: str | None, why: str) -> Chosen:
    trained = of_trial(run_dir, result.id, weights)
    if wanted is None and ":" in result.impl:  # a class of one's own, which does not travel with the model
        wanted = registry.SPECIFICATION
    entry, _ = implementation(trained, wanted)
    return Chosen(result, trained, weights, entry.name, why)


def register(run_dir: Path, uri: str | None, name: str, chosen: Sequence[Chosen]) -> list[Registered]:
    """Registers them; their runs must be in MLflow. Raises `UserError` for the first one that cannot be."""
    journal = Journal(run_dir)
    where = locate(run_dir.parent, uri)
    cursor = Sink(journal, where.uri).load()
    runs = {id: each["run_id"] for id, each in cursor.get("trials", {}).items() if each.get("run_id")}
    found: list[Registered] = []
    for each in chosen:
        if (run_id := runs.get(each.result.id)) is None:
            raise UserError(f"--register: trial {each.result.id} is not in MLflow at {where}: {where.sync(run_dir)}")
        experiment_id, out = cursor["experiment_id"], run_dir.parent
        found.append(registration.register(each, name, run_id, experiment_id, where, out, place(journal)))
    return found


def show(console: Console, found: Sequence[Registered], where: Where) -> None:
    """Says what was registered, and how it is served."""
    for each in found:
        computed = f" in {each.computes}" if each.computes != each.trained_by else ""
        said = "" if each.is_new else ", as before"
        error = f", test error {each.test_err_pct:.2f}%" if each.test_err_pct is not None else ""
        text = f"Registered: {each.uri} (version {each.version}{said}): trial {each.trial}{computed}, {each.weights} weights"
        console.print(Text(f"{text}, {each.why}{error}"), soft_wrap=True)
    if found:
        console.print(Text(f"To serve it: {registration.serve_command(found[0], where)}"), soft_wrap=True)


def named(impl: str | None) -> None:
    """Raises `UserError` for an implementation that nobody knows."""
    if impl is not None and registry.known(impl) is None and ":" not in impl:
        raise UserError(f'--impl: unknown implementation "{impl}"{nearest(impl, registry.names())}')


def refused_with(args: argparse.Namespace) -> None:
    """Raises `UserError` for options of `sync` that mean nothing without --register."""
    for option in ("trial", "impl"):
        if getattr(args, option) is not None and args.register is None:
            raise UserError(f"--{option} says what --register puts into the registry: add --register, or drop it")
    if (name := wanted(args)) and os.path.isdir(name):  # noqa: PTH112 (which takes any text)
        raise UserError(f'--register "{name}" is a folder; RUN stands before --register')
