"""The dispatcher between a job source and whatever runs its jobs: each report passed on once, each job ended once, all time charged."""

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
    Outcome,
    Plain,
    Report,
    State,
)
from hssl_search.errors import UserError

T = TypeVar("T")
TICK_S = 0.5
WAIT_S = 5.0
"""A job waits that long for a place before the user is told; from then on time in which nothing runs is not charged."""


def cause(error: Exception) -> str:
    """The one line that an Outcome says of an error: the sentence of a UserError, else type and message."""
    if isinstance(error, UserError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())


@dataclass
class _Open:
    """A job that was handed out and has not ended."""

    job: Job
    since: float
    """When it got its devices; while it waits to get more of them, minus the seconds that it held some."""
    heard: float
    """When it last gave a sign of life."""
    begun: float
    """When its last attempt began."""
    reached: int
    """Step of the checkpoint that was seen when it was last heard."""
    reports: dict[int, Report] = field(default_factory=dict)
    stopped: bool = False
    cut: bool = False
    waits_since: float | None = None
    """While it was handed out and has no place to run: since when."""
    attempt: int = 1

    @classmethod
    def at(cls, job: Job, now: float) -> _Open:
        return cls(job, now, now, now, job.step_reached())

    def wait(self, now: float) -> None:
        """Hold no devices from now on."""
        self.waits_since, self.since = now, self.since - now

    def hold(self, now: float) -> None:
        """Hold devices again, or at last."""
        self.waits_since, self.since = None, self.since + now
        self.heard = self.begun = now

    def begin_again(self, job: Job, now: float) -> None:
        self.job, self.heard, self.begun, self.reached = job, now, now, job.step_reached()
        self.attempt += 1


