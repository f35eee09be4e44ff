"""What training costs here: a few real steps, timed inside a worker."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from statistics import fmean
from typing import Any, TypeVar

import torch

from hssl_search.backbones import base_macs
from hssl_search.engine.execution.jobs import MEASURE_REPORTS, REFERENCE_HEADS, Metrics, Send, Task
from hssl_search.engine.planning.costs import head_cost_s
from hssl_search.engine.worker.evaluate import architectures, evaluate
from hssl_search.engine.worker.memory import in_memory
from hssl_search.engine.worker.setup import LONG_S, WorkerSetup, step_seconds
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.families import family
from hssl_search.heads.head import head_cost
from hssl_search.scratch import Scratch
from hssl_search.training.checkpoint import CheckpointFolder
from hssl_search.training.recipe import Stage
from hssl_search.training.trainer import Trainer

T = TypeVar("T")
JOINT_RATIO = (0.5, 1.7)
"""How many times longer than its parts a joint step may take: for three bases 1.0 to 1.7 was
measured. Below is the noise of a busy machine; above, the heads are dearer than their multiply-adds
say."""
JOINT_UNTIMED = 1.4
"""Where there is no time to time a joint step: in the middle of what was measured."""
SIDE_BY_SIDE_RATIO = (0.5, 1.5)
"""The same of a step on some of the cores, which is timed while the others idle, and so looks
better than it is beside others."""
PROFILED = 3
"""Heads, at most, whose structures are measured for the time it takes."""
JOINT = 8
"""Heads, at most, whose joint step is timed: as many as a screening group has."""
CONTRADICTS = 4.0
"""A head that adds so many times more, or fewer, seconds than its share of the multiply-adds is
timed a second time, and the base too."""
LEAST_OF_MACS = 0.25
"""Of the seconds by multiply-adds that a head adds at least, whatever was timed: no head costs
nothing."""
UNTIMED = 2.0
"""Seconds for each by multiply-adds of a head where none was timed."""


def measure(task: Task, send: Send) -> None:
    """Time a training, and send what a plan needs, in `MEASURE_REPORTS` reports: the last has all
    of it, those before what is known by then.

    The base, an evaluation and a checkpoint are timed in any case. Within `task.measure_s` seconds
    also a joint step of heads as the search will draw them, then a head of each kind of operation,
    then the other families; what is not timed is taken from multiply-adds.

    Reported are, among others, `step_s`: seconds of a step of the base alone; `head_step_s`: the
    *additional* seconds of each head of the task; `joint`: how many times longer than the sum of
    those a step with several heads at once takes; `side_by_side`: how many times the core-seconds
    of the base's step it takes in a job that has only some of the cores; `precision`: what `auto`
    became; `reference`: what raw pixels and the untrained base come to.
    """
    clock = _Clock(task.measure_s)
    setup = WorkerSetup(task.setting)
    base = setup.base(task.seed).to(setup.device)
    views = setup.views(base)
    costs = [head_cost(head, base.map_shape) for head in task.heads]
    measured: Metrics = {
        "costs": costs,
        "base_macs": base_macs(base),
        "images": len(setup.data.train),
        # As `Trainer` takes it.
        "batch_size": min(setup.recipe.proxy.batch_size, len(setup.data.train)),
        "judged": len(setup.data.queries) + len(setup.data.bank or ()),
    }

    def tell(number: int, doing: str, **more: Any) -> None:
        measured.update(more)
        send(number, {**measured, "doing": doing})

    # At once: a search whose budget is too small by this step already ends the job here.
    def tell_first(seconds: float, still_open: bool) -> None:
        doing = f"a step of the base takes {seconds:.3g} s; timing it further"
        tell(1, doing, step_s=seconds, open=still_open)

    stage, base_s = _fastest(setup, setup.recipe.proxy, clock, tell_first)
    doing = f"a step of the base takes {base_s:.3g} s in {stage.precision}; timing heads"
    tell(2, doing, precision=stage.precision, open=False, step_s=base_s)

    macs = [macs for _, macs in costs]
    heads = _Heads(setup, stage, task, clock, base_s, measured["base_macs"], macs)
    joint_s = heads.joint_seconds()
    heads.time_kinds()
    # Before the other families, whose steps multiply-adds predict too.
    side_by_side = _side_by_side(setup, stage, heads.base_s, task.cpus_beside, clock)
    heads.time_others()
    # After all timing, which may have timed the base anew: each head is a difference to it.
    apart = list(zip(heads.seconds(), macs, strict=True))
    joint, dearer = (
        (JOINT_UNTIMED, 1.0) if joint_s is None else _joint(task, heads.base_s, apart, joint_s)
    )
    tell(
        3,
        f"{len(heads.timed)} of {len(task.heads)} head families timed; timing an evaluation",
        step_s=heads.base_s,
        head_step_s=[dearer * seconds for seconds, _ in apart],
        timed=sorted(heads.timed),
        joint=joint,
    )

    pixels = setup.pixels()
    accuracy = setup.accuracy(base, views)
    labelfree, last_s = _timed(lambda: setup.labelfree(base, views))
    tell(
        MEASURE_REPORTS,
        "measured",
        reference={"raw pixels": pixels, "untrained base": {**accuracy, **labelfree}},
        side_by_side=side_by_side,
        # Where it ranks, the time of every rung has it already.
        **_rung(setup, task, stage, 0.0 if task.labelfree_always else last_s),
        memory_bytes=_peak_memory(setup),
        gpu_bytes=_gpu_memory(setup),
        map_shape=list(base.map_shape),
        embedding_width=base.embedding_width,
        skipped=[[str(path), reason] for path, reason in setup.data.train.skipped],
        worker_s=clock.passed(),
    )


class _Clock:
    """Knows how much of the time is left in which may be timed what multiply-adds predict too."""

    def __init__(self, limit_s: float | None) -> None:
        self._began, self.limit_s = time.monotonic(), float("inf") if limit_s is None else limit_s

    def passed(self) -> float:
        """Return the seconds since it was made."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Return the seconds that are left; negative where the time is over."""
        return self.limit_s - self.passed()

    def spares(self, seconds: float) -> bool:
        """Return whether so many seconds are left."""
        return seconds <= self.left()


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what the work gives, and the seconds that it took."""
    began = time.monotonic()
    return work(), time.monotonic() - began


def _fastest(
    setup: WorkerSetup, stage: Stage, clock: _Clock, first: Callable[[float, bool], None]
) -> tuple[Stage, float]:
    """Return the stage with `precision: auto` resolved to what is faster here, and its seconds a
    step.

    Args:
        first: told of the seconds of a step as soon as one was timed, and whether another precision
            is still to be tried.
    """
    precisions = ["fp32", "bf16"] if stage.precision == "auto" else [stage.precision]
    timed: list[tuple[float, Stage]] = []
    for precision in precisions:
        chosen = stage.model_copy(update={"precision": precision})
        tell = None if timed else lambda seconds: first(seconds, len(precisions) > 1)
        seconds = step_seconds(setup, chosen, [], clock.left() / 4, least=2, told=tell)
        timed.append((seconds, chosen))
    seconds, fastest = min(timed, key=lambda each: each[0])
    return fastest, seconds


class _Heads:
    """Times heads as far as there is time, and takes the others from multiply-adds.

    Args:
        macs: multiply-adds of each head of the task.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        stage: Stage,
        task: Task,
        clock: _Clock,
        base_s: float,
        of_base: int,
        macs: list[int],
    ) -> None:
        self.setup, self.stage, self.task, self.clock = setup, stage, task, clock
        self.base_s = base_s
        self.kinds = [family(head.family).kind for head in task.heads]
        self.of_base = max(1, of_base)
        self.shares = [of_head / self.of_base for of_head in macs]
        """Multiply-adds of each head, of the base's."""
        self.timed: dict[int, float] = {}
        """Place of a head -> seconds of a step with it."""

    def time_kinds(self) -> None:
        """Time one head of each kind of operation, the first."""
        # Heads of one kind are alike in what a multiply-add takes: see `seconds`.
        self._time([self.kinds.index(kind) for kind in dict.fromkeys(self.kinds)])

    def time_others(self) -> None:
        """Time the heads that have not been timed yet."""
        self._time([place for place in range(len(self.task.heads)) if place not in self.timed])

    def _time(self, places: list[int]) -> None:
        for place in places:
            if self.clock.spares(2 * self.base_s * (1 + UNTIMED * self.shares[place])):
                self.timed[place] = self._seconds(place)

    def _seconds(self, place: int) -> float:
        """Return the seconds of a step with that head. Where they contradict the multiply-adds,
        base and head are timed again: the machine was busy."""

        def timed(heads: list[HeadConfig]) -> float:
            return step_seconds(self.setup, self.stage, heads, self.clock.left() / 4)

        head = self.task.heads[place]
        seconds = timed([head])
        as_predicted = 1 / CONTRADICTS <= self._by_macs(place, seconds) <= CONTRADICTS
        if as_predicted or not self.clock.spares(2 * (self.base_s + seconds)):
            return seconds
        self.base_s = min(self.base_s, timed([]))
        return min(seconds, timed([head]))

    def _by_macs(self, place: int, seconds: float) -> float:
        """Return the seconds that a head adds for each by multiply-adds."""
        return (seconds - self.base_s) / max(1e-9, self.base_s * self.shares[place])

    def seconds(self) -> list[float]:
        """Return what each head adds to a step: never nothing. One that was not timed is as
        efficient as those of its kind that were."""
        rates = {
            place: max(LEAST_OF_MACS, self._by_macs(place, seconds))
            for place, seconds in self.timed.items()
        }
        seconds = []
        for place, (kind, share) in enumerate(zip(self.kinds, self.shares, strict=True)):
            alike = [rate for other, rate in rates.items() if self.kinds[other] == kind]
            rate = rates.get(place, fmean(alike or rates.values() or [UNTIMED]))
            seconds.append(self.base_s * share * rate)
        return seconds

    def joint_seconds(self) -> float | None:
        """Return the seconds of a joint step of the group; None where there is no time for it, or
        no group.

        Timed before single heads: it tells what screening costs, and with it what a typical head
        does.
        """
        group = _group(self.task)
        shares = [counted.macs / self.of_base for counted in self.task.together]
        shares = shares or self.shares[:JOINT]
        # The reference heads of the group, which are not counted, as the mean of the others.
        shares += [fmean(shares or [0.0])] * (len(group) - len(shares))
        priced_s = JOINT_UNTIMED * self.base_s * (1 + UNTIMED * sum(shares))
        if len(group) < 2 or not self.clock.spares(2 * priced_s):
            return None
        return step_seconds(self.setup, self.stage, group, self.clock.left() / 4)


