"""What drawing heads in rounds, by what proxies have found, is worth: `--sampler tpe` against
`random`.

    python -m benchmarks.samplers --searches 40

Whole searches in virtual time, with the planner's own plan, of the default space and of synthetic
heads: a part of the variance of their gains follows from family, depth, width and the first
shortcut, the rest is each head's own. Prints a table in Markdown: true gain of the winner in
standard deviations of the space's heads, mean and 95 % interval (Student's t) over searches; and
the same less that of `random`, paired by search.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from benchmarks.printing import with_interval
from benchmarks.simulation.search import Simulation
from benchmarks.simulation.synthetic_heads import SyntheticHeads
from hssl_search.engine.budget import parse_budget
from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.planning.plan import Plan
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space
from hssl_search.training.recipe import Recipe

SAMPLERS = ("random", "tpe")
EXPLAINED = (0.0, 0.5, 0.9)
"""Parts of the variance of gains that follow from a head's parameters."""
ERROR, AGREEMENT = 0.5, 0.3
"""Of an accuracy under one seed, in standard deviations of gains; correlation of discrepancy with a
head's own part of its gain."""
MACHINE = Machine("cpu", cpus=2, gpus=0)
SETTING = Setting(
    base="test_resnet",
    base_args={},
    image_size=32,
    data="digits",
    probe_data=None,
    data_seed=0,
    recipe=Recipe.read("simclr").as_plain(),
    device="cpu",
)


class ExplainedHeads(SyntheticHeads):
    """Heads whose gains have standard deviation 1, and follow in part from their parameters."""

    def __init__(self, explained: float, seed: int) -> None:
        super().__init__(1.0, ERROR, AGREEMENT, seed)
        self.explained = explained

    def _drawn(self, head: str) -> tuple[float, float]:
        own, overlap = super()._drawn(head)
        if head == "none" or (config := HeadConfig.model_validate_json(head)).family in (
            "identity",
            "noise",
        ):
            return own, overlap
        return math.sqrt(self.explained) * self._effects(config) + math.sqrt(
            1 - self.explained
        ) * own, overlap

    def _effects(self, head: HeadConfig) -> float:
        """Return a head's effects: half of their variance is the family's, the rest that of the
        other three in equal parts."""
        chance = random.Random(f"{self.seed}/effects")
        deep, wide, without = (chance.choice([-1, 1]) for _ in range(3))
        depth = head.depth or len(head.blocks or ())
        of_family = random.Random(f"{self.seed}/{head.family}").gauss(0.0, 1.0)
        others = (
            deep * (depth - 2.5) / 1.118
            + wide * (1 if head.width_ratio == 1 else -1)
            + without * (1 if head.first_shortcut else -1)
        )
        return math.sqrt(0.5) * of_family + math.sqrt(0.5 / 3) * others


class Searched(NamedTuple):
    """What one search came to."""

    gain: float
    """Of the winner, in truth."""
    proxies: int
    rounds: int


def search(explained: float, sampler: str, budget: str, number: int) -> Searched:
    """Search in virtual time, under the seed of that number."""
    answers = ExplainedHeads(explained, number)
    with tempfile.TemporaryDirectory() as folder:
        started = Simulation(
            Path(folder) / "run",
            Space.read("default"),
            SETTING,
            answers,
            MACHINE,
            parse_budget(budget),
            seed=number,
            sampler=sampler,
            promote="learned",
            cost=lambda head, shape: (0, 0),
        ).start()  # type: ignore[arg-type]
        verdict = started.search()
    plan = Plan(**started.study.study_attributes()["plan"]["numbers"])
    [head] = started.controller.trials.contender(verdict.winner).heads
    return Searched(answers.gain(head), plan.proxies, plan.rounds)


def cells(searches: Mapping[str, list[Searched]]) -> list[str]:
    """Return the rows of the table, for one part of the variance."""
    rows = []
    for sampler, its in searches.items():
        gains = [searched.gain for searched in its]
        by_chance = [searched.gain for searched in searches["random"]]
        less = [ours - theirs for ours, theirs in zip(gains, by_chance, strict=True)]
        paired = "" if sampler == "random" else with_interval(less, "+.2f")
        proxies = mean(searched.proxies for searched in its)
        rows.append(
            f"{sampler} | {proxies:.0f} | {its[0].rounds} | {with_interval(gains, '+.2f')} "
            f"| {paired}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--searches", type=int, default=40)
    parser.add_argument("--budget", default="3cpu-h")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    print(
        "| explained | sampler | proxies | rounds | gain of the winner | against random "
        "|\n|---|---|---|---|---|---|"
    )
    with ProcessPoolExecutor(given.workers) as pool:
        for explained in EXPLAINED:
            searches = {
                sampler: list(
                    pool.map(
                        partial(search, explained, sampler, given.budget), range(given.searches)
                    )
                )
                for sampler in SAMPLERS
            }
            print("\n".join(f"| {explained:.0%} | {row} |" for row in cells(searches)), flush=True)


if __name__ == "__main__":
    main()
