"""`capsbench submit`: runs a suite on a Ray cluster from a machine outside, and brings the run directory home."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import yaml
from rich.text import Text

from harness import __version__
from harness.commands import parser
from harness.commands.output import print_json
from harness.errors import UserError
from harness.jobs import home
from harness.jobs.client import ENDED, Jobs
from harness.jobs.follow import follow, patient
from harness.jobs.package import Contents
from harness.jobs.remembered import Job
from harness.journal.journal import Journal
from harness.suite.file import STDIN, read_text
from harness.suite.shipped import locate
from harness.suite.suite import Suite, load_suite
from harness.views.messages import Console

_ANY_GPUS = 1 << 20  # how many the cluster has is for the head to say
_STOP_S = 60
"""How long the run on the head has to end in order, once it is stopped."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_OF_THE_HEAD = (
    "Interrupted; nothing finished is lost.", "Journal, logs and weights:", "Watch in TensorBoard:", "Compare in the browser:",
    "Intervals over seeds, differences, published figures:",
)  # fmt: skip
"""How lines begin that `run` says of the head's folders; here others are said instead."""
_SERVERS = ("http://", "https://", "postgresql", "mysql")


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench submit`."""
    parser.suite(command)
    parser.out(command)
    command.add_argument(
        "--ray-address", metavar="URL", default=os.environ.get("RAY_API_SERVER_ADDRESS"),
        help="the head's dashboard, such as http://head:8265; default: RAY_API_SERVER_ADDRESS",
    )  # fmt: skip
    command.add_argument("--quick", action="store_true", help="apply the suite's `quick` settings: minutes, not hours")
    command.add_argument("--fresh", action="store_true", help="as for `run`: train from the first epoch")
    parser.mlflow(command)
    command.add_argument("--no-mlflow", action="store_true", help="keep the journal only")
    command.add_argument("--no-figures", action="store_true", help="draw no figures at the end")
    command.add_argument("--tensorboard", action="store_true", help="as for `run`: event files in RUN/tensorboard")
    command.add_argument("--storage", metavar="URL", help="as for `run`, seen from the head: keep the run there, too")
    command.add_argument(
        "--shared", type=Path, action="append", default=[], metavar="FOLDER",
        help="a folder that every node has under the same path: what is in it is not sent",
    )  # fmt: skip
    command.add_argument(
        "--cluster-out", default="~/capsbench-runs", metavar="DIR",
        help="the folder of runs on the head; default: ~/capsbench-runs",
    )  # fmt: skip
    command.add_argument(
        "--python", default="python", metavar="EXE", help="the interpreter on the head; default: python"
    )
    command.add_argument(
        "--detach", action="store_true", help="return once the job is submitted; the same command follows it"
    )
    command.add_argument("--stop", action="store_true", help="stop this suite's job, and bring home what it has done")


def main(args: argparse.Namespace) -> int:
    if not args.ray_address:
        raise UserError("--ray-address is missing: the head's dashboard, such as http://head:8265")
    console = Console(stderr=args.json)

    def say(line: str) -> None:
        if line.startswith(_OF_THE_HEAD):
            return
        console.print(Text(_CONTROL.sub("", line)), soft_wrap=True)

    def note(line: str) -> None:
        Console(stderr=True).print(Text(_CONTROL.sub("", line), "yellow"), soft_wrap=True)

    contents, name = _contents(args, note)
    run_dir = args.out / name
    jobs = Jobs(args.ray_address)
    with patient():
        job = _attached(args, jobs, contents, name, run_dir, note)
    again = shlex.join(["capsbench", *(each for each in sys.argv[1:] if each not in ("--detach", "--stop", "--json"))])
    has_ended = False
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if args.stop:
            with patient():
                jobs.stop(job.id)
            note(f"stopping {job.id}")
        if args.detach:
            say(f"Submitted as {job.id}. {_ways(again)}")
            if args.json:
                print_json({"job": job.id, "address": jobs.address, "run_dir": str(run_dir)})
            return 0
        info = follow(jobs, job.id, say, note)
        has_ended = True
        code = _come_home(args, jobs, job, info, run_dir, say, note)
        if code == 130:
            note(f"Stopped; nothing finished is lost. To go on: {again}")
        return code
    except KeyboardInterrupt:
        goes_on = f"{job.id} goes on without this command. {_ways(again)}"
        note(f"\nInterrupted. To bring the rest home: {again}" if has_ended else f"\n{goes_on}")
        if args.json:
            print_json({"error": "interrupted", "job": job.id, "run_dir": str(run_dir)})
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _ways(again: str) -> str:
    return f"To follow it: {again}\nTo stop it: {again} --stop"


def _contents(args: argparse.Namespace, note: Callable[[str], None]) -> tuple[Contents, str]:
    """What is to be sent, and the name of the run. Raises `UserError` for a suite that is wrong, before anything is sent."""
    for folder in args.shared:
        if not folder.is_absolute():
            raise UserError(f"--shared {folder}: give the full path, which is the same on every node")
    shared = tuple(args.shared)
    is_elsewhere = any(not folder.exists() for folder in shared)
    try:
        suite = load_suite(args.suite, args.overrides, args.quick)
    except UserError:
        if not is_elsewhere or args.suite == STDIN:
            raise
        text = read_text(locate(args.suite))
        note("a folder of --shared is not here, so the suite is checked on the cluster alone")
        return Contents(text, shared), _named(text, args)
    contents = Contents(suite.source, shared)
    trials = suite.trials(_ANY_GPUS, lambda _: {})
    contents.add_trials(trials, suite.grid)
    return contents, _run_name(suite)


def _run_name(suite: Suite) -> str:
    return f"{suite.name}-quick" if suite.quick else suite.name


def _named(text: str, args: argparse.Namespace) -> str:
    """The name of the run of a suite that cannot be checked here. Raises `UserError` if it has none that can be a folder's."""
    try:
        document: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{args.suite}: no YAML: {' '.join(str(error).split())[:200]}") from error
    given = [each.partition("=")[2] for each in args.overrides if each.startswith("name=")]
    written: Any = cast(dict[Any, Any], document).get("name") if isinstance(document, dict) else None
    name = given[-1] if given else written
    if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.-]{0,99}", name):
        raise UserError(f"{args.suite}: name: expected a name of letters, digits, dots and dashes")
    return f"{name}-quick" if args.quick else name


def _attached(
    args: argparse.Namespace, jobs: Jobs, contents: Contents, name: str, run_dir: Path, note: Callable[[str], None]
) -> Job:
    """The job of this run: the one that is at work, or has ended and is not home yet; otherwise a new one."""
    asked, content = contents.archive(_request(args, contents, name, id=""))
    before = Job.read(run_dir)
    if before is None and (run_dir / "plan.json").exists():
        raise UserError(
            f"{run_dir} is a run of this machine, and stays so: bring the cluster's home into another folder, --out DIR"
        )
    if before and jobs.address != before.address and jobs.session != before.session:
        raise UserError(
            f"{run_dir} belongs to the cluster at {before.address} (job {before.id}): "
            "bring a run of another one into another folder, --out DIR"
        )
    info = jobs.info(before.id) if before else None
    if before and info:
        is_at_work = info.get("status") not in ENDED
        if is_at_work and before.request != asked and not args.stop:
            raise UserError(
                f"job {before.id} of this run is still at work, for another suite, code or options: give the earlier command "
                "to follow it, add --stop to end it, or choose another folder with --out DIR"
            )
        if is_at_work or (not before.is_home and before.request == asked):
            note(f"attached to {before.id}, {str(info.get('status')).lower()}")
            return before
    if args.stop:
        raise UserError(f"{run_dir}: no job of it is at work at {jobs.address}")
    id = f"{name}-{secrets.token_hex(4)}"
    package, content = contents.archive(_request(args, contents, name, id))
    run_dir.mkdir(parents=True, exist_ok=True)
    job = Job(id, jobs.address, jobs.session, asked, before.brought if before else {})
    if not jobs.has_package(package):
        jobs.upload(package, content)
    job.write(run_dir)  # before: should this process end now, the job is found again
    entry = shlex.join([args.python, "capsbench_job.py"])
    jobs.submit(
        id, entry, package, {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S)},
        {"capsbench": __version__, "run": name, "user": _user()},
    )  # fmt: skip
    note(f"submitted to {jobs.address} as {id} ({len(content) / 1e6:.1f} MB, Ray {jobs.ray_version})")
    return job


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _request(args: argparse.Namespace, contents: Contents, name: str, id: str) -> dict[str, object]:
    """What the head is asked for."""
    settings = [*args.overrides, *contents.overrides]
    arguments = ["suite.yaml", *(word for each in settings for word in ("-s", each)), "--ray-address", "auto"]
    switches = {"--quick": args.quick, "--fresh": args.fresh, "--no-figures": args.no_figures}
    arguments += [name for name, is_on in {**switches, "--tensorboard": args.tensorboard}.items() if is_on]
    arguments += ["--storage", args.storage] if args.storage else []
    arguments += ["--mlflow-uri", args.mlflow_uri] if _is_server(args) else ["--no-mlflow"]
    return {"id": id, "version": __version__, "name": name, "out": args.cluster_out, "arguments": arguments}


def _is_server(args: argparse.Namespace) -> bool:
    """Whether the head writes to MLflow; otherwise this machine does, once the run is home."""
    return not args.no_mlflow and bool(args.mlflow_uri) and args.mlflow_uri.startswith(_SERVERS)


def _come_home(
    args: argparse.Namespace,
    jobs: Jobs,
    job: Job,
    info: dict[str, Any],
    run_dir: Path,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> int:
    """Fetches what the job has left, and tells how it ended. Raises `UserError`."""
    with patient():
        listed = home.listing(jobs, job.id, info.get("driver_node_id") or "") if info.get("driver_node_id") else None
    if listed is None:
        message = str(info.get("message") or "").strip().splitlines()
        code = info.get("driver_exit_code")
        if code != 2:  # it has said itself what is wrong
            told = f"job {job.id} {str(info.get('status')).lower()}: {message[-1][:500] if message else 'without a reason'}"
            note(f"{told}\nNothing was brought home; what had finished is kept on the head: the same command goes on.")
        replace(job, is_home=True).write(run_dir)
        if args.json:
            print_json({"error": "the job left no result", "job": job.id, "run_dir": str(run_dir)})
        return code if code == 2 else 1
    count = 0
    if listed.files:
        with Journal(run_dir).open(), patient():
            begun = time.monotonic()

            def fetching(path: str) -> None:
                if time.monotonic() - begun > 5:
                    note(f"fetching {path}")

            count = home.fetch(jobs, job.id, info["driver_node_id"], listed, run_dir, job.brought, fetching)
    brought = {path: sha for path, (_, sha) in listed.files.items()}
    replace(job, brought=brought, is_home=True).write(run_dir)
    if listed.files:
        say(f"\nHome: {run_dir} ({count} files fetched)")
        _track(args, run_dir, note)
    if args.json:
        outcome = listed.outcome or {}
        print_json(outcome | {"run_dir": str(run_dir), "job": job.id})
    return listed.code if listed.code >= 0 else 130


def _track(args: argparse.Namespace, run_dir: Path, note: Callable[[str], None]) -> None:
    """Sends the run to the MLflow of this machine, unless the head has sent it to a server."""
    import importlib.util

    if args.no_mlflow or _is_server(args) or importlib.util.find_spec("mlflow") is None:
        return
    from harness.views.mlflow.tracking import sync

    try:
        sync(run_dir, args.mlflow_uri)
    except UserError as error:
        note(f"not in MLflow yet: {error}\nLater: capsbench sync {shlex.quote(str(run_dir))}")
