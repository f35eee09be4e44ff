"""The dispatcher between a job source and whatever runs its jobs: each report passed on once, each
job ended once, all time charged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hssl_search.engine.execution.jobs import (
    Decision,
    Job,
    JobSource,
    Meter,
    Metrics,
    Outcome,
    Report,
    State,
)
from hssl_search.errors import UserError

T = TypeVar("T")
TICK_S = 0.5
WAIT_S = 5.0
"""A job waits that long for a place before the user is told; from then on time in which nothing
runs is not charged."""


def cause(error: Exception) -> str:
    """Return the one line that an Outcome says of an error: the sentence of a UserError, else type
    and message."""
    if isinstance(error, UserError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())


@dataclass
class _Open:
    """A job that was handed out and has not ended."""

    job: Job
    since: float
    """When it got its devices; while it waits to get more of them, minus the seconds that it held
    some."""
    heard: float
    """When it last gave a sign of life."""
    begun: float
    """When its last attempt began."""
    reached: int
    """Step of the checkpoint that was seen when it was last heard."""
    reports: dict[int, Report] = field(default_factory=dict)
    stopped: bool = False
    """Whether its source answered STOP."""
    cut: bool = False
    """Whether everything stops."""
    waits_since: float | None = None
    """While it was handed out and has no place to run: since when."""
    attempt: int = 1

    def wait(self, now: float) -> None:
        """Hold no devices from now on."""
        self.waits_since, self.since = now, self.since - now

    def hold(self, now: float) -> None:
        """Hold devices again, or at last."""
        self.waits_since, self.since = None, self.since + now
        self.heard = self.begun = now

    def waits_long(self, now: float) -> bool:
        """Return whether the user is to be told that it waits."""
        return self.waits_since is not None and now - self.waits_since >= WAIT_S


class Dispatcher:
    """Keeps an executor's promises to the source, so that executors only have to run things.

    An error that source or meter raise, KeyboardInterrupt too, does not pass through the executor's
    machinery: it is kept, everything stops, and `close` raises it after every open job was ended as
    CUT. Not thread-safe: one thread calls all of it.

    Args:
        cpus, gpus: what the machine has; a job waits here until it fits beside those that run, so
            that a job that is live holds its devices. None: no limit.
        asked: set by another thread to stop everything, as Ctrl-C does.
    """

    def __init__(
        self,
        source: JobSource,
        meter: Meter,
        cpus: float | None = None,
        gpus: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        asked: threading.Event | None = None,
    ) -> None:
        self._source, self._meter = source, meter
        self._limits = {"CPUs": cpus, "GPUs": gpus}
        self._clock = clock
        self._asked = asked or threading.Event()
        self._last_tick = clock()
        self._live: dict[str, _Open] = {}
        self._waiting: Job | None = None
        """The job that the source handed out and that does not fit yet."""
        self._parked: dict[str, _Open] = {}
        """Jobs that ran out of memory, and wait for a device of their own."""
        self._error: BaseException | None = None

    def next_job(self) -> Job | None:
        """Return the next job to start now; None where there is nothing to start at present. With
        `idle`, None is the end."""
        if self.stopping():
            return None
        # Before new jobs, which would fill the GPU that it needs for itself.
        if self._parked:
            job: Job | None = next(iter(self._parked.values())).job
        else:
            job = self._waiting = self._waiting or self._guarded(self._source.next_job, None)
        if job is None or self._error or not self._fits(job):
            return None
        if job.key in self._live:
            raise ValueError(f"the job {job.key} was handed out while it runs")
        self.tick()  # what has passed is charged to those that ran, and not to this one
        now, opened = self._clock(), self._parked.pop(job.key, None)
        if opened is None:
            self._waiting = None
            opened = _Open(job, now, now, now, job.step_reached())
        else:
            opened.since += now
            self._begin_again(opened)
        self._live[job.key] = opened
        self.tick()
        return opened.job

    @property
    def idle(self) -> bool:
        """Return whether no job is open."""
        return not self._live and not self._parked

    def job(self, key: str) -> Job:
        """Return the live job."""
        return self._live[key].job

    def attempt(self, key: str) -> int:
        """Return how often the live job has been started."""
        return self._live[key].attempt

    def report(self, key: str, step: int, metrics: Metrics) -> Decision:
        """Pass a report on. A step that an earlier attempt reported is not passed on again and
        continues."""
        opened = self._live.get(key)
        if opened is None or opened.stopped or opened.cut:
            return Decision.STOP
        if opened.reports and step <= max(opened.reports):
            return Decision.CONTINUE
        # The checkpoint of that step is no further sign of life.
        opened.heard, opened.reached = self._clock(), max(step, opened.reached)
        report = opened.reports[step] = Report(step, metrics)
        decision = self._guarded(lambda: self._source.on_report(opened.job, report), Decision.STOP)
        # Where the source raised, its STOP is only what `_guarded` stands in with.
        opened.cut = self._error is not None
        opened.stopped = decision is Decision.STOP and not opened.cut
        return decision

    def retry(self, key: str) -> Job:
        """Begin a new attempt at a job whose worker died; return the job as it may run now."""
        # A tick without the job in between ends the attempt that is charged, and begins another.
        self.tick()
        opened = self._live.pop(key)
        self.tick()
        self._begin_again(opened)
        self._live[key] = opened
        self.tick()
        return opened.job

    def place(self, waiting: Collection[str]) -> Job | None:
        """Hear which of the live jobs have no place to run; the others hold their devices.

        Returns:
            A job that has waited for long, if any.
        """
        changed = [
            opened
            for key, opened in self._live.items()
            if (key in waiting) is (opened.waits_since is None)
        ]
        if changed:
            self.tick()
            for opened in changed:
                (opened.wait if opened.waits_since is None else opened.hold)(self._clock())
            self.tick()
        now = self._clock()
        return next((opened.job for opened in self._live.values() if opened.waits_long(now)), None)

    def hung(self) -> list[str]:
        """Return the keys of live jobs that have neither reported nor saved a checkpoint for longer
        than they may."""
        hung, now = [], self._clock()
        for key, opened in self._live.items():
            still_s = opened.job.still_s
            if still_s is None or opened.waits_since is not None or now - opened.heard <= still_s:
                continue
            # Only now, since it reads the disk: a new checkpoint is a sign of life too.
            before, opened.reached = opened.reached, opened.job.step_reached()
            if opened.reached > before:
                opened.heard = now
            else:
                hung += [key]
        return hung

    def end(
        self, key: str, state: State = State.DONE, cause: str = "", device_full: bool = False
    ) -> None:
        """End a live job; one that was told to stop is STOPPED or CUT, one that has ended is left
        alone.

        Args:
            device_full: its device's memory ran out. A job that shared its GPU does not end then,
                but is handed out again with a whole one.
        """
        if key not in self._live:
            return
        self.tick()
        opened = self._live.pop(key)
        self.tick()
        now = self._clock()
        if opened.waits_since is not None:
            opened.hold(now)  # so that `now - since` is what it held, without the waiting
        if opened.stopped or opened.cut:
            state, cause = (State.STOPPED if opened.stopped else State.CUT), ""
        elif device_full and 0 < opened.job.gpus < 1:
            # While it is parked `since` is minus what it has held, as of one that waits.
            opened.since -= now
            opened.job = replace(opened.job, gpus=1.0)
            self._parked[key] = opened
            return
        reports = [opened.reports[step] for step in sorted(opened.reports)]
        last_s = now - opened.begun if opened.attempt > 1 else None
        outcome = Outcome(state, cause, reports, now - opened.since, last_s)
        self._guarded(lambda: self._source.on_end(opened.job, outcome), None)

    def stop(self, error: BaseException) -> None:
        """Begin to stop everything; `close` will raise the first error given."""
        self._error = self._error or error

    def stopping(self) -> bool:
        """Return whether everything must stop now."""
        if self._asked.is_set():
            self.stop(KeyboardInterrupt())
        return self._error is not None or self._meter.exhausted()

    def tick(self) -> None:
        """Charge the live jobs for the time since the last tick."""
        now = self._last_tick = self._clock()
        live = [opened.job for opened in self._live.values() if opened.waits_since is None]
        if not live and any(opened.waits_long(now) for opened in self._live.values()):
            self._guarded(self._meter.skip, None)
        else:
            self._guarded(lambda: self._meter.tick(live), None)

    def poll(self) -> bool:
        """Charge every half second; return whether everything must stop now."""
        if self._clock() - self._last_tick >= TICK_S:
            self.tick()
        return self.stopping()

    def close(self) -> None:
        """End what is still open as CUT and raise what stopped the dispatcher."""
        for opened in self._parked.values():
            opened.since += self._clock()
        self._live |= self._parked
        self._parked.clear()
        for key in list(self._live):
            self.end(key, State.CUT)
        if (job := self._waiting) is not None:
            self._waiting = None
            self._guarded(lambda: self._source.on_end(job, Outcome(State.CUT)), None)
        if self._error is not None:
            raise self._error

    def _begin_again(self, opened: _Open) -> None:
        """Begin another attempt, at the job as its source lets it run now."""
        job = opened.job = self._guarded(lambda: self._source.again(opened.job), opened.job)
        opened.heard = opened.begun = self._clock()
        # What an earlier attempt saved is no sign of life of this one.
        opened.reached = job.step_reached()
        opened.attempt += 1

    def _guarded(self, call: Callable[[], T], otherwise: T) -> T:
        """Return what a call of source or meter gives; keep what it raises, and stop."""
        try:
            return call()
        except BaseException as error:
            self.stop(error)
            return otherwise

    def _fits(self, job: Job) -> bool:
        """Return whether the job fits beside those that run; stop where it never will."""
        running = [opened.job for opened in self._live.values()]
        # A limit is kept here also on Ray, where a job that waits inside of it would be charged.
        held = {
            "CPUs": sum(live.cpus for live in running),
            "GPUs": sum(live.gpus for live in running),
        }
        asked = {"CPUs": job.cpus, "GPUs": job.gpus}
        for name, most in self._limits.items():
            if most is None:
                continue
            if asked[name] > most + 1e-6:
                self.stop(
                    UserError(
                        f"{job.key} needs {asked[name]:g} {name} and there are {most:g}; ask for "
                        f"fewer {name} per trial."
                    )
                )
            if asked[name] + held[name] > most + 1e-6:
                return False
        return True
