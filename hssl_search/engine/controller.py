"""The controller: takes a search through its phases, and can take it up again wherever it was left."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from hssl_search.engine.budget import Budget
from hssl_search.engine.candidates.promotion import Promoter
from hssl_search.engine.candidates.pruners import PRUNERS
from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.execution.jobs import Job, Outcome, Plain, State
from hssl_search.engine.phases import full
from hssl_search.engine.phases.confirm import Confirming
from hssl_search.engine.phases.jobs import Workshop, full_key
from hssl_search.engine.phases.measure import SHARE, Measuring, limit_s
from hssl_search.engine.phases.phase import Phase
from hssl_search.engine.phases.proxy import Proxies
from hssl_search.engine.phases.runner import Runner
from hssl_search.engine.phases.scores import Scoreboard
from hssl_search.engine.phases.screen import Screening
from hssl_search.engine.planning.cost_model import CostModel, Measurement
from hssl_search.engine.planning.costs import Costs, Wanted
from hssl_search.engine.planning.plan import BudgetTooSmall, smallest_s
from hssl_search.engine.planning.planner import PLAN, Planning
from hssl_search.engine.planning.preview import after_first_step, macs_like, what_fits
from hssl_search.engine.records.run import ResolvedSearch, Run
from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.metrics import ACCURACY, CHANCE, OF_BASES, Chance, Measure
from hssl_search.engine.verdict import Verdict, image_flaw, judge, why_no_winner
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

FULL, VERDICT = "full", "verdict"
"""The study's attributes: the full training, and what was found."""


