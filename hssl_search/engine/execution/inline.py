"""Runs jobs one after the other in this process: for tests, debugging and places without Ray."""

from __future__ import annotations

from hssl_search.engine.execution.dispatcher import Dispatcher, cause
from hssl_search.engine.execution.jobs import (
    Decision,
    DeviceFull,
    Halt,
    Job,
    JobSource,
    Meter,
    Metrics,
    State,
    Worker,
)


# No Exception: the worker handles those, as errors of the job.
class _Leave(BaseException):
    """Takes a worker out of the job that must not continue."""


class InlineExecutor:
    """Runs a JobSource synchronously; implements `hssl_search.engine.execution.jobs.Executor`.

    A job is stopped or cut when it next reports. A worker that kills its process takes the search
    with it.
    """

    def __init__(self, worker: Worker, meter: Meter) -> None:
        self._worker = worker
        self._meter = meter

    def run(self, source: JobSource, concurrency: int = 1) -> None:
        """Run as the contract says, except that `concurrency` is always 1."""
        dispatcher = Dispatcher(source, self._meter)
        while (job := dispatcher.next_job()) is not None:
            self._run(dispatcher, job)
        dispatcher.close()

    def _run(self, dispatcher: Dispatcher, job: Job) -> None:
        def send(step: int, metrics: Metrics) -> None:
            decision = dispatcher.report(job.key, step, metrics)
            if dispatcher.poll() or decision is Decision.STOP:
                raise _Leave

        try:
            self._worker(job, send)
        except _Leave:
            dispatcher.end(job.key, State.CUT)  # STOPPED where the source said STOP
        except Halt as error:
            dispatcher.stop(error)
        except Exception as error:
            device_full = isinstance(error, DeviceFull)
            dispatcher.end(job.key, State.FAILED, cause(error), device_full)
        except BaseException as error:
            dispatcher.stop(error)
        else:
            dispatcher.end(job.key)
