"""What is measured of a training for the evidence, beside what a search measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from benchmarks.evidence.protocol import SCALES, Scale
from benchmarks.recording import timed
from hssl_search.data.packed import PackedImages
from hssl_search.data.resident import on_device
from hssl_search.data.splits import SearchData, load_data
from hssl_search.engine.execution.jobs import Job, Plain, Send, Setting, Task
from hssl_search.engine.worker.evaluate import evaluate
from hssl_search.engine.worker.run_job import run_job
from hssl_search.engine.worker.setup import WorkerSetup
from hssl_search.evaluation.embed import embed_pair
from hssl_search.evaluation.knn import knn_accuracy
from hssl_search.evaluation.linear import linear_accuracy
from hssl_search.evaluation.rankme import rankme
from hssl_search.heads.config import HeadConfig
from hssl_search.training.trainer import StepReport, Trainer

TIMED = 5
"""Steps, after a first one, of which the fastest counts."""


class EvidenceBench(WorkerSetup):
    """A setup that measures discrepancies on as many images as a search, and accuracies on more."""

    def __init__(self, setting: Setting, scale: Scale) -> None:
        super().__init__(setting)
        self.data = _data(
            setting.data, setting.probe_data, setting.image_size, setting.data_seed, *scale.searched
        )
        self.judged = _data(
            setting.data, setting.probe_data, setting.image_size, setting.data_seed, *scale.judged
        )

    def quality(self, trainer: Trainer) -> Plain:
        """Return k-NN and linear accuracy in per cent and RankMe of each embedding of the base,
        k-NN accuracy of the head's own."""
        network, bank, queries = trainer.pair.kept, self.judged.bank, self.judged.queries
        assert bank is not None, "the evidence needs labels"
        of_bank, of_queries = (
            embed_pair(
                network.base,
                list(network.heads),
                on_device(images, self.device),
                trainer.views.plain,
            )
            for images in (bank, queries)
        )
        labels = self._labels(bank), self._labels(queries)
        found: Plain = {}
        for name in of_bank[0]:
            known, asked = of_bank[0][name], of_queries[0][name]
            suffix = "" if name == "embedding" else f"_{name}"
            found |= {
                f"accuracy{suffix}": knn_accuracy(known, labels[0], asked, labels[1]),
                f"linear{suffix}": linear_accuracy(known, labels[0], asked, labels[1]),
                f"rankme{suffix}": rankme(asked),
            }
        heads = [
            {"head_accuracy": knn_accuracy(known, labels[0], asked, labels[1])}
            for known, asked in zip(of_bank[1], of_queries[1], strict=True)
        ]
        return {**found, "own": heads}

    def _labels(self, images: PackedImages) -> Tensor:
        return torch.from_numpy(images.labels).to(self.device)


@lru_cache(maxsize=4)
def _data(
    data: str, probe_data: str, image_size: int, seed: int, most_bank: int, most_queries: int
) -> SearchData:
    return load_data(
        data, probe_data, image_size, seed, most_bank=most_bank, most_queries=most_queries
    )


def judge(setup: WorkerSetup, trainer: Trainer, task: Task, report: StepReport) -> Plain:
    """Measure at a rung discrepancies and health of each head, and of a head alone with the base
    the quality of both; else nothing."""
    if report.step not in task.rungs:
        return {}
    found = evaluate(setup, trainer, task.model_copy(update={"accuracy": False}), report)
    if not task.accuracy:
        return found
    assert isinstance(setup, EvidenceBench)
    # a noise head draws
    with torch.random.fork_rng([setup.device] if setup.device.type == "cuda" else []):
        quality = setup.quality(trainer)
    own = quality.pop("own")
    heads = [{**of_head, **mine} for of_head, mine in zip(found.pop("heads", []), own, strict=True)]
    return {**quality, "heads": heads}


def pace(setup: WorkerSetup, heads: Sequence[HeadConfig], seed: int) -> Plain:
    """Return `step_s` of the base alone, and `head_step_s` that each head adds: device-seconds of
    the fastest of a few steps, as `device_s` counts them. What else runs on a CPU does not lengthen
    them, as it does the wall-clock seconds of `measure`."""
    clock = time.process_time if setup.device.type == "cpu" else time.monotonic
    alone_s, *with_head_s = (
        _step_s(setup, [head] if head else [], seed, clock) for head in [None, *heads]
    )
    return {
        "step_s": alone_s,
        "head_step_s": [max(0.0, seconds - alone_s) for seconds in with_head_s],
    }


def _step_s(
    setup: WorkerSetup, heads: Sequence[HeadConfig], seed: int, clock: Callable[[], float]
) -> float:
    trainer = setup.trainer_of(heads, setup.recipe.proxy, 1 + TIMED, seed)
    seconds = []
    for step in range(1, 2 + TIMED):
        started = clock()
        trainer.advance(step)
        seconds.append(clock() - started)
    return min(seconds[1:])


def run(job: Job, send: Send) -> None:
    """Run the tool's own worker, with more measured at each rung, and its measurement timed by the
    device."""

    def measured(step: int, metrics: Plain) -> None:
        task = job.task
        send_timed(step, {**metrics, **pace(WorkerSetup(task.setting), task.heads, task.seed)})

    send_timed = timed(send)
    run_job(
        job,
        measured if job.task.kind == "measure" else send_timed,
        judge,
        lambda setting: EvidenceBench(setting, SCALES[job.phase]),
    )