class Dispatcher:
    """Keeps an executor's promises to the source, so that executors only have to run things.

    An error that source or meter raise, KeyboardInterrupt too, does not pass through the executor's machinery: it is kept, everything
    stops, and `close` raises it after every open job was ended as CUT. Not thread-safe: one thread calls all of it.

    Args:
        cpus, gpus: what the machine has; a job waits here until it fits beside those that run, so that a job that is live holds
            its devices. None: no limit.
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
        self._source = source
        self._meter = meter
        self._cpus = cpus
        self._gpus = gpus
        self._clock = clock
        self._asked = asked or threading.Event()
        self._last_tick = clock()
        self._live: dict[str, _Open] = {}
        self._waiting: Job | None = None
        self._parked: dict[str, _Open] = {}
        """Jobs that were handed out, ran out of memory, and wait for a device of their own."""
        self._error: BaseException | None = None

    def next_job(self) -> Job | None:
        """The next job to start now, or None: nothing to start at present. With `idle`, None is the end."""
        if self.stopping():
            return None
        job = self._next()
        if job is None or self._error or not self._fits(job):
            return None
        if job is self._waiting:
            self._waiting = None
        return self._start(job)

    @property
    def idle(self) -> bool:
        return not self._live and not self._parked

    def job(self, key: str) -> Job:
        """The live job."""
        return self._live[key].job

    def attempt(self, key: str) -> int:
        """How often the live job has been started."""
        return self._live[key].attempt

    def report(self, key: str, step: int, metrics: Plain) -> Decision:
        """Pass a report on. A step that an earlier attempt reported is not passed on again and continues."""
        opened = self._live.get(key)
        if opened is None or opened.stopped or opened.cut:
            return Decision.STOP
        if opened.reports and step <= max(opened.reports):
            return Decision.CONTINUE
        opened.heard, opened.reached = self._clock(), max(step, opened.reached)
        report = opened.reports[step] = Report(step, metrics)
        decision = self._guarded(lambda: self._source.on_report(opened.job, report), Decision.STOP)
        opened.cut = self._error is not None
        opened.stopped = decision is Decision.STOP and not opened.cut
        return decision

    def retry(self, key: str) -> Job:
        """The job's worker died and the job begins a new attempt; the job as it may run now."""
        self.tick()
        opened = self._live.pop(key)
        self.tick()
        self._begin_again(opened)
        self._live[key] = opened
        self.tick()
        return opened.job

    def place(self, waiting: Collection[str]) -> Job | None:
        """Hear which of the live jobs have no place to run; the others hold their devices. One that has waited for long, if any."""
        changed = {
            key
            for key, opened in self._live.items()
            if (key in waiting) is (opened.waits_since is None)
        }
        if changed:
            self.tick()
            for key in changed:
                opened = self._live[key]
                (opened.wait if key in waiting else opened.hold)(self._clock())
            self.tick()
        return next(
            (opened.job for opened in self._live.values() if self._waits_long(opened)), None
        )

    def hung(self) -> list[str]:
        """The keys of live jobs that have neither reported nor saved a checkpoint for longer than they may."""
        return [key for key, opened in self._live.items() if self._is_hung(opened)]

    def end(
        self, key: str, state: State | None = None, cause: str = "", full: bool = False
    ) -> None:
        """End a live job; the state None is DONE. One that was told to stop is STOPPED or CUT; one that has ended is left alone.

        Args:
            full: its device's memory ran out. A job that shared its GPU does not end then, but is handed out again with a whole one.
        """
        if key not in self._live:
            return
        self.tick()
        opened = self._live.pop(key)
        self.tick()
        if opened.waits_since is not None:
            opened.hold(self._clock())
        if opened.stopped or opened.cut:
            state, cause = (State.STOPPED if opened.stopped else State.CUT), ""
        elif full and 0 < opened.job.gpus < 1:
            self._park(opened)
            return
        reports = [opened.reports[step] for step in sorted(opened.reports)]
        now = self._clock()
        last_s = now - opened.begun if opened.attempt > 1 else None
        self._tell_end(
            opened.job, Outcome(state or State.DONE, cause, reports, now - opened.since, last_s)
        )

    def stop(self, error: BaseException) -> None:
        """Begin to stop everything; `close` will raise the first error given."""
        self._error = self._error or error

    def stopping(self) -> bool:
        if self._asked.is_set():
            self.stop(KeyboardInterrupt())
        return self._error is not None or self._meter.exhausted()

    def tick(self) -> None:
        """Charge the live jobs for the time since the last tick."""
        self._last_tick = self._clock()
        live = [opened.job for opened in self._live.values() if opened.waits_since is None]
        if not live and any(self._waits_long(opened) for opened in self._live.values()):
            self._guarded(self._meter.skip, None)
        else:
            self._guarded(lambda: self._meter.tick(live), None)

    def poll(self) -> bool:
        """Charge every half second; whether everything must stop now."""
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
        if self._waiting is not None:
            job, self._waiting = self._waiting, None
            self._tell_end(job, Outcome(State.CUT))
        if self._error is not None:
            raise self._error

    def _next(self) -> Job | None:
        """One that runs for another time, or one that waits to fit, or a new one."""
        if self._parked:
            return next(iter(self._parked.values())).job
        self._waiting = self._waiting or self._guarded(self._source.next_job, None)
        return self._waiting

    def _start(self, job: Job) -> Job:
        if job.key in self._live:
            raise ValueError(f"the job {job.key} was handed out while it runs")
        self.tick()
        if (opened := self._parked.pop(job.key, None)) is None:
            opened = _Open.at(job, self._clock())
        else:
            opened.since += self._clock()
            self._begin_again(opened)
        self._live[job.key] = opened
        self.tick()
        return opened.job

    def _park(self, opened: _Open) -> None:
        opened.since -= self._clock()
        opened.job = replace(opened.job, gpus=1.0)
        self._parked[opened.job.key] = opened

    def _begin_again(self, opened: _Open) -> None:
        job = self._guarded(lambda: self._source.again(opened.job), opened.job)
        opened.begin_again(job, self._clock())

    def _waits_long(self, opened: _Open) -> bool:
        return opened.waits_since is not None and self._clock() - opened.waits_since >= WAIT_S

    def _is_hung(self, opened: _Open) -> bool:
        if (
            opened.job.still_s is None
            or opened.waits_since is not None
            or self._clock() - opened.heard <= opened.job.still_s
        ):
            return False
        before, opened.reached = opened.reached, opened.job.step_reached()
        if opened.reached > before:
            opened.heard = self._clock()
        return opened.reached == before

    def _tell_end(self, job: Job, outcome: Outcome) -> None:
        self._guarded(lambda: self._source.on_end(job, outcome), None)

    def _guarded(self, call: Callable[[], T], otherwise: T) -> T:
        try:
            return call()
        except BaseException as error:
            self.stop(error)
            return otherwise

    def _fits(self, job: Job) -> bool:
        running = [opened.job for opened in self._live.values()]
        for name, most, asked, held in (
            ("CPUs", self._cpus, job.cpus, sum(other.cpus for other in running)),
            ("GPUs", self._gpus, job.gpus, sum(other.gpus for other in running)),
        ):
            if most is None:
                continue
            if asked > most + 1e-6:
                self.stop(
                    UserError(
                        f"{job.key} needs {asked:g} {name} and there are {most:g}; ask for fewer {name} per trial."
                    )
                )
            if asked + held > most + 1e-6:
                return False
        return True
