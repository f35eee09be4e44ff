"""Runs jobs in virtual time: what workers would find is looked up, and only the clock shows that
time has passed.
"""

from __future__ import annotations

import heapq
from itertools import count

from benchmarks.simulation.worker import Attempt, Ending, SimulatedWorker
from hssl_search.engine.execution.dispatcher import Dispatcher
from hssl_search.engine.execution.jobs import Decision, Job, JobSource, Report, State
from hssl_search.engine.records.meter import DeviceMeter


class VirtualClock:
    """Seconds that pass when they are told to; the `Clock` of ledger, meter and dispatcher."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class SimulatedExecutor:
    """Runs a JobSource in virtual time; implements `hssl_search.engine.execution.jobs.Executor`.

    Dispatcher, meter and ledger are the real ones, on the clock that this moves. The same source,
    answers and faults give the same events in the same order.
    """

    def __init__(self, worker: SimulatedWorker, meter: DeviceMeter, clock: VirtualClock) -> None:
        self._worker, self._meter, self._clock = worker, meter, clock

    def run(self, source: JobSource, concurrency: int) -> None:
        """Run the source's jobs as the contract says; what the worker raises stops everything and
        is raised again."""
        machine = self._worker.machine
        dispatcher = Dispatcher(source, self._meter, machine.cpus, machine.gpus, clock=self._clock)
        workers = _Workers(self._worker, dispatcher, self._clock)
        try:
            while not dispatcher.stopping():
                while (
                    len(workers.jobs) < concurrency and (job := dispatcher.next_job()) is not None
                ):
                    workers.start(job)
                if not workers.jobs or not self._pass_until(
                    workers.due(), workers.devices(machine.device), dispatcher
                ):
                    break
                workers.happen()
        except BaseException as error:
            dispatcher.stop(error)
        dispatcher.close()

    def _pass_until(self, due: float, devices: float, dispatcher: Dispatcher) -> bool:
        """Let time pass until then; False when the budget is spent before, and then only until it
        is.
        """
        # The clock must not pass the end of the budget: what happens after it never happens.
        spent_at = self._clock.now + self._meter.remaining() / devices
        self._clock.now = max(self._clock.now, min(due, spent_at))
        dispatcher.tick()
        return spent_at > due


class _Workers:
    """The workers of one run, and what happens to them next."""

    def __init__(
        self, worker: SimulatedWorker, dispatcher: Dispatcher, clock: VirtualClock
    ) -> None:
        self._worker, self._dispatcher, self._clock = worker, dispatcher, clock
        self.jobs: dict[str, Job] = {}
        self._attempts: dict[str, Attempt] = {}
        self._events: list[tuple[float, int, str, Report | Ending]] = []
        self._order = count()
        self._idle = 0
        """Workers that are up and have no job."""

    def due(self) -> float:
        """Return when the next event happens."""
        return self._events[0][0]

    def devices(self, device: str) -> float:
        """Return the devices that are charged for what runs: all of the machine on CPU."""
        return 1.0 if device == "cpu" else sum(job.gpus for job in self.jobs.values())

    def start(self, job: Job) -> None:
        self.jobs[job.key] = job
        self._begin(job)

    def happen(self) -> None:
        """Let the next event happen: a report, the end of a job, or the death of its worker."""
        _, _, key, event = heapq.heappop(self._events)
        if event is Ending.DIED:
            self._died(key)
        elif (
            isinstance(event, Ending)
            or self._dispatcher.report(key, event.step, event.metrics) is Decision.STOP
        ):
            self._idle += 1
            self._end(key)
        else:
            self._await(key)

    def _begin(self, job: Job) -> None:
        # A worker that is up is used again; only a new one takes time to start.
        cold, self._idle = self._idle == 0, max(0, self._idle - 1)
        self._attempts[job.key] = self._worker.attempt(job, self._dispatcher.attempt(job.key), cold)
        self._await(job.key)

    def _await(self, key: str) -> None:
        seconds, event = next(self._attempts[key])
        heapq.heappush(self._events, (self._clock.now + seconds, next(self._order), key, event))

    def _died(self, key: str) -> None:
        if (attempts := self._dispatcher.attempt(key)) <= self._worker.faults.retries:
            self.start(self._dispatcher.retry(key))
        else:
            self._end(key, State.FAILED, f"the worker process died {attempts} times")

    def _end(self, key: str, state: State = State.DONE, cause: str = "") -> None:
        del self.jobs[key], self._attempts[key]
        self._dispatcher.end(key, state, cause)