def _group(task: Task) -> list[HeadConfig]:
    """Return the heads that are to be timed together and the reference heads, as a group is
    screened; else the heads timed one by one."""
    together = [counted.head for counted in task.together]
    return [*together, *REFERENCE_HEADS] if together else task.heads[:JOINT]


def _joint(
    task: Task, base_s: float, apart: list[tuple[float, int]], joint_s: float
) -> tuple[float, float]:
    """Return how many times longer a joint step takes than its parts, and how many times dearer
    than priced its heads are where no joint step takes so much longer.

    Args:
        apart: seconds that each head of the task adds, and its multiply-adds.
    """
    heads_s = [seconds for seconds, _ in apart[:JOINT]]
    if task.together:
        defaults = {head.family: timed for head, timed in zip(task.heads, apart, strict=True)}
        heads_s = [
            head_cost_s(*defaults[counted.head.family], counted.macs) for counted in task.together
        ]
        # The reference heads as the mean of the others, as the cost model takes them.
        heads_s += [fmean(heads_s)] * len(REFERENCE_HEADS)
    ratio = _within(JOINT_RATIO, joint_s / (base_s + sum(heads_s)))
    return ratio, max(1.0, (joint_s / ratio - base_s) / sum(heads_s))


def _within(ratios: tuple[float, float], ratio: float) -> float:
    low, high = ratios
    return min(high, max(low, ratio))


