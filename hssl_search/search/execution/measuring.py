"""What training costs here: a few real steps, timed inside a worker."""

from __future__ import annotations

import resource
import time
from statistics import fmean
from typing import Any

import torch

from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import head_cost
from hssl_search.scratch import Scratch
from hssl_search.search.costs import head_cost_s
from hssl_search.search.execution.bench import Bench
from hssl_search.search.execution.evaluating import architectures, evaluate
from hssl_search.search.execution.jobs import Plain
from hssl_search.search.execution.memory import in_memory
from hssl_search.search.execution.tasks import Task
from hssl_search.search.phases.screen import REFERENCE_HEADS
from hssl_search.training.checkpoint import CheckpointFolder
from hssl_search.training.recipe import Stage
from hssl_search.training.trainer import Trainer

WARM_UP = 1
JOINT_RATIO = (0.5, 2.0)
"""What lies outside is taken for the noise of a few steps on a busy machine."""
SIDE_BY_SIDE_RATIO = (0.5, 1.5)
"""The same of a step on some of the cores, which is timed while the others idle, and so looks better than it is beside others."""
PROFILED = 3
"""Heads, at most, whose structures are measured for the time it takes."""
JOINT = 8
"""Heads, at most, whose joint step is timed: as many as a screening group has."""
TIMED = 3
"""Steps timed; the fastest counts: what else runs on the machine can only slow a step down, and the pace of jobs is learned later."""


def measure(task: Task) -> Plain:
    """Seconds a step of the base alone and with each head, of an evaluation and a checkpoint; peak memory; bytes of a checkpoint; and
    the reference rows.

    `step_s` is the base alone; `head_step_s` the *additional* seconds of each head of the task; `joint` how many times longer than the sum
    of those a step with several heads at once takes; `side_by_side` how many times the core-seconds of the base's step it takes in a job
    that has only some of the cores; `precision` what `auto` became.
    """
    began = time.monotonic()
    bench = Bench(task.setting)
    stage, base_s = _fastest(bench, bench.recipe.proxy)
    heads = [_head_seconds(bench, stage, head, base_s) for head in task.heads]
    base = bench.base(task.seed).to(bench.device)
    views = bench.views(base)
    costs = [head_cost(HeadConfig.model_validate(head), base.map_shape) for head in task.heads]
    reference = {"raw pixels": bench.pixels(), "untrained base": {**bench.accuracy(base, views), **bench.labelfree(base, views)}}
    return {
        "precision": stage.precision, "step_s": base_s, "head_step_s": heads,
        "joint": _joint(bench, stage, task, base_s, [(seconds, macs) for seconds, (_, macs) in zip(heads, costs, strict=True)]),
        "side_by_side": 1.0 if task.cpus_beside is None else _side_by_side(bench, stage, base_s, task.cpus_beside),
        "profile_s": _profile_seconds(bench, stage, task.heads[:PROFILED]),
        **_evaluation_seconds(bench, task, stage),
        **_checkpoint(bench, stage, task.heads[:1]), "memory_bytes": _peak_memory(bench), "gpu_bytes": _gpu_memory(bench),
        "images": len(bench.data.train), "batch_size": min(stage.batch_size, len(bench.data.train)),
        "reference": reference, "map_shape": list(base.map_shape), "embedding_width": base.embedding_width,
        "skipped": [[str(path), reason] for path, reason in bench.data.train.skipped],
        "worker_s": time.monotonic() - began,
        "costs": costs,
    }


def _fastest(bench: Bench, stage: Stage) -> tuple[Stage, float]:
    """The stage with `precision: auto` resolved to what is faster here, and its seconds a step."""
    choices = ["fp32", "bf16"] if stage.precision == "auto" else [stage.precision]
    timed = [(stage.model_copy(update={"precision": choice})) for choice in choices]
    seconds = [_step_seconds(bench, one, []) for one in timed]
    best = min(range(len(choices)), key=seconds.__getitem__)
    return timed[best], seconds[best]


def _step_seconds(bench: Bench, stage: Stage, heads: list[dict[str, Any]]) -> float:
    """Seconds of the fastest of a few training steps, the device waited for."""
    return in_memory(lambda: bench.trainer_of(heads, stage, WARM_UP + TIMED, seed=0), _fastest_step)


