"""What a Ray in this process does not do: print, start what is of no use here, change what its workers import."""

# Ray is only partly typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Generator
from pathlib import Path

from harness.executors.servers import MARK


@contextlib.contextmanager
def fewer_processes() -> Generator[None]:
    """Lets Ray start without its autoscaler and log reader. This saves 2 s on both cores, and 1 s at the end.

    They are of no use here, and `ray.init` has no option for it. A Ray with other private names starts as usual.
    """
    from ray._private.node import Node

    kept = {name: getattr(Node, name) for name in ("start_monitor", "start_log_monitor") if hasattr(Node, name)}
    try:
        for name in kept:
            setattr(Node, name, _nothing)
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


@contextlib.contextmanager
def own_path() -> Generator[None]:
    """Keeps Ray from putting the working directory first on the import path of its workers, as if it were a library's.

    They get it last (`harness.executors.tune.supervise`). A Ray with other private names puts it first.
    """
    from ray.job_config import JobConfig

    name = "_runtime_env_has_working_dir"
    kept = getattr(JobConfig, name, None)
    try:
        if kept is not None:
            setattr(JobConfig, name, _true)
        yield
    finally:
        if kept is not None:
            setattr(JobConfig, name, kept)


@contextlib.contextmanager
def marked(folder: Path) -> Generator[None]:
    """What is started meanwhile can be found by its environment, whatever becomes of its parent."""
    os.environ[MARK] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(MARK, None)


def _true(_config: object) -> bool:
    return True


def _nothing(_node: object) -> None:
    pass


def silence() -> None:
    """Silences Ray's loggers, which write to the terminal from the moment Ray is imported."""
    logger = logging.getLogger("ray")
    logger.handlers[:] = [logging.NullHandler()]
    logger.propagate = False
    logger.setLevel(logging.CRITICAL)