class Controller:
    """One search, from measuring to the full training.

    Every decision is made from what the study holds, so a controller that is started again on the same run finds its phases done up to
    where the last one was stopped, and goes on there.
    """

    def __init__(
        self,
        run: Run,
        resolved: ResolvedSearch,
        trials: Trials,
        runner: Runner,
        words: Callable[[Verdict], str],
    ) -> None:
        self.words = words
        """Puts a verdict into a sentence, which the study keeps beside it for its dashboard."""
        self.run, self.resolved, self.trials, self.runner = run, resolved, trials, runner
        self.study, self.watcher, self.seed = runner.study, runner.watcher, resolved.seed
        self.ranked_by, self.policy = resolved.ranked_by, resolved.policy
        self.pruner, self.images = PRUNERS[resolved.pruner], resolved.images
        self.workshop = Workshop(run, runner, resolved.setting, self.ranked_by in OF_BASES)
        resolution = self.ranked_by.resolution(self.images.get("queries"))
        self.board = Scoreboard(trials, self.watcher, self.ranked_by, resolution, self.pruner.why)

    def search(self) -> Verdict:
        """Run every phase and return the verdict; one that stands is not changed while the budget is the same.

        What the budget did not last for stays undecided, and goes on when the budget is extended.
        """
        settled = self._measure(
            self.runner.meter.budget, f"continue with: {self.run.how_to_resume()}"
        )
        self.planning.begin(settled)
        verdict = (self._standing() if self.planning.done else None) or self._find()
        while self.planning.extend(self.promoter.healthy() - len(self.promoter.promoted())):
            verdict = self._find()
        if not self.runner.short:
            self.trials.close("the search ended before it was decided.")
        self._full(verdict)
        if self.runner.short:
            phases = ", ".join(sorted(self.runner.short))
            extend = self.run.how_to_resume(self.runner.meter.budget.newest)
            self.watcher.note(
                f"The budget did not last for all of: {phases}. It goes on where it was with: {extend}"
            )
        return verdict

    def preview(self, budget: Budget) -> Plain:
        """Measure, and say what a search with this budget would do and cost (`hssl_search.engine.planning.preview`)."""
        self._measure(budget, "run the command again", to_the_end=True)
        return self.planning.preview(budget, self.measured)

    def _measure(self, budget: Budget, when_mended: str, to_the_end: bool = False) -> Plain:
        """Measure, and from then on know what work takes; what is settled by that.

        Args:
            when_mended: what a user is told to do after a failure.
            to_the_end: whether also where the first step shows that the budget is too small. Else that is a BudgetTooSmall.
        """
        families = list(self.trials.space.families)
        refused: list[tuple[float, Costs]] = []

        def goes_on(known: Plain) -> bool:
            self.watcher.note(f"measure: {known['doing']}.")
            least, most = after_first_step(known, mean(macs for _, macs in self.trials.typical()))
            planned = PLAN in self.study.study_attributes()
            if (
                to_the_end
                or planned
                or ties.at_least(self.runner.meter.remaining(), smallest_s(least, self.policy))
            ):
                return True
            refused.append(
                (smallest_s(most, self.policy) + SHARE * self.runner.meter.budget.seconds, most)
            )
            return False

        job = self.workshop.maker.measure(
            [HeadConfig(family=family) for family in families],
            self.seed,
            self.trials.group(self.policy.group_size),
            limit_s(budget.seconds),
        )
        phase = Measuring(job, self.workshop.ended, goes_on)
        self.workshop.run("measure", phase, {}, lambda job, outcome: None)
        if refused:
            raise BudgetTooSmall(self.workshop.too_small(*refused[0], self._fits))
        outcome = phase.outcomes.get(job.key, Outcome(State.CUT))
        if outcome.state is not State.DONE:
            remedy = f"extend it with: {self.run.how_to_resume(self.runner.meter.budget.newest)}"
            if outcome.cause:
                remedy = f"mend the cause, then {when_mended}"
            raise UserError(
                f"measuring a few training steps did not succeed ({outcome.cause or 'the budget ended before it was done'}); "
                f"{remedy}."
            )
        machine = self.workshop.machine
        self.measured = Measurement.of(outcome, families, machine, self.policy)
        self.runner.startup_s = self.measured.costs.startup
        settled = self.workshop.settle(self.measured, self.resolved.gpus_per_trial)
        self.study.set_study("reference", self._reference(ACCURACY))
        self.study.set_study("reference_scores", self._reference(self.ranked_by))
        self._equip()
        return settled

    def _reference(self, measure: Measure) -> dict[str, float]:
        """Return the score of each reference that has one; of accuracies chance is one."""
        chance = Chance.of(self.images) if measure == ACCURACY else None
        return self.measured.reference(measure) | ({} if chance is None else {CHANCE: chance.level})

    def _fits(self, available_s: float, costs: Costs) -> list[str]:
        """Say with which options a smallest search would fit into so many device-seconds."""
        setting = self.resolved.setting
        return what_fits(
            available_s, costs, setting, macs_like(setting), self._tiny_heads, self.policy
        )

    def _tiny_heads(self) -> float | None:
        """Mean multiply-adds of the tiny space's heads, of those of this space; None where this is no larger one."""
        tiny = self.trials.of_space(Space.read("tiny"))
        share = mean(macs for _, macs in tiny) / max(
            1.0, mean(macs for _, macs in self.trials.typical())
        )
        return share if share < 1 else None

    def _equip(self) -> None:
        trials, workshop, board, seed = self.trials, self.workshop, self.board, self.seed
        self.cost_model = cost_model = CostModel(
            self.measured,
            workshop.setting,
            trials.typical(),
            lambda: self.runner.pace,
            workshop.whole,
        )
        self.planning = Planning(
            self.run, self.resolved, workshop, cost_model, trials.space.size(), self._fits
        )
        self.promoter = Promoter(
            trials,
            self.study,
            self.resolved.promote,
            seed,
            self.resolved.max_head_cost,
            cost_model.times_base,
        )
        self.screening = Screening(trials, workshop, cost_model, seed)
        self.proxies = Proxies(
            trials, workshop, cost_model, board, self.promoter, self.pruner, seed, self.policy
        )
        self.confirming = Confirming(
            trials, workshop, cost_model, board, seed, self.resolved.same_architecture
        )

    def _find(self) -> Verdict:
        """Find the winner and write the verdict.

        What the budget does not last for ends the rounds. Where that is screening, the healthy heads that it found have their proxies
        as far as what is left lasts; what was promoted is confirmed.
        """
        scores: dict[int, float] = {}
        rounds = len(self.planning.plan.ends)
        for number in range(rounds):
            self.screening.run(self.planning.plan, number)
            short = bool(self.runner.short)
            if short and not self.promoter.healthy():
                break
            if not self.planning.again(self.promoter.likely, short):
                break
            scores = self.proxies.run(
                self.planning.plan, rounds - 1 if short else number
            )  # no round follows one that was short
            if self.runner.short:
                break
        self.watcher.note(self.promoter.close(scores, final=not self.runner.short))
        self.confirming.run(self.planning.plan, self.promoter.promoted())
        verdict = self._judge()
        self.planning.note(done=not self.runner.short)
        return verdict

    def _judge(self) -> Verdict:
        contenders, plan = self.trials.contenders(), self.planning.plan
        causes = {
            trial.number: trial.user_attrs["cause"]
            for trial in self.study.trials()
            if "cause" in trial.user_attrs
        }
        verdict = judge(
            contenders,
            self.board.scores,
            self.board.accuracies,
            self._reference(self.ranked_by),
            self.ranked_by,
            self.board.resolution,
            self.cost_model.further_seeds(plan, contenders),
            Chance.of(self.images),
            why_no_winner(
                contenders,
                causes,
                self.runner.short,
                image_flaw(self.images),
                self.run.how_to_resume(self.runner.meter.budget.newest),
            ),
            image_flaw(self.images),
        )
        standing = self._standing()
        if standing and standing.winner is not None and standing.results == verdict.results:
            # What a further seed would cost is an estimate that changes with the pace: by the same
            # results the verdict stays.
            return standing
        verdict = verdict.model_copy(update={"sentence": self.words(verdict)})
        self.study.set_study(VERDICT, verdict.model_dump(mode="json", by_alias=True))
        return verdict

    def _standing(self) -> Verdict | None:
        stored = self.study.study_attributes().get(VERDICT)
        return None if stored is None else Verdict.model_validate(stored)

    def _full(self, verdict: Verdict) -> None:
        wanted = self.planning.full
        if not wanted.steps or verdict.winner is None:
            return
        self.workshop.use(self.workshop.whole)
        training = self._full_training(verdict, wanted)
        if training["steps"] == 0:
            least = wanted.least(self.planning.plan.proxy_steps)
            cause = (
                f"--full-epochs gives it {wanted.steps}"
                if wanted.steps < least
                else "the budget left is too small for that"
            )
            self.watcher.note(
                f"No full training: one shorter than a proxy comes out worse, so it needs {least} steps, and {cause}. "
                "The base of the best proxy is exported."
            )
            return
        job = self.workshop.maker.full(
            training["name"],
            [HeadConfig(**head) for head in training["heads"]],
            training["steps"],
            training["rungs"],
            self.seed,
            self.cost_model.reserve(),
            training.get("number", 1),
        )
        self.workshop.run("full", Phase([job], self.workshop.ended), {}, self._trained)

    def _full_training(self, verdict: Verdict, wanted: Wanted) -> Plain:
        """What is to be trained, and kept in the study."""
        assert verdict.winner is not None
        winner = self.trials.contender(verdict.winner)
        chosen = self.trials.control("none") if verdict.state == "no head" else winner
        step_s = self.cost_model.pace * self.cost_model.step([chosen])
        known = self.study.study_attributes().get(FULL)
        before = (
            self.workshop.ended.get(full_key(known.get("number", 1)), Outcome(State.CUT))
            if known
            else Outcome(State.CUT)
        )
        affordable = wanted.affordable(
            self.runner.meter.remaining(),
            self.cost_model.costs,
            step_s,
            self.planning.plan.proxy_steps,
        )
        training = full.to_run(known, before.state, winner, chosen, affordable)
        if training["steps"] and training != known:
            self.study.set_study(FULL, training)
        return training

    def _trained(self, job: Job, outcome: Outcome) -> None:
        if outcome.state is State.FAILED:
            self.watcher.note(f"The {job.task.name} failed: {outcome.cause}")