def _fastest_step(trainer: Trainer) -> float:
    trainer.advance(WARM_UP)
    seconds = []
    for step in range(WARM_UP, WARM_UP + TIMED):
        started = time.monotonic()
        trainer.advance(step + 1)
        seconds.append(time.monotonic() - started)
    return min(seconds)


def _head_seconds(bench: Bench, stage: Stage, head: dict[str, Any], base_s: float) -> float:
    return max(0.0, _step_seconds(bench, stage, [head]) - base_s)


def _joint(bench: Bench, stage: Stage, task: Task, base_s: float, apart: list[tuple[float, int]]) -> float:
    """Of the heads that are to be timed together and the reference heads, as a group is screened; else of the heads timed one by one.

    Args:
        apart: seconds that each head of the task adds, and its multiply-adds.
    """
    group, heads_s = task.heads[:JOINT], [seconds for seconds, _ in apart[:JOINT]]
    if task.together:
        default = {head["family"]: known for head, known in zip(task.heads, apart, strict=True)}
        priced = [(*default[one["head"]["family"]], one["macs"]) for one in task.together]
        heads_s = [head_cost_s(seconds, default_macs, macs) for seconds, default_macs, macs in priced]
        heads_s += [fmean(heads_s)] * len(REFERENCE_HEADS)
        group = [*(one["head"] for one in task.together), *REFERENCE_HEADS]
    return _within(JOINT_RATIO, _step_seconds(bench, stage, group) / (base_s + sum(heads_s))) if len(group) > 1 else 1.0


def _within(ratios: tuple[float, float], found: float) -> float:
    low, high = ratios
    return min(high, max(low, found))


def _side_by_side(bench: Bench, stage: Stage, base_s: float, cpus: int) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(cpus)
    try:
        return _within(SIDE_BY_SIDE_RATIO, _step_seconds(bench, stage, []) * cpus / (base_s * threads))
    finally:
        torch.set_num_threads(threads)


def _evaluation_seconds(bench: Bench, task: Task, stage: Stage) -> Plain:
    """Seconds of all that is evaluated at a rung of a proxy, and what its last rung takes more."""
    heads = task.heads[:1]

    def use(trainer: Trainer) -> Plain:
        trainer.advance(1)
        report, seconds = trainer.report(), []
        for steps in (2, 1):  # the report is of a rung before the last, then of the last
            started = time.monotonic()
            evaluate(bench, trainer, task.model_copy(update={"heads": heads, "steps": steps}), report)
            seconds.append(time.monotonic() - started)
        return {"evaluate_s": seconds[0], "last_evaluate_s": max(0.0, seconds[1] - seconds[0])}

    return in_memory(lambda: bench.trainer_of(heads, stage, 2, seed=0), use)


def _profile_seconds(bench: Bench, stage: Stage, heads: list[dict[str, Any]]) -> float:
    """Seconds for measuring one structure: the mean over the base and some heads."""
    pair = bench.trainer_of(heads, stage, 1, seed=0).pair
    started = time.monotonic()
    architectures(pair)
    return (time.monotonic() - started) / (1 + len(heads))


def _checkpoint(bench: Bench, stage: Stage, heads: list[dict[str, Any]]) -> Plain:
    return in_memory(lambda: bench.trainer_of(heads, stage, 1, seed=0), _first_checkpoint)


def _first_checkpoint(trainer: Trainer) -> Plain:
    """Seconds in which a checkpoint is written, and its bytes."""
    trainer.advance(1)
    with Scratch("measure") as folder:  # a worker is killed at any moment, when its budget ends
        started = time.monotonic()
        trainer.save(CheckpointFolder(folder))
        seconds = time.monotonic() - started
        return {"checkpoint_s": seconds, "checkpoint_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())}


def _peak_memory(bench: Bench) -> int:
    """Bytes: of the device's allocator, or on CPU of this process."""
    if bench.device.type == "cuda":
        return torch.cuda.max_memory_allocated(bench.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _gpu_memory(bench: Bench) -> int | None:
    """Bytes that the GPU has; None on CPU."""
    return torch.cuda.get_device_properties(bench.device).total_memory if bench.device.type == "cuda" else None
