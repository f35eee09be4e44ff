"""Runs jobs one after the other in this process: for tests, debugging and places without Ray."""

from __future__ import annotations

from hssl_search.engine.execution.dispatcher import Desk, cause
from hssl_search.engine.execution.jobs import (
    Decision,
    DeviceFull,
    Halt,
    Job,
    JobSource,
    Meter,
    Plain,
    State,
    Worker,
)


class _Leave(BaseException):
    """Takes a worker out of the job that must not go on."""


class InlineExecutor:
    """Runs a JobSource synchronously; implements `hssl_search.engine.execution.jobs.Executor`.

    A job is stopped or cut when it next reports. A worker that kills its process takes the search with it.
    """

    def __init__(self, worker: Worker, meter: Meter) -> None:
        self._worker = worker
        self._meter = meter

    def run(self, source: JobSource, concurrency: int = 1) -> None:
        """As the contract says, except that `concurrency` is always 1."""
        desk = Desk(source, self._meter)
        while (job := desk.next_job()) is not None:
            self._run(desk, job)
        desk.close()

    def _run(self, desk: Desk, job: Job) -> None:
        def send(step: int, metrics: Plain) -> None:
            decision = desk.report(job.key, step, metrics)
            if desk.poll() or decision is Decision.STOP:
                raise _Leave

        try:
            self._worker(job, send)
        except _Leave:
            desk.end(job.key, State.CUT)
        except Halt as error:
            desk.stop(error)
        except Exception as error:
            desk.end(job.key, State.FAILED, cause(error), full=isinstance(error, DeviceFull))
        except BaseException as error:
            desk.stop(error)
        else:
            desk.end(job.key)
