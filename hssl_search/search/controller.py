"""The controller: takes a search through its phases, and can take it up again wherever it was left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from statistics import mean
from typing import Any

from hssl_search.errors import UserError
from hssl_search.search.budget import Budget
from hssl_search.search.candidates import Contender, final_metrics
from hssl_search.search.execution.jobs import Job, Outcome, Plain, State
from hssl_search.search.execution.tasks import Setting
from hssl_search.search.extending import extend_plan
from hssl_search.search.jobmaker import JobMaker, Machine, full_key
from hssl_search.search.measured import Measured
from hssl_search.search.measures import ACCURACY, OF_BASES, RANKINGS
from hssl_search.search.phases import confirm, screen
from hssl_search.search.phases.phase import Phase
from hssl_search.search.phases.proxy import Proxy
from hssl_search.search.planner import CONFIRM_JOBS, PROXY_CONTROLS, REFERENCES, BudgetTooSmall, Plan, full_training, make_plan, plan_again
from hssl_search.search.preview import FullTraining, PlannedPhase, planned_phases, preview
from hssl_search.search.promoter import Promoter
from hssl_search.search.pruning import PRUNERS
from hssl_search.search.records.run import Run
from hssl_search.search.records.sampler import LEARNING
from hssl_search.search.roster import OWN_STEPS, Roster
from hssl_search.search.runner import Runner
from hssl_search.search.scoreboard import Scoreboard
from hssl_search.search.verdict import judge

CONFIRMING = "confirming"
"""The study's attribute: which trials were chosen to be confirmed, in order."""


