"""Ray Tune schedules the trials, on this machine or on a cluster. Ray is imported only when it is started."""

# Ray is only partly typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import terminal
from harness.errors import UserError
from harness.executors import access
from harness.executors.base import Capacity, Emit, Job, check_fits
from harness.executors.bounded import TooLong, bounded
from harness.executors.cleanup import Guardian, end_children
from harness.executors.reach import reach
from harness.machine.environment import gpus
from harness.machine.gpu_type import gpu_types
from harness.machine.leases import local_cores, local_gpus, stale_gpus
from harness.spec.trial import Trial
from harness.supervisor.seat import forwarded_environment, interruptible

if TYPE_CHECKING:
    from harness.executors.nodes import Survey
    from harness.executors.tune import Relay

_ENVIRONMENT = {
    # Ray prints nothing to the terminal, and Tune writes no files beside the journal.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # messages from raylets to the driver would be printed to stdout
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_RESULT_BUFFER_LENGTH": "1",  # a report returns only when the driver has handled it
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would end the run as if it had finished
    "RAY_worker_niceness": "0",  # by default Ray's processes yield to all others, and so would the timed trial
    "RAY_memory_monitor_refresh_ms": "0",  # it would kill the supervisor; the kernel kills the worker that is to blame
}
_WORKER_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # else a CPU trial sees every GPU
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_OBJECT_STORE_BYTES = 256 * 2**20  # jobs and events; files pass through it only on clusters
_GONE_S = 10.0
_LIMIT = "CAPSBENCH_RAY_START_S"
_LIMIT_S = 180.0
"""How long a start may take; the environment variable sets another limit."""
_SHARED = Path("/dev/shm")
_LONGEST_BASE = 23  # bytes: a Unix socket's path has 107 at most, and Ray adds 80 to this folder's
_INSTEAD = "--executor inline runs the trials without Ray, one after another"


class RayExecutor:
    """Trials as an explicit list for Ray Tune, each supervised by a Ray actor on the node where it runs.

    Args:
        address: of a running cluster ("host:port" or "auto") with this machine among its nodes; None starts a private
            one on this machine.
        num_cpus, num_gpus: what the private one is told it has, instead of what is detected. Like the environment
            variables `CAPSBENCH_RAY_CPUS` and `CAPSBENCH_RAY_GPUS`, they are for logical resources, as in tests: trials
            then share real cores, or get GPU ids that do not exist.

    An interrupted or failed `run` closes the executor.
    """

    name = "ray"

    def __init__(self, address: str | None = None, *, num_cpus: int | None = None, num_gpus: int | None = None) -> None:
        self._address = address
        self._started = False
        self._access = contextlib.ExitStack()
        self._survey: Survey | None = None
        if address is None:
            self._cpus = num_cpus or _count("CAPSBENCH_RAY_CPUS", len(local_cores()))
            self._gpus = _count("CAPSBENCH_RAY_GPUS", len(local_gpus())) if num_gpus is None else num_gpus

    def start(self) -> None:
        """Starts Ray, or connects to it; takes a few seconds. `run` calls it if it has not been called before.

        Raises `UserError` if it does not start within a bounded time, or cannot; `KeyboardInterrupt` on Ctrl-C or
        SIGTERM.
        """
        if self._started:
            return
        if self._address is None and sys.platform == "linux" and not os.access(_SHARED, os.W_OK | os.X_OK):
            raise UserError(f"Ray needs {_SHARED}, which is missing or cannot be written; {_INSTEAD}")
        limit_s = _limit_s()
        late = f"Ray has not started within {limit_s:.0f} s ({_LIMIT} sets another limit); {_INSTEAD}"
        self._temp = _folder()
        try:
            with bounded(limit_s, late, self._abandon):
                try:
                    self._begin()
                except BaseException:  # half-started, Ray waits for its processes when it is shut down
                    self._abandon()
                    terminal.stopped("ray")
                    with contextlib.suppress(Exception):
                        import ray

                        ray.shutdown()
                    self._abandon()  # also what Ray began or wrote meanwhile
                    self._access.close()
                    raise
        except TooLong as error:
            raise UserError(late) from error
        except UserError:
            raise
        except Exception as error:  # whatever Ray raises
            cause = " ".join(str(error).split())[:300]
            raise UserError(f"Ray cannot start: {type(error).__name__}: {cause}; {_INSTEAD}") from error
        self._started = True

    def _begin(self) -> None:
        os.environ.update(_ENVIRONMENT | _WORKER_ENVIRONMENT)
        if self._address is None:
            self._access.enter_context(access.private())
            self._is_local = True
        else:
            found = reach(self._address)
            self._access.enter_context(access.authenticated(found.token))
            self._address, self._is_local = found.address, found.is_local
        importlib.import_module("ray")
        _silence()
        self._init()
        self._guardian = Guardian(self._temp)

    def _abandon(self) -> None:
        """Ends the processes of a Ray that has not started, and removes its files."""
        end_children()
        shutil.rmtree(self._temp, ignore_errors=True)

    def capacity(self) -> Capacity:
        """The capacity of all nodes together. Connects to a cluster; a private one need not be started."""
        nodes = self._nodes()
        return Capacity(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes), len(nodes))

    def check(self, trials: Sequence[Trial]) -> None:
        nodes = self._nodes()
        check_fits(trials, nodes)
        if self._address is not None:
            self._look(trials).require(trials)

    def notes(self) -> Sequence[str]:
        return self._survey.notes() if self._survey else ()

    def _look(self, trials: Sequence[Trial]) -> Survey:
        """What the nodes have, and on a cluster what they lack for `trials`; asked once."""
        from harness.executors import nodes

        if self._survey is None and self._address is None:
            self._survey = nodes.Survey(nodes.living())
        elif self._survey is None:
            self._survey = nodes.survey(nodes.living(), trials)
        return self._survey

    def run(self, jobs: Sequence[Job], emit: Emit) -> None:
        if not jobs:
            return
        with interruptible() as stop:
            self.start()
            from ray import tune

            from harness.executors import tune as ray_tune

            home = ray_tune.Home.here(reachable=self._address is not None)
            survey = self._look([job.trial for job in jobs])
            given = [ray_tune.configuration(job, home, survey.request(job.trial)) for job in jobs]
            relay = ray_tune.Relay(jobs, home, emit, stop)
            tuner = tune.Tuner(
                tune.with_resources(ray_tune.supervise, ray_tune.resources),
                param_space={"given": tune.grid_search(given)},
                # A supervisor keeps nothing from an attempt that has ended, and a new one takes 3 s to start.
                tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=str),
                run_config=tune.RunConfig(
                    storage_path=str(self._temp / "tune"),
                    callbacks=[relay],
                    failure_config=tune.FailureConfig(max_failures=1),
                    verbose=0,
                ),
            )
            lost: Exception | None = None
            try:
                tuner.fit()
            except ray_tune.Abort:
                pass
            except Exception as error:
                lost = error
            if lost or relay.error or stop.is_set():
                self.close()
                _wait_until_gone(relay)
                if relay.error:
                    raise relay.error
                relay.interrupt()
                if lost:
                    raise lost
                raise KeyboardInterrupt

    def close(self) -> None:
        if self._started:
            import ray

            self._started = False
            ray.shutdown()
            self._access.close()
            self._guardian.release()

    def _init(self) -> None:
        import ray

        before = signal.getsignal(signal.SIGTERM)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if self._address is not None:
            with access.on_loopback() if self._is_local else contextlib.nullcontext():
                ray.init(address=self._address, runtime_env={"env_vars": _WORKER_ENVIRONMENT}, **quiet)
        else:
            if self._gpus > len(local_gpus()):  # logical GPUs: Ray would refuse them, since fewer are visible
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            elif stale_gpus():  # Ray would hand out those that are not there
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(local_gpus())
            with _fewer_processes(), _own_path(), access.on_loopback():
                ray.init(
                    address="local",
                    num_cpus=self._cpus,
                    num_gpus=self._gpus,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    # Supervisors run the driver's code, wherever it came from.
                    runtime_env={"env_vars": _WORKER_ENVIRONMENT | forwarded_environment()},
                    _temp_dir=str(self._temp),
                    **quiet,
                )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own handler would exit silently

    def _nodes(self) -> list[Capacity]:
        if self._address is None:
            types = gpu_types(gpu.name for gpu in gpus(local_gpus())) if self._gpus else ()
            return [Capacity(self._cpus, self._gpus, 1, types)]
        self.start()
        from harness.executors.nodes import living

        return [node.capacity for node in living()]


