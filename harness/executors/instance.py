"""One Ray: a private one that this process starts and ends, or its connection to a cluster. Ray is imported on start."""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from harness import terminal
from harness.errors import UserError
from harness.executors import access, quiet
from harness.executors.base import Capacity, Lost
from harness.executors.bounded import TooLong, bounded
from harness.executors.cleanup import Guardian, end_children
from harness.executors.reach import reach
from harness.executors.servers import ClusterServers, OwnServers, Servers
from harness.machine.environment import gpus
from harness.machine.gpu_type import gpu_types
from harness.machine.leases import local_cores, local_gpus, stale_gpus
from harness.supervisor.seat import forwarded_environment

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
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",  # its library would end this process, or a supervisor
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a call that comes late would start another Ray
    "RAY_worker_niceness": "0",  # by default Ray's processes yield to all others, and so would the timed trial
    "RAY_memory_monitor_refresh_ms": "0",  # it would kill the supervisor; the kernel kills the worker that is to blame
}
_WORKER_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # else a CPU trial sees every GPU
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_OBJECT_STORE_BYTES = 256 * 2**20  # jobs and events; files pass through it only on clusters
_SHUTDOWN_S = 10.0  # how long the connection to a cluster may take to end
_OWN_SHUTDOWN_S = 60.0  # the same of a private Ray, which can be replaced after that alone
_POLL_S = 0.1
_LIMIT = "CAPSBENCH_RAY_START_S"
_LIMIT_S = 180.0
"""How long a start may take; the environment variable sets another limit."""
_SHARED = Path("/dev/shm")
_LONGEST_BASE = 23  # bytes: a Unix socket's path has 107 at most, and Ray adds 80 to this folder's
_INSTEAD = "--executor inline runs the trials without Ray, one after another"

_T = TypeVar("_T")


class Instance:
    """A Ray to be started, or connected to, at `address`; None: a private one, told of `num_cpus` and `num_gpus`.

    Once it is closed, or lost, it can be started again, unless it `is_spent`.
    """

    def __init__(self, address: str | None, num_cpus: int | None, num_gpus: int | None) -> None:
        self.address = address
        self.is_spent = False
        """Whether a Ray in this process does not end, so that no other can be started."""
        self._is_started = False
        self._access = contextlib.ExitStack()
        if address is None:
            self._cpus = num_cpus or _count("CAPSBENCH_RAY_CPUS", len(local_cores()))
            self._gpus = _count("CAPSBENCH_RAY_GPUS", len(local_gpus())) if num_gpus is None else num_gpus

    @property
    def is_private(self) -> bool:
        return self.address is None

    def capacity(self) -> Capacity:
        """What a private one has, or will have."""
        types = gpu_types(gpu.name for gpu in gpus(local_gpus())) if self._gpus else ()
        return Capacity(self._cpus, self._gpus, 1, types)

    def start(self) -> None:
        """Starts Ray, or connects to it; takes a few seconds. Does nothing if it has been.

        Raises `UserError` if it does not start within a bounded time, or cannot; `KeyboardInterrupt` on Ctrl-C or
        SIGTERM.
        """
        if self._is_started:
            return
        if self.address is None and sys.platform == "linux" and not os.access(_SHARED, os.W_OK | os.X_OK):
            raise UserError(f"Ray needs {_SHARED}, which is missing or cannot be written; {_INSTEAD}")
        limit_s = _limit_s()
        late = f"Ray has not started within {limit_s:.0f} s ({_LIMIT} sets another limit); {_INSTEAD}"
        self.temp = _folder()
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
            raise UserError(f"Ray cannot start: {said(error)}; {_INSTEAD}") from error
        self._is_started = True

    def _begin(self) -> None:
        os.environ.update(_ENVIRONMENT | _WORKER_ENVIRONMENT)
        if self.address is None:
            self._access.enter_context(access.private())
            self._is_local = True
        else:
            found = reach(self.address)
            self._access.enter_context(access.authenticated(found.token))
            self.address, self._is_local = found.address, found.is_local
        importlib.import_module("ray")
        quiet.silence()
        self._init()
        self._guardian = Guardian(self.temp)
        self.servers: Servers = self._watched()

    def _abandon(self) -> None:
        """Ends the processes of a Ray that has not started, and removes its files."""
        end_children()
        shutil.rmtree(self.temp, ignore_errors=True)

    def asked(self, question: Callable[[], _T]) -> _T:
        """Ray's answer, which never comes once its GCS is gone. Raises `Lost` if Ray is lost meanwhile."""
        answers: list[_T] = []
        wrong: list[Exception] = []

        def ask() -> None:
            try:
                answers.append(question())
            except Exception as error:
                wrong.append(error)

        asking = threading.Thread(target=ask, daemon=True, name="Ray's answer")
        asking.start()
        while asking.is_alive():
            asking.join(_POLL_S)
            if asking.is_alive() and (how := self.servers.fault()):
                raise Lost(f"Ray was lost: {how}")
        if wrong and isinstance(wrong[0], UserError):
            raise wrong[0]
        if wrong:  # whatever Ray raises
            raise Lost(f"Ray was lost: {said(wrong[0])}") from wrong[0]
        return answers[0]

    def close(self) -> None:
        """Of a Ray that no longer answers, nothing is left either, but it is not waited for."""
        if not self._is_started:
            return
        import ray

        def shut_down() -> None:
            with contextlib.suppress(Exception):  # whatever Ray raises where its servers are gone
                ray.shutdown()

        self._is_started = False
        closing = threading.Thread(target=shut_down, daemon=True, name="Ray's end")
        closing.start()
        closing.join(_OWN_SHUTDOWN_S if self.address is None else _SHUTDOWN_S)
        if closing.is_alive():
            self.is_spent = True
            self.servers.end()
            terminal.stopped("ray")  # it would be waited for again as the interpreter ends
        self._access.close()
        self._guardian.release()

    def _init(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        try:
            self._connect()
        finally:  # Ray's own handler would end the process without a word, also where its start was interrupted
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)

    def _connect(self) -> None:
        import ray

        silent: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if self.address is not None:
            with access.on_loopback() if self._is_local else contextlib.nullcontext():
                ray.init(address=self.address, runtime_env={"env_vars": _WORKER_ENVIRONMENT}, **silent)
        else:
            if self._gpus > len(local_gpus()):  # logical GPUs: Ray would refuse them, since fewer are visible
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            elif stale_gpus():  # Ray would hand out those that are not there
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(local_gpus())
            with quiet.fewer_processes(), quiet.own_path(), quiet.marked(self.temp), access.on_loopback():
                ray.init(
                    address="local",
                    num_cpus=self._cpus,
                    num_gpus=self._gpus,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    # Supervisors run the driver's code, wherever it came from.
                    runtime_env={"env_vars": _WORKER_ENVIRONMENT | forwarded_environment()},
                    _temp_dir=str(self.temp),
                    **silent,
                )

    def _watched(self) -> Servers:
        if self.address is None:
            return OwnServers(self.temp)
        import ray

        own = ray.get_runtime_context().get_node_id()
        here = next(node for node in ray.nodes() if node["NodeID"] == own)
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        raylet = str(here["NodeManagerAddress"]), int(here["NodeManagerPort"])
        return ClusterServers([(host.strip("[]"), int(port)), raylet])


def said(error: Exception) -> str:
    """What Ray raised, in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


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
