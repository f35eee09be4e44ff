"""Confirming: runs the remaining controls and the further seeds that are chosen, and keeps in the study which those were."""

from __future__ import annotations

from collections.abc import Sequence

from hssl_search.search import ties
from hssl_search.search.candidates import Contender
from hssl_search.search.execution.jobs import Job, Outcome, Plain, State
from hssl_search.search.phases.confirm import Confirm, Field
from hssl_search.search.plan import Plan
from hssl_search.search.prices import Prices
from hssl_search.search.roster import OWN_STEPS, Roster
from hssl_search.search.scoreboard import Scoreboard
from hssl_search.search.workshop import Workshop

CONFIRMING = "confirming"
"""The study's attribute: which trials were chosen, in order, and how many run at once."""


class Confirming:
    """
    Args:
        same_architecture: the head of the control of that name.
    """

    def __init__(self, roster: Roster, workshop: Workshop, prices: Prices, board: Scoreboard, seed: int, same_architecture: Plain) -> None:
        self.roster, self.workshop, self.prices, self.board = roster, workshop, prices, board
        self.study, self.seed, self.same_architecture = workshop.runner.study, seed, same_architecture

    def run(self, plan: Plan, promoted: Sequence[Contender]) -> None:
        """Confirm as far as the plan goes what is known of those that were promoted; nothing where no proxy has a score."""
        proxied = {trial: {self.seed: by_seed[self.seed]} for trial, by_seed in self.board.scores.items() if self.seed in by_seed}
        ranked = [one.trial for one in promoted if one.trial in proxied]
        if not ranked:
            return
        field, kept = self._field(plan, ranked), self._kept(plan)
        expected: dict[str, float] = {}  # grows with the runs that are chosen

        def make(trial: int, offset: int) -> Job:
            one = self.roster.contender(trial)
            steps = one.attributes.get(OWN_STEPS, plan.proxy_steps)
            job = self.workshop.maker.training("confirm", one, self.seed + offset, steps, [steps], self.prices.reserve(), kept["at_once"])
            expected[job.key] = self.prices.training(job, one)
            return job

        def keep(trial: int) -> None:
            kept["trials"] = [*kept["trials"], trial]
            self.study.set_study(CONFIRMING, kept)

        controls = [self.roster.control(kind).trial for kind in ("none", "identity")]
        scores = {trial: proxied[trial] for trial in (*ranked, *controls) if trial in proxied}
        tried = dict.fromkeys((*(one.trial for one in promoted), *controls), 1)
        phase = Confirm(field, scores, tried, make, self.board.score, plan.confirm_jobs, kept["at_once"], self.board.resolution,
                        self.workshop.ended, kept["trials"], keep)
        self.workshop.run("confirm", phase, expected, self._ended)

    def same_time(self, plan: Plan, leader: int) -> int | None:
        """The control without head for the device-time of the leader's proxy; None where there is none."""
        control = self.roster.same_time(self._same_time_steps(plan, leader))
        return None if control is None else control.trial

    def _field(self, plan: Plan, ranked: Sequence[int]) -> Field:
        identity = self.roster.control("identity").trial
        unseen = self.roster.control("same_architecture", self.same_architecture).trial
        if self.board.ranked_by.of_head:
            return Field(tuple(ranked), None, identity, (unseen,))
        return Field(tuple(ranked), self.roster.control("none").trial, identity, (unseen,),
                     lambda leader: self.roster.open_same_time(self._same_time_steps(plan, leader)).trial)

    def _kept(self, plan: Plan) -> Plain:
        """What was chosen before; how many run at once stays as it was when the plan was made, wherever it is resumed."""
        known: Plain = self.study.study_attributes().get(CONFIRMING, {"trials": []})
        jobs = plan.confirm_jobs
        at_once = known["at_once"] if known.get("jobs") == jobs else self.workshop.machine.concurrency(jobs)
        return {**known, "jobs": jobs, "at_once": at_once}

    def _same_time_steps(self, plan: Plan, leader: int) -> int:
        """Steps that the no-head control can make while the leader's proxy trains."""
        pair = [self.roster.contender(leader), self.roster.control("none")]
        timed = all(one.trial in self.board.step_s for one in pair)
        leader_s, control_s = (self.board.step_s[one.trial] if timed else self.prices.step([one]) for one in pair)
        return max(1, ties.nearest(plan.proxy_steps * leader_s / control_s))

    def _ended(self, job: Job, outcome: Outcome) -> None:
        if outcome.state is not State.CUT:
            self.board.take(job, outcome)