def _side_by_side(
    setup: WorkerSetup, stage: Stage, base_s: float, cpus: int | None, clock: _Clock
) -> float:
    """Return how many times the core-seconds of the base's step one takes in a job on so many
    cores; 1 where all jobs have all cores.

    No multiply-adds predict it, and all proxies are planned by it: short steps are timed also where
    the time is over.
    """
    threads = torch.get_num_threads()
    if cpus is None or 2 * base_s * threads / cpus > max(LONG_S, clock.left()):
        return 1.0
    torch.set_num_threads(cpus)
    try:
        return _within(
            SIDE_BY_SIDE_RATIO, step_seconds(setup, stage, []) * cpus / (base_s * threads)
        )
    finally:
        torch.set_num_threads(threads)


def _rung(setup: WorkerSetup, task: Task, stage: Stage, last_s: float) -> dict[str, float]:
    """Return the seconds of all that is evaluated at a rung of a proxy, of a checkpoint with its
    bytes, and of measuring one structure.

    Args:
        last_s: what the last rung takes more.
    """
    heads = task.heads[:1]

    def use(trainer: Trainer) -> dict[str, float]:
        trainer.advance(1)
        # Of two steps, so that this is not the last rung, which `last_s` stands for.
        report, rung = trainer.report(), task.model_copy(update={"heads": heads, "steps": 2})
        _, evaluate_s = _timed(lambda: evaluate(setup, trainer, rung, report))
        return {"evaluate_s": evaluate_s, "last_evaluate_s": last_s, **_checkpoint(trainer)}

    rung = in_memory(lambda: setup.trainer_of(heads, stage, 2, seed=0), use)
    # The mean over the base and some heads.
    profiled = task.heads[:PROFILED]
    pair = setup.trainer_of(profiled, stage, 1, seed=0).pair
    began = time.monotonic()
    architectures(pair)
    return {**rung, "profile_s": (time.monotonic() - began) / (1 + len(profiled))}


def _checkpoint(trainer: Trainer) -> dict[str, float]:
    """Return the seconds in which a checkpoint is written, and its bytes."""
    # A worker may be killed at any moment, when its budget ends: Scratch is removed even then.
    with Scratch("measure") as folder:
        began = time.monotonic()
        trainer.save(CheckpointFolder(folder))
        seconds = time.monotonic() - began
        written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return {"checkpoint_s": seconds, "checkpoint_bytes": written}


def _peak_memory(setup: WorkerSetup) -> int:
    """Return the most bytes held: by the device's allocator, or on CPU by this process."""
    if setup.device.type == "cuda":
        return torch.cuda.max_memory_allocated(setup.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def _gpu_memory(setup: WorkerSetup) -> int | None:
    """Return the bytes that the GPU has; None on CPU."""
    if setup.device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(setup.device).total_memory
