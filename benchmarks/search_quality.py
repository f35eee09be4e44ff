"""How good a head a search finds, at equal cost: this tool's controller against random search, TPE,
ASHA and all heads once.

    python -m benchmarks.search_quality --table reports/headbench --repetitions 50

In virtual time, on a HeadBench table and on synthetic heads whose quality is known. In each
repetition the controller searches first, with what training all heads once would cost, shared
between screening and the rest as the planner does; the others then get the core-seconds that it
spent, screening, controls and confirming included. Prints a table in Markdown: regret (true score
of the best head less that of the chosen one) and the chosen head's rank, mean and 95 % interval
(Student's t) over repetitions; and the regret less that of "ours, learned", paired by repetition.

Of a HeadBench table, "true" is the mean over its seeds at the last rung: noisy itself, and made of
the very trainings that searches see.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import optuna

from benchmarks.printing import with_interval
from benchmarks.simulation.executor import SimulatedExecutor, VirtualClock
from benchmarks.simulation.headbench import HeadBench
from benchmarks.simulation.measured_heads import MeasuredHeads
from benchmarks.simulation.search import Simulation
from benchmarks.simulation.synthetic_heads import SyntheticHeads
from benchmarks.simulation.worker import Answers, Faults, SimulatedWorker
from hssl_search.engine.budget import Budget
from hssl_search.engine.candidates.pruners import PRUNERS, AtRung
from hssl_search.engine.config import PrunerName
from hssl_search.engine.execution.jobs import Decision, Job, Outcome, Report, Setting, State
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.phases.jobs import JobMaker
from hssl_search.engine.planning.cost_model import Measurement
from hssl_search.engine.planning.costs import PROXY_CONTROLS, group_cost
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.policy import DEFAULT
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.records.state import Contender, TrialState
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

CORE = Machine("cpu", cpus=1, gpus=0)
CONFIRM_JOBS, SCREEN_STEPS = 6, 40
"""Of the controller's plan; six confirming runs need no more than three seeds."""
SYNTHETIC = [(0.25, 0.7), (1.0, 0.7), (1.0, -0.7)]
"""Errors of a seed in points, where heads' gains have standard deviation 1, and correlations of
discrepancy with gain."""
LEARNED, ALL = "ours, learned", "all heads once"


@dataclass(frozen=True)
class Heads(Space):
    """A space of listed heads."""

    heads: tuple[HeadConfig, ...]

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(head.family for head in self.heads))

    def size(self) -> int:
        return len(self.heads)

    def enumerate(self) -> Iterator[HeadConfig]:
        return iter(self.heads)


@dataclass(frozen=True)
class World:
    """What is searched, and the truth of it. `answers`: of a repetition; `macs`: multiply-adds of
    each head.
    """

    name: str
    space: Heads
    setting: Setting
    rungs: list[int]
    macs: Mapping[HeadConfig, int]
    same_architecture: HeadConfig
    answers: Callable[[int], tuple[Answers, Mapping[HeadConfig, float]]]


def shuffled(world: World, repetition: int) -> tuple[HeadConfig, ...]:
    """Return the heads in the order of a repetition."""
    return tuple(
        random.Random(f"{repetition}/order").sample(world.space.heads, len(world.space.heads))
    )


class Row(NamedTuple):
    """What a method came to in one repetition."""

    method: str
    regret: float
    """True score of the best head less that of the chosen one."""
    rank: int
    """Of the chosen head."""
    cost: float
    """Core-seconds, relative to the controller's."""


class Baseline:
    """A JobSource that trains one head after another alone under one seed, stopped at rungs where a
    pruner is given; the best score at the last rung wins.
    """

    def __init__(self, world: World, folder: Path, seed: int, pruner: PrunerName = "none") -> None:
        self.world, self.pruner, self.seed = world, PRUNERS[pruner], seed
        self.rungs = world.rungs[-1:] if pruner == "none" else world.rungs
        self.maker = JobMaker(world.setting, folder, CORE)
        self.left = list(shuffled(world, seed))
        self.heads: dict[int, HeadConfig] = {}
        self.at: dict[int, dict[int, AtRung]] = {rung: {} for rung in self.rungs}

    def pick(self) -> HeadConfig:
        return self.left[0]

    def next_job(self) -> Job | None:
        if not self.left:
            return None
        self.left.remove(head := self.pick())
        one = Contender(
            len(self.heads), TrialState(name=head.label(), head=head, family=head.family)
        )
        self.heads[one.trial] = head
        return self.maker.training("proxy", one, 0, self.world.rungs[-1], self.rungs, 0.0, 1)

    def on_report(self, job: Job, report: Report) -> Decision:
        assert job.trial is not None
        found = AtRung(job.trial, report.metrics["accuracy"])
        stops = report.step < self.rungs[-1] and self.pruner.stops(found, self.at[report.step])
        self.at[report.step][job.trial] = found
        return Decision.STOP if stops else Decision.CONTINUE

    def again(self, job: Job) -> Job:
        return job

    def on_end(self, job: Job, outcome: Outcome) -> None:
        assert outcome.state is not State.FAILED, outcome.cause

    def chosen(self) -> HeadConfig:
        reached = next(self.at[rung] for rung in reversed(self.rungs) if self.at[rung])
        return self.heads[max(reached, key=lambda trial: reached[trial].score)]


