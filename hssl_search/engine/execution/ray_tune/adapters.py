"""Ray Tune's Searcher, Scheduler, Stopper and Callback, each a few lines over the dispatcher."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from hssl_search.engine.execution.dispatcher import Dispatcher
from hssl_search.engine.execution.jobs import Decision, Halt, Job, State
from hssl_search.engine.execution.ray_tune.trainable import CAUSE, FULL, HALT, JOB, METRICS, STEP

PENDING = ("PENDING", "PREPARED", "RESCHEDULING")
"""States of a placement group that holds nothing yet."""
_MEMORY = re.compile(r"running low on memory\b.*?\bwas (\S+) used / (\S+) limit", re.DOTALL)
_ERROR_LINE = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception): .*\S)", re.MULTILINE)


class TuneTrials:
    """Which Tune trial runs which job, in which actor, and what a failing worker said last."""

    def __init__(
        self, dispatcher: Dispatcher, tell_waiting: Callable[[Job], None] | None = None
    ) -> None:
        self.dispatcher = dispatcher
        self._tell_waiting = tell_waiting
        self._told = False
        self.keys: dict[str, str] = {}
        """Job key by Tune's trial id."""
        self.causes: dict[str, str] = {}
        self.device_full: set[str] = set()
        """Trials whose workers ran out of memory."""
        self.actors: dict[str, Any] = {}

    def kill(self) -> None:
        """End all worker processes at once: they hold nothing that is not in a checkpoint, and
        waiting for their next report takes long."""
        import ray

        for actor in self.actors.values():
            ray.kill(actor)
        self.actors.clear()

    def kill_hung(self) -> None:
        """End the workers that make no step; Tune takes them for dead ones."""
        import ray

        hung = self.dispatcher.hung()
        for trial, key in self.keys.items():
            if key in hung and trial in self.actors:
                self.causes[trial] = (
                    "the worker made no step for a long time and was ended: it hung, or what it "
                    "waited for never came"
                )
                ray.kill(self.actors.pop(trial))

    def place(self) -> None:
        """Tell the dispatcher which jobs wait for a place; the user, once, when that is long. On a
        Ray of our own none does."""
        waiting = [] if self._tell_waiting is None else self._waiting()
        job = self.dispatcher.place(waiting)
        if job is not None and self._tell_waiting is not None and not self._told:
            self._told = True
            self._tell_waiting(job)

    def _waiting(self) -> list[str]:
        """Return the keys of the jobs for which Ray has found no place yet: of those of one size
        that have not started, the last ones."""
        import ray

        not_started = [key for trial, key in self.keys.items() if trial not in self.actors]
        if not not_started:
            return []
        # The ids of placement groups end with that of the program that asked for them.
        driver = ray.get_runtime_context().get_job_id()
        groups = [
            group
            for key, group in ray.util.placement_group_table().items()
            if key.endswith(driver) and group["state"] in PENDING
        ]
        pending = Counter(_size(bundle) for group in groups for bundle in group["bundles"].values())
        waiting = []
        for key in reversed(not_started):
            job = self.dispatcher.job(key)
            size = _size(devices(job.cpus, job.gpus))
            if pending[size]:
                pending[size] -= 1
                waiting.append(key)
        return waiting

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as nothing: Tune writes all that it was given into a snapshot, which nobody reads,
        and the dispatcher's open files could not be written."""
        return (TuneTrials, (None,))


class JobSearcher(Searcher):
    """Hands the dispatcher's jobs to Tune and hears of their end."""

    def __init__(self, trials: TuneTrials) -> None:
        super().__init__(metric=STEP, mode="max")
        self._trials = trials

    def suggest(self, trial_id: str) -> Any:
        if (job := self._trials.dispatcher.next_job()) is not None:
            self._trials.keys[trial_id] = job.key
            return {JOB: json.dumps(job.as_plain())}
        # FINISHED is for good: while jobs are open, the end of one may bring the next.
        return Searcher.FINISHED if self._trials.dispatcher.idle else None

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        key = self._trials.keys.pop(trial_id)
        self._trials.actors.pop(trial_id, None)
        cause = self._trials.causes.pop(trial_id, "")
        state = State.FAILED if error else State.DONE
        self._trials.dispatcher.end(key, state, cause, trial_id in self._trials.device_full)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study remembers, and a search that continues opens a fresh Tuner."""

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a search continues from its study, never from Tune's files."""
        raise NotImplementedError("a search continues from its study, never from Tune's files")


