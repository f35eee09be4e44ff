"""Runs one job in a worker's process: all that happens there begins here."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from hssl_search.engine.execution.jobs import DeviceFull, Halt, Job, Metrics, Send, Setting, Task
from hssl_search.engine.worker.environment import surroundings
from hssl_search.engine.worker.evaluate import evaluate
from hssl_search.engine.worker.measure import measure
from hssl_search.engine.worker.memory import in_memory, out_of_memory
from hssl_search.engine.worker.setup import WorkerSetup
from hssl_search.errors import disk_is_full, full_disk
from hssl_search.training.checkpoint import CheckpointFolder
from hssl_search.training.trainer import StepReport, Trainer, train

Judge = Callable[[WorkerSetup, Trainer, Task, StepReport], Metrics]
"""What is measured of a training at a rung."""


def run_job(
    job: Job,
    send: Send,
    judge: Judge = evaluate,
    setup_of: Callable[[Setting], WorkerSetup] = WorkerSetup,
) -> None:
    """Run a job to its end, or until its seconds are over; `send` gets a report at each rung.

    A training that runs out of memory continues from its newest checkpoint with fewer activations
    kept (`recompute_blocks`).

    Args:
        judge: measures a training at a rung.
        setup_of: makes the setting ready.

    Raises:
        DeviceFull: where memory runs out all the same.
        Halt: where there is no space for a checkpoint.
    """
    started = time.monotonic()  # loading images holds the devices too
    task = job.task
    # Also where torch was loaded before the job was known, as in the inline executor.
    if task.setting.device == "cpu":
        torch.set_num_threads(max(1, int(job.cpus)))
    limit = float("inf") if job.seconds is None else job.seconds - task.reserve_s
    try:
        if task.kind == "measure":
            measure(task, send)
        else:
            setup = setup_of(task.setting)
            _train(job, send, lambda: time.monotonic() - started > limit, judge, setup)
    except Exception as error:
        if disk_is_full(error):
            raise Halt(full_disk(job.folder)) from error
        if not out_of_memory(error):
            raise
        held = f"{job.gpus or job.cpus:g} of the {'GPUs' if job.gpus else 'CPUs'}"
        raise DeviceFull(
            f"the memory of the {task.setting.device} device ran out, also with activations "
            f"computed again instead of kept, in a job that held {held}; give the recipe a smaller "
            "batch_size, or choose a smaller base or --image-size."
        ) from error


def _train(
    job: Job, send: Send, out_of_time: Callable[[], bool], judge: Judge, setup: WorkerSetup
) -> None:
    """Train from the newest checkpoint to the last rung, or as far as the time lasts."""
    task, folder = job.task, CheckpointFolder(job.folder)

    def use(trainer: Trainer) -> None:
        for report in train(trainer, task.rungs, folder, out_of_time):
            metrics = {
                "loss": report.loss,
                "base_losses": report.base_losses,
                "head_losses": report.head_losses,
                "patch_losses": report.patch_losses,
                "train_s": report.seconds,
                "train_steps": report.timed_steps,
                "recomputed": trainer.recomputes,
                "gpus": job.gpus,
                # A replay tells by them why its numbers differ.
                "surroundings": surroundings(task.setting.device),
            }
            send(report.step, {**metrics, **judge(setup, trainer, task, report)})

    in_memory(lambda: setup.trainer(task), use)
    folder.keep_newest()