class Tpe(Baseline):
    """Optuna's TPE over family and multiply-adds; of the heads left, the nearest to what it asks
    for is trained.
    """

    def pick(self) -> HeadConfig:
        families, sizes = (
            sorted(self.world.space.families),
            sorted(self.world.macs[head] for head in self.world.space.heads),
        )
        space: dict[str, optuna.distributions.BaseDistribution] = {
            "family": optuna.distributions.CategoricalDistribution(families),
            "macs": optuna.distributions.FloatDistribution(sizes[0], sizes[-1], log=True),
        }
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(
                seed=1000 * self.seed + len(self.heads), multivariate=True, n_startup_trials=5
            ),
        )
        study.add_trials(
            [
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.COMPLETE,
                    value=its.score,
                    distributions=space,
                    params={
                        "family": self.heads[trial].family,
                        "macs": float(self.world.macs[self.heads[trial]]),
                    },
                )
                for trial, its in self.at[self.rungs[-1]].items()
            ]
        )
        asked = study.ask(space).params
        return min(
            self.left,
            key=lambda head: (
                head.family != asked["family"],
                abs(self.world.macs[head] - asked["macs"]),
            ),
        )


def plan_of(world: World, answers: Answers) -> Plan:
    """Return what the cost of all heads once buys: screening for the planner's share, and trainings
    of the table's length for the rest."""
    measured = answers.measured([HeadConfig(family=family) for family in world.space.families])
    outcome = Outcome(State.DONE, reports=[Report(1, measured)], seconds=measured["worker_s"])
    costs, heads, steps = (
        Measurement.of(outcome, world.space.families, CORE).costs,
        world.space.size(),
        world.rungs[-1],
    )
    step_s = costs.step + costs.mean_head
    left_s = heads * costs.training(steps, step_s, 1) - measured["worker_s"]
    share_s = left_s * DEFAULT.shares.screen / (1 - DEFAULT.shares.full)
    groups = min(
        math.ceil(heads / DEFAULT.group_size),
        math.floor(share_s / group_cost(costs, DEFAULT.group_size, SCREEN_STEPS)),
    )
    candidates, screen_s = (
        min(heads, groups * DEFAULT.group_size),
        groups * group_cost(costs, DEFAULT.group_size, SCREEN_STEPS),
    )
    trainings = math.floor((left_s - screen_s) / costs.training(steps, step_s, len(world.rungs)))
    proxies = min(candidates, trainings - PROXY_CONTROLS - CONFIRM_JOBS)
    expected = dict.fromkeys(("screen", "proxy", "confirm"), 1.0) | {"full": 0.0}
    return Plan(
        candidates,
        DEFAULT.group_size,
        SCREEN_STEPS,
        proxies,
        steps,
        world.rungs,
        CONFIRM_JOBS,
        expected,
    )


def ours(
    world: World, answers: Answers, folder: Path, seed: int, promote: str
) -> tuple[HeadConfig, float]:
    """Return (chosen head, core-seconds spent) of one search by the controller."""
    plan = plan_of(world, answers)
    started = Simulation(
        folder,
        replace(world.space, heads=shuffled(world, seed)),
        world.setting,
        answers,
        CORE,
        Budget(1e7, "cpu", "unlimited"),
        plan=plan,
        promote=promote,
        same_architecture=world.same_architecture,
        cost=lambda head, shape: (0, world.macs.get(head, 0)),
    ).start()
    verdict = started.search()
    [head] = started.controller.trials.contender(verdict.winner).heads
    return head, started.meter.spent()


