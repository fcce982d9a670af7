"""A command that computes with an implementation in the Python of that implementation, where that is another one."""

from __future__ import annotations

import argparse
import os
import subprocess

from harness.environments.interpreters import HERE, elsewhere
from harness.errors import UserError
from harness.machine.surroundings import child_environment, in_another_python
from harness.spec.trial import Interpreter
from harness.supervisor.child import command


def run_elsewhere(args: argparse.Namespace, impl: str, recorded: Interpreter | None) -> int | None:
    """Runs the whole command there and returns its exit code; None if it is to run here.

    `recorded` is the Python that trained. Raises `UserError` if the implementation has another Python that cannot be used.
    """
    if os.environ.get(HERE) == impl or (where := elsewhere(impl, recorded)) is None:
        return None
    env = in_another_python(child_environment(os.environ, keep=("MLFLOW_",))) | {HERE: impl}
    try:
        process = subprocess.Popen([*command("harness", where), *args.given], env=env)
    except OSError as error:
        raise UserError(f"{impl}: {where.path} cannot be started: {error.strerror}") from error
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it got the same signal, and ends by itself
            continue
