"""What a warm start from an earlier search is worth, on measured heads.

    python -m benchmarks.warm_start --table reports/headbench --searches 30

Whole searches in virtual time, with the planner's own plan, on half of the heads of a HeadBench
table, once without earlier results and once after a search that trained the other half, under
another seed. That is the best case: same base, same images, same recipe. Prints a table in
Markdown: what the winner is worth in points of accuracy (mean over the table's seeds), and what it
is worth more after the earlier search, paired, with 95 % intervals (Student's t) over searches; the
heads are the same few in all of them, so that intervals say nothing beyond this table.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from optuna.storages import InMemoryStorage

from benchmarks.printing import with_interval
from benchmarks.search_quality import CORE, World, measured_world
from benchmarks.simulation.headbench import OF_HEAD, HeadBench
from benchmarks.simulation.measured_heads import MeasuredHeads
from benchmarks.simulation.search import Simulation
from hssl_search.engine.budget import Budget
from hssl_search.engine.phases.screen import read
from hssl_search.engine.records.state import (
    Contender,
    PriorHead,
    PriorRun,
    SearchState,
    TrialState,
)
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig

BUDGETS = (300.0, 600.0, 1000.0)
"""Core-seconds: a group and four proxies, two and eight, all heads and ten."""


class Found(NamedTuple):
    """What one search came to."""

    accuracy: float
    """Of the winner, in per cent."""
    candidates: int
    proxies: int


def prior_run(table: HeadBench, heads: list[HeadConfig], seed: int) -> PriorRun:
    """Return what a search teaches that trained these heads under that seed."""
    references = [table.control("identity"), table.control("noise")]
    step = table.rungs("joint")[-1]
    rows = [table.at("joint", head, seed, step).values for head in [*heads, *references]]
    metrics = [{key: row[key] for key in OF_HEAD if key in row} for row in rows]
    screened, _ = read([Contender(place) for place in range(len(heads))], {"heads": metrics}, 0)
    last = table.rungs()[-1]
    taught = []
    for place, head in enumerate(heads):
        alone = table.at("alone", head, seed, last).values
        costs = TrialState(parameters=alone["parameters"], macs=alone["macs"])
        state = screened[place].with_set(costs)
        taught.append(PriorHead(head=head, gain=alone["accuracy"], measured=state.as_measured()))
    return PriorRun(name="earlier", heads=tuple(taught))


def search(table: HeadBench, world: World, number: int, budget_s: float, warm: bool) -> Found:
    """Search the second half of the heads, shuffled by the number of the search."""
    dice = random.Random(number)
    heads = dice.sample(table.candidates, len(table.candidates))
    half = len(heads) // 2
    theirs, first = dice.sample(table.seeds(), 2)
    seeds = [first, *(seed for seed in table.seeds() if seed != first)]
    storage = InMemoryStorage()
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(
            Path(folder) / "run",
            replace(world.space, heads=tuple(heads[half:])),
            world.setting,
            MeasuredHeads(table, dict(enumerate(seeds))),
            CORE,
            Budget(budget_s, "cpu", f"{budget_s:.0f}cpu-s"),
            sampler="random",
            promote="learned",
            same_architecture=world.same_architecture,
            cost=lambda head, shape: (0, world.macs.get(head, 0)),
        )
        started = simulation.start(storage)
        if warm:
            earlier = prior_run(table, heads[:half], theirs)
            started.study.write(SearchState(warm_start=(earlier,)))
        verdict = started.search()
    numbers = started.study.state.plan
    assert numbers is not None and numbers.numbers is not None and verdict.winner is not None
    head = started.controller.trials.contender(verdict.winner).head
    last = table.rungs()[-1]
    accuracy = mean(
        table.at("alone", head, seed, last).values["accuracy"] for seed in table.seeds()
    )
    return Found(accuracy, numbers.numbers["candidates"], numbers.numbers["proxies"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", default="reports/headbench")
    parser.add_argument("--searches", type=int, default=30)
    given = parser.parse_args()
    table, world = HeadBench.read(given.table), measured_world(given.table)
    print("| core-seconds | heads | proxies | searches | winner, cold | warm more |")
    print("|---|---|---|---|---|---|")
    for budget_s in BUDGETS:
        pairs = []
        for number in range(given.searches):
            try:
                pairs.append(
                    [search(table, world, number, budget_s, warm) for warm in (False, True)]
                )
            except UserError:
                continue  # it asked for a seed or a step that was not measured
        cold, more = (
            [pair[0].accuracy for pair in pairs],
            [pair[1].accuracy - pair[0].accuracy for pair in pairs],
        )
        plan = pairs[0][0]
        print(
            f"| {budget_s:.0f} | {plan.candidates} | {plan.proxies} | {len(pairs)} "
            f"| {with_interval(cold)} | {with_interval(more, '+.2f')} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