def baseline(
    make: Callable[[World, Path, int], Baseline],
    world: World,
    answers: Answers,
    folder: Path,
    seed: int,
    budget_s: float,
) -> tuple[HeadConfig, float]:
    """Return (chosen head, core-seconds spent) of a baseline that is stopped when the budget is
    spent."""
    clock = VirtualClock()
    folder.mkdir()
    meter = DeviceMeter(
        Ledger(folder / "ledger.jsonl", clock), Budget(budget_s, "cpu", "equal"), 1, 0, clock=clock
    )
    source = make(world, folder, seed)
    SimulatedExecutor(SimulatedWorker(answers, CORE, Faults()), meter, clock).run(source, 1)
    meter.close()
    return source.chosen(), meter.spent()


@lru_cache
def measured_world(folder: str) -> World:
    setup = HeadBench.read(folder)
    heads, seeds, rungs, same = (
        setup.candidates,
        setup.seeds(),
        setup.rungs(),
        setup.control("same_architecture"),
    )
    assert same is not None

    def answers(repetition: int) -> tuple[Answers, Mapping[HeadConfig, float]]:
        drawn = random.Random(repetition).sample(seeds, len(seeds))
        true = {
            head: mean(
                setup.at("alone", head, seed, rungs[-1]).values["accuracy"] for seed in seeds
            )
            for head in heads
        }
        return MeasuredHeads(setup, dict(enumerate(drawn))), true

    whole = Space.read(setup.about["space"]["name"])
    space = Heads(whole.name, whole.description, whole.family, whole.parameters, tuple(heads))
    return World(
        "measured, CIFAR-10",
        space,
        Setting.model_validate(setup.about["setting"]),
        rungs,
        {row["head"]: row["macs"] for row in setup.rows if row["head"]},
        same,
        answers,
    )


def synthetic_world(like: World, error: float, agreement: float) -> World:
    """Return the same heads, whose gains are normal with standard deviation 1; others in each
    repetition."""

    def answers(repetition: int) -> tuple[Answers, Mapping[HeadConfig, float]]:
        truth = SyntheticHeads(spread=1.0, error=error, agreement=agreement, seed=repetition)
        return truth, {head: truth.gain(head) for head in like.space.heads}

    return World(
        f"synthetic, error {error}, agreement {agreement:+}",
        like.space,
        like.setting,
        like.rungs,
        like.macs,
        like.same_architecture,
        answers,
    )


def world_of(folder: str, truth: tuple[float, float] | None) -> World:
    """Return the world of the table, or of synthetic heads of that error and agreement."""
    real = measured_world(folder)
    return real if truth is None else synthetic_world(real, *truth)


def repeated(table: str, truth: tuple[float, float] | None, repetition: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return list(searches(world_of(table, truth), repetition, Path(folder)))


def searches(world: World, repetition: int, folder: Path) -> Iterator[Row]:
    """Yield what every method came to in one repetition."""
    answers, true = world.answers(repetition)
    learned = ours(world, answers, folder / "learned", repetition, "learned")
    others = {
        LEARNED: learned,
        "ours, discrepancy": ours(
            world, answers, folder / "discrepancy", repetition, "discrepancy"
        ),
        "random": baseline(Baseline, world, answers, folder / "random", repetition, learned[1]),
        "TPE": baseline(Tpe, world, answers, folder / "tpe", repetition, learned[1]),
        "ASHA": baseline(
            partial(Baseline, pruner="asha"),
            world,
            answers,
            folder / "asha",
            repetition,
            learned[1],
        ),
        ALL: baseline(Baseline, world, answers, folder / "all", repetition, inf),
    }
    for method, (head, spent) in others.items():
        regret = max(true.values()) - true[head]
        rank = 1 + sum(score > true[head] for score in true.values())
        yield Row(method, regret, rank, spent / learned[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", default="reports/headbench")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    print(
        "| heads | method | regret, points | less that of ours, learned | rank of the chosen head "
        "| cost |\n|---|---|---|---|---|---|"
    )
    with ProcessPoolExecutor(given.workers) as pool:
        for truth in (None, *SYNTHETIC):
            rows: dict[str, list[Row]] = {}
            for its in pool.map(partial(repeated, given.table, truth), range(given.repetitions)):
                for row in its:
                    rows.setdefault(row.method, []).append(row)
            for method, its in rows.items():
                less = [
                    row.regret - learned.regret
                    for row, learned in zip(its, rows[LEARNED], strict=True)
                ]
                paired = "" if method == LEARNED else with_interval(less)
                name = world_of(given.table, truth).name
                cells = [
                    name,
                    method,
                    with_interval([row.regret for row in its]),
                    paired,
                    with_interval([row.rank for row in its]),
                    f"{mean(row.cost for row in its):.2f}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
