"""Runs jobs through Ray Tune, on this machine or a cluster."""

from __future__ import annotations

import logging
import signal
import warnings
from pathlib import Path
from types import TracebackType

from hssl_search.engine.execution.dispatcher import Dispatcher
from hssl_search.engine.execution.jobs import Job, JobSource, Meter, Worker
from hssl_search.engine.execution.ray_tune.session import RaySession
from hssl_search.interrupts import handlers_kept, on_interrupt
from hssl_search.scratch import Scratch

log = logging.getLogger(__name__)

DEFAULT_WORKER = "hssl_search.engine.worker.run_job:run_job"


class RayExecutor:
    """Runs a JobSource in a fresh `ray.tune.Tuner`; implements
    `hssl_search.engine.execution.jobs.Executor`.

    Worker processes are used again for the next job with the same resources: a new one needs many
    seconds to import torch. One that raised is not used again, and its job is FAILED; one that died
    is replaced and its job starts again from the checkpoint in its folder. Ctrl-C, SIGTERM, SIGHUP
    and the session's `stop` end all jobs as CUT within seconds and raise KeyboardInterrupt; a
    second signal does not wait.

    Args:
        worker: runs one job; a callable, or `module:function` that only worker processes import.
        session: Ray's; None: a local one of our own, started by the first `run` and ended by
            `close`.
        storage: folder for Tune's files; None: a temporary folder, removed after each run. A
            cluster needs one that all nodes see.
        retries: how often a job is started again whose worker process died.
    """

    def __init__(
        self,
        meter: Meter,
        worker: Worker | str = DEFAULT_WORKER,
        session: RaySession | None = None,
        storage: Path | None = None,
        retries: int = 2,
    ) -> None:
        self._meter = meter
        self._worker = worker
        self._session = session or RaySession()
        self._storage = storage
        self._retries = retries

    def run(self, source: JobSource, concurrency: int) -> None:
        """Run the source to its end.

        Raises:
            KeyboardInterrupt: and what the source raises, after every open job was ended.
        """
        self._session.start()
        dispatcher = Dispatcher(
            source,
            self._meter,
            self._session.total("CPU"),
            self._session.total("GPU"),
            asked=self._session.stop,
        )
        # Tune's own SIGINT handler is switched off (TUNE_DISABLE_SIGINT_HANDLER): it waits for
        # workers to report, and it stays installed.
        with (
            handlers_kept(signal.SIGUSR1),
            on_interrupt(lambda: dispatcher.stop(KeyboardInterrupt())),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                self._fit(dispatcher, concurrency)
            except BaseException as error:
                dispatcher.stop(error)
        dispatcher.close()

    def close(self) -> None:
        """End Ray, if this executor started it."""
        self._session.shutdown()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fit(self, dispatcher: Dispatcher, concurrency: int) -> None:
        # Only here, once Ray has started: they load Ray Tune.
        from hssl_search.engine.execution.ray_tune.adapters import TuneTrials, tuner
        from hssl_search.engine.execution.ray_tune.trainable import trainable

        trials = TuneTrials(dispatcher, None if self._session.own else self._tell_waiting)
        function = trainable(self._worker)
        with Scratch("tune", self._storage) as folder:
            try:
                tuner(trials, function, concurrency, self._retries, str(folder)).fit()
            finally:
                trials.kill()

    def _tell_waiting(self, job: Job) -> None:
        name, asked = ("GPUs", job.gpus) if job.gpus else ("CPUs", job.cpus)
        # Ray names them in the singular.
        total, free = self._session.total(name[:3]), self._session.free(name[:3])
        log.warning(
            f"{job.key} waits for {asked:g} {name}: of the {total:g} of the Ray that runs here "
            f"{free:g} are free, something else holds the others. Nothing is charged while nothing "
            "runs; Ctrl-C stops the search."
        )
