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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness import terminal
from harness.errors import UserError
from harness.executors import access, quiet
from harness.executors.base import Capacity, Emit, Job, Lost, check_fits
from harness.executors.bounded import TooLong, bounded
from harness.executors.cleanup import Guardian, end_children
from harness.executors.handover import Abandoned, Handover
from harness.executors.losses import pause_s
from harness.executors.reach import reach
from harness.executors.servers import ClusterServers, OwnServers, Servers
from harness.machine.environment import gpus
from harness.machine.gpu_type import gpu_types
from harness.machine.leases import local_cores, local_gpus, stale_gpus
from harness.spec.trial import Trial
from harness.supervisor.seat import forwarded_environment, interruptible

if TYPE_CHECKING:
    from harness.executors.nodes import Survey
    from harness.executors.relay import Relay

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
_GONE_S = 10.0
_POLL_S = 0.1
_LEAVE_S = 10.0  # how long Tune may take to end once it is told to
_SETTLE_S = 5.0
_SHUTDOWN_S = 10.0  # how long the connection to a cluster may take to end
_OWN_SHUTDOWN_S = 60.0  # the same of a private Ray, which can be replaced after that alone
_RESTARTS = 2  # of a private Ray that is lost, without an epoch in between
_LIMIT = "CAPSBENCH_RAY_START_S"
_LIMIT_S = 180.0
"""How long a start may take; the environment variable sets another limit."""
_SHARED = Path("/dev/shm")
_LONGEST_BASE = 23  # bytes: a Unix socket's path has 107 at most, and Ray adds 80 to this folder's
_INSTEAD = "--executor inline runs the trials without Ray, one after another"


_T = TypeVar("_T")