def _count(variable: str, otherwise: int) -> int:
    value = os.environ.get(variable)
    if not value:
        return otherwise
    if not value.isdigit():
        raise UserError(f'{variable} is "{value}"; it must be a number of logical resources, such as 4')
    return int(value)


def _limit_s() -> float:
    value = os.environ.get(_LIMIT) or str(_LIMIT_S)
    try:
        limit_s = float(value)
    except ValueError:
        limit_s = 0.0
    if not 0 < limit_s < 1e6:
        raise UserError(f'{_LIMIT} is "{value}"; it must be a number of seconds, such as 180')
    return limit_s


def _folder() -> Path:
    """A new folder for Ray's files, with a path that is short enough. Raises `UserError` if there can be none."""
    named = os.environ.get("TMPDIR")
    bases = [*([named] if named else []), "/tmp", "/var/tmp"]
    for base in bases:
        if len(os.fsencode(base)) <= _LONGEST_BASE:
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="cb-", dir=base))
    raise UserError(
        f"Ray needs a folder for temporary files that can be written and whose path has at most {_LONGEST_BASE} bytes, for its "
        f"sockets; that is none of {', '.join(bases)}. Set TMPDIR to one; or {_INSTEAD}"
    )


@contextlib.contextmanager
def _fewer_processes() -> Generator[None]:
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
def _own_path() -> Generator[None]:
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


def _true(_config: object) -> bool:
    return True


def _nothing(_node: object) -> None:
    pass


def _silence() -> None:
    """Silences Ray's loggers, which write to the terminal from the moment Ray is imported."""
    logger = logging.getLogger("ray")
    logger.handlers[:] = [logging.NullHandler()]
    logger.propagate = False
    logger.setLevel(logging.CRITICAL)


def _wait_until_gone(relay: Relay) -> None:
    """Waits for this host's workers, which the kernel kills with their supervisors."""
    deadline = time.monotonic() + _GONE_S
    for pid in relay.local_pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.kill(pid, 0)
                time.sleep(0.02)