class Controller:
    """One search, from measuring to the full training.

    Every decision is made from what the study holds, so a controller that is started again on the same run finds its phases done up to
    where the last one was stopped, and goes on there.
    """

    def __init__(self, run: Run, resolved: Plain, roster: Roster, runner: Runner) -> None:
        self.run, self.resolved, self.roster, self.runner = run, resolved, roster, runner
        self.study, self.watcher, self.machine = runner.study, runner.watcher, runner.machine
        self.whole = runner.machine
        """The machine as a training has it that nothing runs beside."""
        self.plan: Plan
        self.seed: int = resolved["seed"]
        self.ranked_by = RANKINGS[resolved["rank_by"]]
        self.resolution = self.ranked_by.resolution(resolved.get("images", {}).get("queries"))
        self.setting = Setting.model_validate(resolved["setting"])
        self.promoter = Promoter(roster, self.study, resolved["promote"], self.seed)
        self.learning = resolved["sampler"] in LEARNING
        self.pruner = PRUNERS[resolved["pruner"]]
        self.ended = self.study.job_outcomes()
        self.board = Scoreboard(roster, self.watcher, self.ranked_by, self.resolution, self.pruner.why)

    def search(self) -> Plain:
        """Run every phase and return the verdict; one that stands is not changed while the budget is the same.

        What the budget did not last for stays undecided, and goes on when the budget is extended.
        """
        self._measure()
        self._plan()
        known = self.study.study_attributes()
        verdict = known["verdict"] if known["plan"].get("done") and not self._extended() else self._find()
        while self._extend():
            verdict = self._find()
        if not self.runner.short:
            self.roster.close("the search ended before it was decided.")
        self._full(verdict)
        if self.runner.short:
            phases = ", ".join(sorted(self.runner.short))
            self.watcher.note(f"The budget did not last for all of: {phases}. It goes on where it was with: {self._how_to_extend()}")
        return verdict

    def preview(self, budget: Budget) -> Plain:
        """Measure, and say what a search with this budget would do and cost (`hssl_search.search.preview`)."""
        self._measure()
        self._learn_typical()
        meter, size = self.runner.meter, self.roster.space.size()
        measuring_s = meter.spent()
        try:
            plan = make_plan(budget.seconds - meter.reserve_s - measuring_s, self.planned_costs, size, self.learning)
        except BudgetTooSmall:
            plan = None
        phases = [] if plan is None else self._planned(plan)
        return preview(budget, measuring_s, meter.reserve_s, self.measured, self.planned_costs, plan, phases, size)

    def _how_to_extend(self) -> str:
        newest = self.runner.meter.budget.text.rpartition("+")[2]
        return f"hssl-search resume {os.path.relpath(self.run.folder)} --budget +{newest}"

    def _find(self) -> Plain:
        """Find the winner and write the verdict. What the budget does not last for ends the rounds; what was promoted is confirmed."""
        rounds = self.plan.ends
        scores: dict[int, float] = {}
        for number in range(len(rounds)):
            self._screen(rounds[: number + 1])
            if self.runner.short:
                break
            self._plan_again()
            scores = self._proxy(number, len(rounds))
            if self.runner.short:
                break
        self.watcher.note(self.promoter.close(scores, final=not self.runner.short))
        self._confirm(self.promoter.promoted())
        reference = self.measured.reference(self.ranked_by)
        contenders = self.roster.contenders()
        verdict = judge(contenders, self.board.scores, self.board.accuracies, reference, self.ranked_by, self.resolution,
                        self._seed_s(contenders), self._same_time_control)
        standing = self.study.study_attributes().get("verdict")
        if standing and standing["rows"] == verdict["rows"]:
            verdict = standing  # by the same results; what a further seed would cost is an estimate that changes with the pace
        self.study.set_study("verdict", verdict)
        self._note_plan(done=not self.runner.short)
        return verdict

    def _note_plan(self, **values: Any) -> None:
        self.study.set_study("plan", {**self.study.study_attributes()["plan"], **values})

    def _extended(self) -> bool:
        return bool(self.runner.meter.budget.seconds > self.study.study_attributes()["plan"]["budget_s"])

    def _extend(self) -> bool:
        """Plan more at the same fidelity, where the budget was extended and what was planned before is done."""
        if self.runner.short or not self._extended():
            return False
        meter = self.runner.meter
        costs = self.planned_costs.scaled(max(1.0, self.runner.pace))
        plan = extend_plan(self.plan, meter.remaining(), costs, self.roster.space.size(), 
                           self.promoter.healthy() - len(self.promoter.promoted()))
        spent = meter.ledger.by_phase()
        phases = {phase: spent.get(phase, 0.0) + seconds for phase, seconds in {"measure": 0.0, **plan.expected_s}.items()}
        more = not plan.runs_as(self.plan)
        self._note_plan(budget_s=meter.budget.seconds, phases=phases, jobs=plan.jobs, numbers=plan.as_plain(), done=not more)
        self.run.write_config({**self.run.config(), "plan": plan.as_plain()})
        self.watcher.note(f"The budget was extended. {plan.sentence()}" if more else "The extended budget buys no more proxies.")
        self.plan = plan
        return more

    def _measure(self) -> None:
        families = list(self.roster.space.families)
        job = self._maker().measure([{"family": family} for family in families], self.seed)
        phase = Phase([job], self.ended)
        self._run("measure", phase, {}, lambda job, outcome: None)
        outcome = phase.outcomes.get(job.key, Outcome(State.CUT))
        if outcome.state is not State.DONE:
            remedy = "mend the cause and search under another --name" if outcome.cause else f"extend it with: {self._how_to_extend()}"
            raise UserError(f"measuring a few training steps did not succeed ({outcome.cause or 'the budget ended before it was done'}); "
                            f"{remedy}.")
        self.measured = Measured.of(outcome, families, self.machine)
        self.costs = self.measured.costs
        self.runner.startup_s = self.costs.startup
        self.setting = self.measured.settle(self.setting)
        asked = self.resolved.get("gpus_per_trial", self.machine.gpus_per_trial)
        self._use(replace(self.machine, gpus_per_trial=self.measured.gpu_share if asked is None else asked))
        self.study.set_study("reference", self.measured.reference(ACCURACY))
        self.study.set_study("reference_scores", self.measured.reference(self.ranked_by))

    def _run(self, name: str, phase: Phase, expected: Mapping[str, float], on_end: Callable[[Job, Outcome], None],
             keep_s: float = 0.0) -> None:
        """Run a phase, and remember how its jobs ended: what comes later in this search does not run them again."""
        self.runner.run(name, phase, expected, on_end, keep_s)
        self.ended |= phase.outcomes

    def _use(self, machine: Machine) -> None:
        """Make and run jobs for this machine from now on."""
        self.machine = self.runner.machine = machine
        self.maker = self._maker()

    def _maker(self) -> JobMaker:
        return JobMaker(self.setting, self.run.folder, self.machine, self.ranked_by in OF_BASES)

    def _plan(self) -> None:
        known = self.study.study_attributes().get("plan")
        self._learn_typical()
        if known:
            self.plan = Plan(**known["numbers"])
        else:
            self.plan = make_plan(self.runner.meter.remaining(), self.planned_costs, self.roster.space.size(), self.learning)
            phases = {"measure": self.runner.meter.ledger.by_phase()["measure"], **self._planned_s(self.plan)}
            self.study.set_study("plan", {"budget_s": self.runner.meter.budget.seconds, "phases": phases, "jobs": self.plan.jobs,
                                          "numbers": self.plan.as_plain()})
        settled = {"gpus_per_trial": self.machine.gpus_per_trial, "setting": self.setting.model_dump(mode="json")}
        self.run.write_config({**self.resolved, **settled, "plan": self.plan.as_plain()})
        self.watcher.note(self.plan.sentence())

    def _learn_typical(self) -> None:
        """The costs with the mean of heads drawn from the space as the only head."""
        typical = mean(self.measured.head_s(family, macs) for family, macs in self.roster.typical())
        self.planned_costs = replace(self.costs, heads={"typical": typical})

    def _planned(self, plan: Plan, pace: float = 1.0) -> list[PlannedPhase]:
        epochs = self.resolved["full_epochs"]
        wanted = 0 if epochs == "off" else epochs * self.measured.full_steps(self.setting)
        step_s = pace * self.measured.full_step_s(self.setting, self.costs.step + self.planned_costs.mean_head)
        full = FullTraining.within(plan.expected_s["full"], self.costs, step_s, wanted)
        return planned_phases(plan, full, self.costs, self.machine, self.whole)

    def _planned_s(self, plan: Plan, pace: float = 1.0) -> dict[str, float]:
        """Device-seconds of each phase after measuring, the starting of workers included."""
        return {"full": 0.0, **{one.phase: one.device_s for one in self._planned(plan, pace)}}

    def _plan_again(self) -> None:
        """Fit proxies and confirming to what is left now, at the pace that screening has shown."""
        known = self.study.study_attributes()["plan"]
        if "first" not in known and (remaining_s := self.runner.meter.remaining()) > 0:
            plan = plan_again(self.plan, remaining_s, self.planned_costs.scaled(max(1.0, self.runner.pace)))
            if not plan.runs_as(self.plan):
                self.watcher.note(f"Planned anew after screening: {plan.proxies_sentence()}")
            phases = {**known["phases"], **self._planned_s(plan, max(1.0, self.runner.pace)), "screen": known["phases"]["screen"]}
            known = {**known, "first": known["numbers"], "first_phases": known["phases"], "phases": phases, "jobs": plan.jobs,
                     "numbers": plan.as_plain()}
            self.study.set_study("plan", known)
            self.run.write_config({**self.run.config(), "plan": plan.as_plain()})
        self.plan = Plan(**known["numbers"])

    def _screen(self, ends: Sequence[int]) -> None:
        """Screen the groups of the last of these rounds; the heads of those after the first are drawn from what is known by then."""
        groups = self._groups(ends)
        at_once = self.machine.concurrency(len(groups))
        jobs: dict[str, tuple[Job, screen.Group]] = {}
        expected = {}
        for group in groups:
            profiles_s = self.costs.profiles(len(group.members))
            job = self.maker.group(group.number, screen.heads_of(group.members), self.plan.screen_steps, self.seed,
                                   self._reserve_s() + profiles_s, at_once)
            jobs[job.key] = job, group
            expected[job.key] = self._job_s(job, self._joint_s(group.members)) + profiles_s
        self._run("screen", Phase([job for job, _ in jobs.values()], self.ended), expected,
                  lambda job, outcome: self._screened(job, outcome, jobs[job.key][1]))

    def _groups(self, ends: Sequence[int]) -> list[screen.Group]:
        """The groups of one round; of all groups, those after the first screen a few heads of the one before again."""
        candidates = self.roster.candidates(ends[-1])
        dealt = [[own for _, own in screen.groups(candidates[start:end], self.plan.group_size)] for start, end in pairwise([0, *ends])]
        *before, last = accumulate(dealt)
        earlier, again = len(before[-1]) if before else 0, screen.repeats(self.plan.first_groups)
        return [screen.Group(place, last[place], last[place - 1][:again] if place else []) for place in range(earlier, len(last))]

    def _screened(self, job: Job, outcome: Outcome, group: screen.Group) -> None:
        if outcome.state is State.CUT:
            return
        metrics = final_metrics(outcome, job.task["steps"])
        if metrics is None:
            for one in group.own:
                self.roster.decide(one.trial, "FAIL", cause=f"its screening failed: {outcome.cause or 'it took too long'}")
            return
        shutil.rmtree(job.folder, ignore_errors=True)  # what was screened is known, and nothing goes on from its weights
        found, references = screen.read(group.members, metrics)
        for one in group.own:
            self.roster.note(one.trial, {**found[one.trial], "group": group.number})
        for one in group.again:
            self.roster.note(one.trial, {"again": screen.briefly(found[one.trial], group.number)})
        for kind in ("identity", "noise"):
            control = self.roster.control(kind, {"family": kind})
            if "group" not in control.attributes:
                self.roster.note(control.trial, {**references[kind], "group": group.number})

    def _proxy(self, number: int, rounds: int) -> dict[int, float]:
        """The promoted heads of one round and before alone with the base, each chosen when there is a place for it; their scores."""
        self.promoter.reject()
        no_head, identity = self.roster.control("none"), self.roster.control("identity", {"family": "identity"})
        promoted = self.promoter.promoted() or list(filter(None, [self.promoter.promote({})]))
        first = [no_head, *promoted[:1], identity, *promoted[1:]]  # should the budget end early, there is something to compare
        last = number == rounds - 1
        wanted = self.plan.proxies if last else 0 if self.plan.batches else screen.shares(self.plan.proxies, rounds)[number]
        total = PROXY_CONTROLS + max(len(promoted), min(wanted, self.promoter.healthy()))
        at_once, contenders, expected = self.machine.concurrency(total), dict[int, Contender](), dict[str, float]()

        def job_of(one: Contender) -> Job:
            contenders[one.trial] = one
            job = self.maker.training("proxy", one, self.seed, self.plan.proxy_steps, self.plan.rungs, self._reserve_s(), at_once)
            expected.update(self._expected([job], contenders))
            return job

        def choose() -> Job | None:
            one = None if self.runner.short else self.promoter.promote(phase.scores())
            return None if one is None else job_of(one)

        jobs = [job_of(one) for one in first]
        phase = Proxy(jobs, self.ended, contenders, self.ranked_by, self.board.report, self.pruner, total, choose)
        typical_s = self.costs.training(self.plan.proxy_steps, self.costs.step + self.planned_costs.mean_head, len(self.plan.rungs))
        self._run("proxy", phase, expected, self.board.take, keep_s=CONFIRM_JOBS * typical_s)
        return phase.scores()

    def _confirm(self, promoted: Sequence[Contender]) -> None:
        proxied = {trial: {self.seed: by_seed[self.seed]} for trial, by_seed in self.board.scores.items() if self.seed in by_seed}
        ranked = [one.trial for one in promoted if one.trial in proxied]
        if not ranked:
            return
        no_head, identity = (self.roster.control(kind) for kind in ("none", "identity"))
        unseen = self.roster.control("same_architecture", self.resolved["same_architecture"])
        of_head = bool(self.ranked_by.of_head)
        field = confirm.Field(tuple(ranked), None if of_head else no_head.trial, identity.trial, (unseen.trial,),
                              lambda leader: None if of_head else self.roster.open_same_time(self._same_time(leader)).trial)
        kept = self._confirming()
        expected: dict[str, float] = {}  # grows with the runs that are chosen

        def make(trial: int, offset: int) -> Job:
            one = self.roster.contender(trial)
            steps = one.attributes.get(OWN_STEPS, self.plan.proxy_steps)
            job = self.maker.training("confirm", one, self.seed + offset, steps, [steps], self._reserve_s(), kept["at_once"])
            expected.update(self._expected([job], {trial: one}))
            return job

        def keep(trial: int) -> None:
            kept["trials"] = [*kept["trials"], trial]
            self.study.set_study(CONFIRMING, kept)

        known = {trial: proxied[trial] for trial in (*ranked, no_head.trial, identity.trial) if trial in proxied}
        tried = dict.fromkeys((one.trial for one in (*promoted, no_head, identity)), 1)
        phase = confirm.Confirm(field, known, tried, make, self.board.score, self.plan.confirm_jobs, kept["at_once"], self.resolution,
                                self.ended, kept["trials"], keep)
        self._run("confirm", phase, expected, self._confirmed)

    def _confirming(self) -> Plain:
        """The trials that were chosen to be confirmed, in order, and how many at once: as the plan was made, wherever it is resumed."""
        known: Plain = self.study.study_attributes().get(CONFIRMING, {"trials": []})
        jobs = self.plan.confirm_jobs
        return known if known.get("jobs") == jobs else {**known, "jobs": jobs, "at_once": self.machine.concurrency(jobs)}

    def _same_time_control(self, leader: int) -> int | None:
        control = self.roster.same_time(self._same_time(leader))
        return None if control is None else control.trial

    def _same_time(self, leader: int) -> int:
        """Steps that the no-head control can make while the leader's proxy trains."""
        pair = [self.roster.contender(leader), self.roster.control("none")]
        timed = all(one.trial in self.board.step_s for one in pair)
        leader_s, control_s = (self.board.step_s[one.trial] if timed else self._step_s([one]) for one in pair)
        return max(1, round(self.plan.proxy_steps * leader_s / control_s))

    def _confirmed(self, job: Job, outcome: Outcome) -> None:
        if outcome.state is not State.CUT:
            self.board.take(job, outcome)

    def _full(self, verdict: Plain) -> None:
        epochs = self.resolved["full_epochs"]
        if epochs == "off" or verdict["winner"] is None:
            return
        self._use(self.whole)
        winner = self.roster.contender(verdict["winner"])
        chosen = self.roster.control("none") if verdict["state"] == "no head" else winner
        step_s = max(1.0, self.runner.pace) * self.measured.full_step_s(self.setting, self._step_s([chosen]))
        known = self._full_to_run(winner, chosen, step_s, epochs * self.measured.full_steps(self.setting))
        if known["steps"] == 0:
            self.watcher.note("The budget left is too small for a full training.")
            return
        job = self.maker.full(known["name"], known["heads"], known["steps"], known["rungs"], self.seed, self._reserve_s(),
                              known.get("number", 1))
        self._run("full", Phase([job], self.ended), {}, self._trained)

    def _full_to_run(self, winner: Contender, chosen: Contender, step_s: float, wanted: int) -> Plain:
        """The full training that is planned, or was made; another where the winner is, or where more of its steps are affordable now."""
        known = self.study.study_attributes().get("full") or {"steps": 0, "heads": None, "number": 0}
        number, same = known.get("number", 1), known["heads"] == chosen.heads
        outcome = self.ended.get(full_key(number), Outcome(State.CUT))
        if same and known["steps"] and outcome.state is State.CUT:
            return known
        steps, rungs = full_training(self.runner.meter.remaining(), self.costs, step_s, wanted)
        if same and 0 < known["steps"] and steps <= known["steps"]:
            return known
        if steps == 0 and known["steps"]:
            return {**known, "steps": 0}
        found = {"number": max(1, number + bool(known["steps"])), "winner": winner.trial, "steps": steps, "rungs": rungs,
                 "heads": chosen.heads, "name": f"full training with {chosen.name}"}
        self.study.set_study("full", found)
        return found

    def _trained(self, job: Job, outcome: Outcome) -> None:
        if outcome.state is State.FAILED:
            self.watcher.note(f"The {job.task['name']} failed: {outcome.cause}")

    def _expected(self, jobs: Sequence[Job], contenders: dict[int, Contender]) -> dict[str, float]:
        """job key -> device-seconds it should take."""
        return {job.key: self._job_s(job, self._step_s([contenders[job.trial]])) for job in jobs if job.trial is not None}

    def _job_s(self, job: Job, step_s: float) -> float:
        """Device-seconds of a job on a worker that is up."""
        return self.costs.training(job.task["steps"], step_s, len(job.task["rungs"]))

    def _step_s(self, together: Sequence[Contender]) -> float:
        """Device-seconds of a step of the base with these heads together."""
        return self.costs.step + sum(self.measured.head_s(one.family, one.attributes["macs"]) for one in together if one.heads)

    def _joint_s(self, group: Sequence[Contender]) -> float:
        """Device-seconds of a step of a joint screening."""
        return self.costs.together(self._step_s(group) - self.costs.step + REFERENCES * self.planned_costs.mean_head)

    def _seed_s(self, contenders: Sequence[Contender]) -> dict[int, float]:
        """trial -> device-seconds of one more seed, at the pace of the search."""
        steps, pace = self.plan.proxy_steps, self.runner.pace
        return {one.trial: pace * self.costs.training(steps, self._step_s([one]), 1) for one in contenders}

    def _reserve_s(self) -> float:
        """Device-seconds that a worker keeps for its last evaluation and checkpoint, at the pace of the search."""
        return max(1.0, self.runner.pace) * (2 * self.costs.rung() + self.costs.last)