class RayExecutor:
    """Trials as an explicit list for Ray Tune, each supervised by a Ray actor on the node where it runs.

    Args:
        address: of a running cluster ("host:port" or "auto") with this machine among its nodes; None starts a private
            one on this machine.
        num_cpus, num_gpus: what the private one is told it has, instead of what is detected. Like the environment
            variables `CAPSBENCH_RAY_CPUS` and `CAPSBENCH_RAY_GPUS`, they are for logical resources, as in tests: trials
            then share real cores, or get GPU ids that do not exist.

    An interrupted or failed `run` closes the executor. A private Ray that is lost in the middle of a run is replaced; the
    loss of a cluster, or of its head, ends the run.
    """

    name = "ray"

    def __init__(self, address: str | None = None, *, num_cpus: int | None = None, num_gpus: int | None = None) -> None:
        self._address = address
        self._started = False
        self._access = contextlib.ExitStack()
        self._survey: Survey | None = None
        self._is_spent = False  # whether a Ray in this process does not end, so that no other can be started
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
        quiet.silence()
        self._init()
        self._guardian = Guardian(self._temp)
        self._servers = self._watched()

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
            self._survey = nodes.Survey(self._asked(nodes.living))
        elif self._survey is None:
            self._survey = nodes.survey(nodes.living(), trials)
        return self._survey

    def _asked(self, question: Callable[[], _T]) -> _T:
        """Ray's answer, which never comes once its GCS is gone. Raises `Lost` if Ray is lost meanwhile."""
        answers: list[_T] = []
        asking = threading.Thread(target=lambda: answers.append(question()), daemon=True, name="Ray's answer")
        asking.start()
        while asking.is_alive():
            asking.join(_POLL_S)
            if asking.is_alive() and (how := self._servers.fault()):
                raise Lost(f"Ray was lost: {how}")
        if not answers:
            raise Lost("Ray was lost: it has not said which nodes it has")
        return answers[0]

    def run(self, jobs: Sequence[Job], emit: Emit) -> None:
        rest, in_vain = list(jobs), 0
        with interruptible() as stop:
            while rest:
                self.start()
                handover = Handover(emit)
                try:
                    relay, how = self._fit(rest, handover, stop)
                except Lost:
                    self._servers.end()
                    self.close()
                    if stop.is_set():
                        raise KeyboardInterrupt from None
                    raise
                if stop.is_set() or relay.error or relay.stuck:
                    self._leave(relay, handover, is_lost=how is not None)
                    if relay.error:
                        raise relay.error
                    relay.interrupt(relay.stuck)
                    if stop.is_set():
                        raise KeyboardInterrupt
                    raise Lost(str(relay.stuck))
                rest = relay.rest()
                in_vain = 0 if relay.has_progressed else in_vain + 1
                if how is None:
                    if rest and in_vain > _RESTARTS:
                        raise Lost(f"Ray has started no supervisor for {len(rest)} trials, in {in_vain} tries")
                    continue
                self._leave(relay, handover, is_lost=True)
                again = self._address is None and in_vain <= _RESTARTS and not self._is_spent
                relay.interrupt(f"Ray was lost: {how}", pause_s(in_vain) if again else None)
                rest = relay.rest()
                if not again:
                    raise Lost(f"Ray was lost: {how}")
                if stop.wait(pause_s(in_vain)):
                    raise KeyboardInterrupt
                try:
                    self.start()
                except UserError as error:
                    raise Lost(f"Ray was lost: {how}, and could not be started again: {error}") from error

    def _fit(self, jobs: Sequence[Job], handover: Handover, stop: threading.Event) -> tuple[Relay, str | None]:
        """Runs `jobs` by Tune, in a thread of its own; how Ray was lost, in a clause, if it was.

        The thread is then left behind: it may wait for ever.
        """
        from ray import tune

        from harness.executors import relay as ray_relay
        from harness.executors import tune as ray_tune

        is_cluster = self._address is not None
        home = ray_tune.Home.here(is_cluster, ray_tune.parcels(jobs) if is_cluster else {})
        survey = self._look([job.trial for job in jobs])

        def configured(job: Job) -> dict[str, Any]:
            return ray_tune.configuration(job, home, survey.request(job.trial))

        relay = ray_relay.Relay(jobs, configured, handover, stop, is_cluster=is_cluster)
        tuner = tune.Tuner(
            tune.with_resources(ray_tune.supervise, ray_tune.resources),
            param_space={"given": tune.grid_search([configured(job) for job in jobs])},
            # A supervisor keeps nothing from an attempt that has ended, and a new one takes 3 s to start.
            tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=str),
            run_config=tune.RunConfig(
                storage_path=str(self._temp / "tune"),
                callbacks=[relay],
                failure_config=tune.FailureConfig(max_failures=-1),  # the relay decides
                verbose=0,
            ),
        )
        wrong: list[Exception] = []

        def fit() -> None:
            try:
                tuner.fit()
            except (ray_relay.Abort, Abandoned):
                pass
            except Exception as error:
                wrong.append(error)

        course = threading.Thread(target=fit, daemon=True, name="Tune")
        course.start()
        leave_at: float | None = None
        while course.is_alive():
            handover.take(_POLL_S)
            relay.look_after_supervisors()
            if how := self._servers.fault():
                return relay, how
            if leave_at is None and (stop.is_set() or relay.error):
                leave_at = time.monotonic() + _LEAVE_S
            if leave_at is not None and time.monotonic() > leave_at:
                return relay, f"it has not answered for {_LEAVE_S:.0f} s"
        # Tune may notice a loss before the next look does.
        deadline = time.monotonic() + _SETTLE_S
        while wrong and not stop.is_set() and time.monotonic() < deadline:
            if how := self._servers.fault():
                return relay, how
            time.sleep(_POLL_S)
        return relay, f"{type(wrong[0]).__name__}: {' '.join(str(wrong[0]).split())[:300]}" if wrong else None

    def _leave(self, relay: Relay, handover: Handover, *, is_lost: bool) -> None:
        """Closes; all workers of this machine have then ended. Of a Ray that is lost, nothing is waited for."""
        handover.abandon()
        if not is_lost:
            self.close()
            _wait_until_gone(relay)
            return
        self._servers.end()
        relay.kill_local()
        _wait_until_gone(relay)
        self.close()

    def close(self) -> None:
        """Of a Ray that no longer answers, nothing is left either, but it is not waited for."""
        if not self._started:
            return
        import ray

        def shut_down() -> None:
            with contextlib.suppress(Exception):  # whatever Ray raises where its servers are gone
                ray.shutdown()

        self._started = False
        self._survey = None  # another Ray has other nodes
        closing = threading.Thread(target=shut_down, daemon=True, name="Ray's end")
        closing.start()
        closing.join(_OWN_SHUTDOWN_S if self._address is None else _SHUTDOWN_S)
        if closing.is_alive():
            self._is_spent = True
            self._servers.end()
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
        if self._address is not None:
            with access.on_loopback() if self._is_local else contextlib.nullcontext():
                ray.init(address=self._address, runtime_env={"env_vars": _WORKER_ENVIRONMENT}, **silent)
        else:
            if self._gpus > len(local_gpus()):  # logical GPUs: Ray would refuse them, since fewer are visible
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            elif stale_gpus():  # Ray would hand out those that are not there
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(local_gpus())
            with quiet.fewer_processes(), quiet.own_path(), quiet.marked(self._temp), access.on_loopback():
                ray.init(
                    address="local",
                    num_cpus=self._cpus,
                    num_gpus=self._gpus,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    # Supervisors run the driver's code, wherever it came from.
                    runtime_env={"env_vars": _WORKER_ENVIRONMENT | forwarded_environment()},
                    _temp_dir=str(self._temp),
                    **silent,
                )

    def _watched(self) -> Servers:
        if self._address is None:
            return OwnServers(self._temp)
        import ray

        own = ray.get_runtime_context().get_node_id()
        here = next(node for node in ray.nodes() if node["NodeID"] == own)
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        raylet = str(here["NodeManagerAddress"]), int(here["NodeManagerPort"])
        return ClusterServers([(host.strip("[]"), int(port)), raylet])

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


def _wait_until_gone(relay: Relay) -> None:
    """Waits for this host's workers, which the kernel kills with their supervisors."""
    deadline = time.monotonic() + _GONE_S
    for pid in relay.local_pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.kill(pid, 0)
                time.sleep(0.02)
