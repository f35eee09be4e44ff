"""Proxies: promotes heads one after another, and runs each alone with the base beside two controls."""

from __future__ import annotations

from hssl_search.search.candidates import Contender
from hssl_search.search.execution.jobs import Job
from hssl_search.search.phases import screen
from hssl_search.search.phases.proxy import Proxy
from hssl_search.search.plan import PROXY_CONTROLS, Plan
from hssl_search.search.planner import CONFIRM_JOBS, FEWEST_PROXIES
from hssl_search.search.prices import Prices
from hssl_search.search.promoter import Promoter
from hssl_search.search.pruning import Pruner
from hssl_search.search.roster import Roster
from hssl_search.search.scoreboard import Scoreboard
from hssl_search.search.workshop import Workshop

DEARER = 1.2
"""How many times what was planned proxies may cost; then no more heads are promoted, so that what confirms them keeps its share."""


class Proxies:
    def __init__(self, roster: Roster, workshop: Workshop, prices: Prices, board: Scoreboard, promoter: Promoter, pruner: Pruner,
                 seed: int) -> None:
        self.roster, self.workshop, self.prices, self.board = roster, workshop, prices, board
        self.promoter, self.pruner, self.seed = promoter, pruner, seed

    def run(self, plan: Plan, number: int) -> dict[int, float]:
        """The promoted heads of the round of that number and of those before, each chosen when there is a place for it; their scores."""
        self.promoter.reject()
        no_head, identity = self.roster.control("none"), self.roster.control("identity", {"family": "identity"})
        promoted = self.promoter.promoted() or list(filter(None, [self.promoter.promote(dict)]))
        first = [no_head, *promoted[:1], identity, *promoted[1:]]  # should the budget end early, there is something to compare
        total = PROXY_CONTROLS + max(len(promoted), min(_wanted(plan, number), self.promoter.healthy()))
        at_once, contenders, expected = self.workshop.machine.concurrency(total), dict[int, Contender](), dict[str, float]()

        def job_of(one: Contender) -> Job:
            job = self.workshop.maker.training("proxy", one, self.seed, plan.proxy_steps, plan.rungs, self.prices.reserve(), at_once)
            contenders[one.trial], expected[job.key] = one, self.prices.training(job, one)
            self.workshop.recall(job)
            return job

        def choose() -> Job | None:
            if len(expected) >= PROXY_CONTROLS + FEWEST_PROXIES and sum(expected.values()) + max(expected.values()) > most_s:
                phase.total = len(phase.jobs)
                self.workshop.runner.watcher.note(f"The promoted heads cost more than was planned: {total - phase.total} fewer proxies.")
                return None
            one = None if self.workshop.runner.short else self.promoter.promote(phase.scores)
            return None if one is None else job_of(one)

        most_s = DEARER * self.prices.proxies(plan)
        jobs = [job_of(one) for one in first]
        phase = Proxy(jobs, self.workshop.ended, contenders, self.board.ranked_by, self.board.report, self.pruner, total, choose,
                      self.board.resolution)
        self.workshop.run("proxy", phase, expected, self.board.take, keep_s=self.prices.confirming(plan, CONFIRM_JOBS))
        return phase.scores()


def _wanted(plan: Plan, number: int) -> int:
    """How many heads are to be promoted by the end of that round; where the budget was extended, more only in the last."""
    rounds = len(plan.ends)
    if number == rounds - 1:
        return plan.proxies
    return 0 if plan.batches else screen.shares(plan.proxies, rounds)[number]
