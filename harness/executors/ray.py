"""Ray Tune schedules the trials, on this machine or on a cluster. Ray is imported only when it is started."""

# Ray is only partly typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.executors.base import Capacity, Emit, Job, Lost, check_fits
from harness.executors.handover import Abandoned, Handover
from harness.executors.instance import Instance, said
from harness.executors.losses import pause_s
from harness.spec.trial import Trial
from harness.supervisor.seat import interruptible

if TYPE_CHECKING:
    from harness.executors.nodes import Survey
    from harness.executors.relay import Relay

_GONE_S = 10.0
_POLL_S = 0.1
_LEAVE_S = 10.0  # how long Tune may take to end once it is told to
_SETTLE_S = 5.0
_RESTARTS = 2  # of a private Ray that is lost, without an epoch in between


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
        self._ray = Instance(address, num_cpus, num_gpus)
        self._survey: Survey | None = None

    def start(self) -> None:
        """Starts Ray, or connects to it; takes a few seconds. `run` calls it if it has not been called before.

        Raises `UserError` if it does not start within a bounded time, or cannot; `KeyboardInterrupt` on Ctrl-C or
        SIGTERM.
        """
        self._ray.start()

    def capacity(self) -> Capacity:
        """The capacity of all nodes together. Connects to a cluster; a private one need not be started."""
        nodes = self._nodes()
        return Capacity(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes), len(nodes))

    def check(self, trials: Sequence[Trial]) -> None:
        check_fits(trials, self._nodes())
        if not self._ray.is_private:
            with _as_user_error():
                self._look(trials).require(trials)

    def notes(self) -> Sequence[str]:
        return self._survey.notes() if self._survey else ()

    def _look(self, trials: Sequence[Trial]) -> Survey:
        """What the nodes have, and on a cluster what they lack for `trials`; asked once."""
        from harness.executors import nodes

        if self._survey is None and self._ray.is_private:
            self._survey = nodes.Survey(self._ray.asked(nodes.living))
        elif self._survey is None:
            self._survey = self._ray.asked(lambda: nodes.survey(nodes.living(), trials))
        return self._survey

    def run(self, jobs: Sequence[Job], emit: Emit) -> None:
        rest, in_vain = list(jobs), 0
        with interruptible() as stop:
            while rest:
                self.start()
                handover = Handover(emit)
                try:
                    relay, how = self._fit(rest, handover, stop)
                except Lost as lost:  # before there were trials to interrupt
                    self._ray.servers.end()
                    self.close()
                    in_vain += 1
                    if stop.is_set():
                        raise KeyboardInterrupt from None
                    if not self._can_start_again(in_vain):
                        raise
                    self._start_again(str(lost), in_vain, stop)
                    continue
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
                again = self._can_start_again(in_vain)
                relay.interrupt(f"Ray was lost: {how}", pause_s(in_vain) if again else None)
                rest = relay.rest()
                if not again:
                    raise Lost(f"Ray was lost: {how}")
                self._start_again(f"Ray was lost: {how}", in_vain, stop)

    def _can_start_again(self, in_vain: int) -> bool:
        return self._ray.is_private and in_vain <= _RESTARTS and not self._ray.is_spent

    def _start_again(self, how: str, in_vain: int, stop: threading.Event) -> None:
        if stop.wait(pause_s(in_vain)):
            raise KeyboardInterrupt
        try:
            self.start()
        except UserError as error:
            raise Lost(f"{how}, and could not be started again: {error}") from error

    def _fit(self, jobs: Sequence[Job], handover: Handover, stop: threading.Event) -> tuple[Relay, str | None]:
        """Runs `jobs` by Tune, in a thread of its own; how Ray was lost, in a clause, if it was.

        The thread is then left behind: it may wait for ever.
        """
        from ray import tune

        from harness.executors import relay as ray_relay
        from harness.executors import tune as ray_tune

        is_cluster = not self._ray.is_private
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
                storage_path=str(self._ray.temp / "tune"),
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
            if how := self._ray.servers.fault():
                return relay, how
            if leave_at is None and (stop.is_set() or relay.error):
                leave_at = time.monotonic() + _LEAVE_S
            if leave_at is not None and time.monotonic() > leave_at:
                return relay, f"it has not answered for {_LEAVE_S:.0f} s"
        # Tune may notice a loss before the next look does.
        deadline = time.monotonic() + _SETTLE_S
        while wrong and not stop.is_set() and time.monotonic() < deadline:
            if how := self._ray.servers.fault():
                return relay, how
            time.sleep(_POLL_S)
        return relay, said(wrong[0]) if wrong else None

    def _leave(self, relay: Relay, handover: Handover, *, is_lost: bool) -> None:
        """Closes; all workers of this machine have then ended. Of a Ray that is lost, nothing is waited for."""
        handover.abandon()
        if not is_lost:
            self.close()
            _wait_until_gone(relay)
            return
        self._ray.servers.end()
        relay.kill_local()
        _wait_until_gone(relay)
        self.close()

    def close(self) -> None:
        """Of a Ray that no longer answers, nothing is left either, but it is not waited for."""
        self._survey = None  # another Ray has other nodes
        self._ray.close()

    def _nodes(self) -> list[Capacity]:
        if self._ray.is_private:
            return [self._ray.capacity()]
        self.start()
        from harness.executors.nodes import living

        with _as_user_error():
            return [node.capacity for node in self._ray.asked(living)]


@contextlib.contextmanager
def _as_user_error() -> Generator[None]:
    """Before anything runs, a cluster that is lost is one that cannot be used."""
    try:
        yield
    except Lost as lost:
        raise UserError(f"{lost}; start it again, or choose another --ray-address") from lost


def _wait_until_gone(relay: Relay) -> None:
    """Waits for this host's workers, which the kernel kills with their supervisors."""
    deadline = time.monotonic() + _GONE_S
    for pid in relay.local_pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.kill(pid, 0)
                time.sleep(0.02)