class ReportScheduler(FIFOScheduler):
    """Asks the dispatcher after each report; a raising worker is not retried, a dead one is."""

    def __init__(self, trials: TuneTrials) -> None:
        super().__init__()
        self._trials = trials

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        if result.get(HALT):
            self._trials.dispatcher.stop(Halt(result[CAUSE]))
        if CAUSE in result:
            self._trials.causes[trial.trial_id] = result[CAUSE]
            self._trials.device_full |= {trial.trial_id} if result[FULL] else set()
            trial.max_failures = 0  # begun again, it would raise again
            return TrialScheduler.CONTINUE
        key = self._trials.keys.get(trial.trial_id, "")
        decision = self._trials.dispatcher.report(key, result[STEP], json.loads(result[METRICS]))
        return TrialScheduler.STOP if decision is Decision.STOP else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Note why the worker raised or died; called before each retry and before the end."""
        # One that raised has reported its cause, and `kill_hung` knows that of those it ends.
        if trial.trial_id not in self._trials.causes:
            attempts = self._trials.dispatcher.attempt(self._trials.keys[trial.trial_id])
            self._trials.causes[trial.trial_id] = cause_of_death(_last_error(trial), attempts)


class ActorCallback(tune.Callback):
    """Knows the live actors, and begins a new attempt where Tune retries."""

    def __init__(self, trials: TuneTrials) -> None:
        self._trials = trials

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._trials.actors[trial.trial_id] = trial.temporary_state.ray_actor

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._trials.actors.pop(trial.trial_id, None)
        self._trials.causes.pop(trial.trial_id, None)  # the next attempt may end in another way
        trial.config[JOB] = json.dumps(
            self._trials.dispatcher.retry(self._trials.keys[trial.trial_id]).as_plain()
        )


class DispatcherStopper(tune.Stopper):
    """Ticks the meter, about every 0.1 s even without reports, and ends everything when the
    dispatcher stops."""

    def __init__(self, trials: TuneTrials) -> None:
        self._trials = trials

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        return False  # the scheduler has stopped it where its source said so

    def stop_all(self) -> bool:
        if not self._trials.dispatcher.poll():
            self._trials.kill_hung()
            self._trials.place()
            return False
        self._trials.kill()
        return True


def _last_error(trial: Trial) -> str:
    """Return what Ray says of the trial's last failure; its file has all of them, also those for
    which Tune keeps no exception."""
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    return text.rpartition("Failure # ")[2]


def cause_of_death(said: str, attempts: int) -> str:
    """Return why a worker has died, or the error that it raised, in one sentence or line.

    Args:
        said: Ray's text about it.
        attempts: how often its job has been started.
    """
    times = "once" if attempts == 1 else f"{attempts} times"
    if memory := _MEMORY.search(said):
        return (
            f"Ray's memory monitor ended the worker process {times}: {memory[1]} of its machine's "
            f"{memory[2]} of memory were in use; end other programs that use much, or choose a "
            "smaller base, --image-size or batch_size (RAY_memory_usage_threshold, 0.95 unless it "
            "is set, says when the monitor steps in)"
        )
    if lines := _ERROR_LINE.findall(said):
        return str(lines[-1])
    return (
        f"the worker process died {times}: something killed it, perhaps because memory ran out, or "
        "it crashed outside Python"
    )


def devices(cpus: float, gpus: float) -> dict[str, float]:
    """Return what a job needs, in Ray's words."""
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def resources(config: Mapping[str, str]) -> tune.PlacementGroupFactory:
    """Return what a trial needs, from its job."""
    plain = json.loads(config[JOB])
    return tune.PlacementGroupFactory([devices(plain["cpus"], plain["gpus"])])


def _size(bundle: dict[str, float]) -> tuple[float, float]:
    return bundle.get("CPU", 0.0), bundle.get("GPU", 0.0)


def tuner(
    trials: TuneTrials, trainable: Any, concurrency: int, retries: int, folder: str
) -> tune.Tuner:
    """Return a fresh Tuner over these trials; its files go to `folder`."""
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=JobSearcher(trials),
            scheduler=ReportScheduler(trials),
            num_samples=sys.maxsize,  # the searcher says when it is over
            max_concurrent_trials=concurrency,
            reuse_actors=True,
            # Tune's own names of folders hold the configuration: here the JSON of a whole job.
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="jobs",
            storage_path=folder,
            stop=DispatcherStopper(trials),
            callbacks=[ActorCallback(trials)],
            failure_config=tune.FailureConfig(max_failures=retries),
            verbose=0,
        ),
    )
