"""The controller takes a search through its phases, and takes it up again wherever it was left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean

from hssl_search.engine.budget import Budget
from hssl_search.engine.candidates.prior_runs import lessons
from hssl_search.engine.candidates.promotion import Promoter
from hssl_search.engine.candidates.pruners import PRUNERS, Pruner
from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.execution.jobs import Plain
from hssl_search.engine.phases.confirm import confirm
from hssl_search.engine.phases.context import Context
from hssl_search.engine.phases.full import train_winner
from hssl_search.engine.phases.jobs import JobMaker
from hssl_search.engine.phases.measure import measure
from hssl_search.engine.phases.proxy import run_proxies
from hssl_search.engine.phases.runner import Backend
from hssl_search.engine.phases.scores import Scoreboard
from hssl_search.engine.phases.screen import screen
from hssl_search.engine.planning.cost_model import CostModel, Measurement
from hssl_search.engine.planning.costs import Costs
from hssl_search.engine.planning.planner import Planning
from hssl_search.engine.planning.preview import macs_like, what_fits
from hssl_search.engine.records.results import Results
from hssl_search.engine.records.run import ResolvedSearch
from hssl_search.engine.records.state import PlanState, SearchState, TrialState, Verdict
from hssl_search.engine.statistics.metrics import ACCURACY, CHANCE, OF_BASES, Chance, Measure
from hssl_search.engine.verdict import image_flaw, judge, why_no_winner
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space


class Controller:
    """One search, from measuring to the full training.

    Every decision is made from what the study holds, so a controller that is started again on the
    same run finds its phases done up to where the last one was stopped, and continues there.

    Args:
        resolved: the search, as search.yaml holds it.
        words: puts a verdict into a sentence, which the study keeps beside it for its dashboard.
    """

    def __init__(
        self,
        backend: Backend,
        resolved: ResolvedSearch,
        trials: Trials,
        words: Callable[[Verdict], str],
    ) -> None:
        self.backend, self.resolved, self.trials, self.words = backend, resolved, trials, words
        self.seed, self.ranked_by, self.images = resolved.seed, resolved.ranked_by, resolved.images
        labelfree_ranks = self.ranked_by in OF_BASES
        folder, machine = backend.run.folder, backend.machine
        self.jobs = JobMaker(
            resolved.setting, folder, machine, labelfree_ranks, hung_s=resolved.policy.hung_s
        )

    def search(self) -> Verdict:
        """Run every phase and return the verdict.

        A verdict that stands is not changed while the budget is the same. What the budget did not
        last for stays undecided, and continues when the budget is extended.
        """
        run, meter = self.backend.run, self.backend.meter
        measured = self._measure(meter.budget, f"continue with: {run.how_to_resume()}")
        search = self._search(measured)
        context = search.context
        settled = {
            "gpus_per_trial": context.machine.gpus_per_trial,
            "setting": context.jobs.setting.model_dump(mode="json"),
        }
        return search.run(settled)

    def preview(self, budget: Budget) -> Plain:
        """Measure, and say what a search with this budget would do and cost
        (`hssl_search.engine.planning.preview`)."""
        measured = self._measure(budget, "run the command again", to_the_end=True)
        return self._search(measured).planning.preview(budget, measured)

    def _measure(self, budget: Budget, when_mended: str, to_the_end: bool = False) -> Measurement:
        measured = measure(
            self.backend,
            self.trials,
            self.jobs,
            self.seed,
            budget.seconds,
            self._fits,
            when_mended,
            to_the_end,
        )
        self.backend.study.write(
            SearchState(
                reference=self._reference(measured, ACCURACY),
                reference_scores=self._reference(measured, self.ranked_by),
            )
        )
        return measured

    def _reference(self, measured: Measurement, measure: Measure) -> dict[str, float]:
        """Return the score of each reference that has one; of accuracies chance is one."""
        chance = Chance.of(self.images) if measure == ACCURACY else None
        return measured.reference(measure) | ({} if chance is None else {CHANCE: chance.level})

    def _search(self, measured: Measurement) -> Search:
        """Return the search as it is once it is known what training costs."""
        backend, trials, resolved = self.backend, self.trials, self.resolved
        whole = backend.machine
        asked = resolved.gpus_per_trial
        share = measured.gpu_share if asked is None else asked
        machine = replace(whole, gpus_per_trial=share)
        setting = measured.settle(self.jobs.setting)
        pruner = replace(PRUNERS[resolved.pruner], policy=resolved.policy)
        results = Results(self.ranked_by, self.images.get("queries"))
        board = Scoreboard(trials, backend.watcher, results, pruner.why)
        typical, pace = trials.typical(), backend.pace
        cost_model = CostModel(measured, setting, typical, lambda: pace.now, whole)
        settled = replace(backend, machine=machine, startup_s=measured.costs.startup)
        context = Context(
            **vars(settled),
            trials=trials,
            jobs=replace(self.jobs, setting=setting, machine=machine, alone=whole),
            cost_model=cost_model,
            board=board,
            seed=self.seed,
        )
        return Search(
            context=context,
            planning=Planning(context, resolved, trials.space.size(), self._fits),
            promoter=Promoter(
                trials,
                backend.study,
                resolved.promote,
                self.seed,
                resolved.max_head_cost,
                cost_model.times_base,
                backend.policy,
                lessons(backend.study, resolved) if resolved.promote == "learned" else [],
            ),
            pruner=pruner,
            same_architecture=resolved.same_architecture,
            images=self.images,
            references=self._reference(measured, self.ranked_by),
            words=self.words,
        )

    def _fits(self, available_s: float, costs: Costs) -> list[str]:
        """Say with which options a smallest search would fit into so many device-seconds."""
        setting = self.resolved.setting
        return what_fits(
            available_s, costs, setting, macs_like(setting), self._tiny_heads, self.backend.policy
        )

    def _tiny_heads(self) -> float | None:
        """Return the mean multiply-adds of the tiny space's heads, as a share of those of this
        space's; None where this space is no larger one."""
        tiny = mean(macs for _, macs in self.trials.of_space(Space.read("tiny")))
        share = tiny / max(1.0, mean(macs for _, macs in self.trials.typical()))
        return share if share < 1 else None


@dataclass(frozen=True)
class Search:
    """A search after measuring: its phases, one after another."""

    context: Context
    planning: Planning
    promoter: Promoter
    pruner: Pruner
    same_architecture: HeadConfig
    """The head of the control of that name."""
    images: Plain
    references: dict[str, float]
    """Scores, by what ranks, of what needs no training."""
    words: Callable[[Verdict], str]

    def run(self, settled: Plain) -> Verdict:
        """Run every phase and return the verdict.

        Args:
            settled: what measuring has settled, for search.yaml.
        """
        context, planning, promoter = self.context, self.planning, self.promoter
        planning.begin(settled)
        verdict = (self._standing() if planning.done else None) or self._find()
        while planning.extend(promoter.healthy() - len(promoter.promoted())):
            verdict = self._find()
        if context.complete:
            context.trials.close("the search ended before it was decided.")
        train_winner(context, verdict, planning.full, planning.plan.proxy_steps)
        if context.short:
            phases = ", ".join(sorted(context.short))
            extend = context.run.how_to_resume(context.meter.budget.newest)
            context.watcher.note(
                f"The budget did not last for all of: {phases}. Continue with: {extend}"
            )
        elif context.late:
            phases = ", ".join(sorted(context.late))
            context.watcher.note(
                f"Cut, since they took several times what was planned: jobs of {phases}. They "
                f"continue with: {context.run.how_to_resume()}"
            )
        return verdict

    def _find(self) -> Verdict:
        """Find the winner and write the verdict.

        What the budget does not last for ends the rounds. Where that is screening, the healthy
        heads that it found have their proxies as far as what is left lasts; what was promoted is
        confirmed.
        """
        context, planning, promoter = self.context, self.planning, self.promoter
        scores: dict[int, float] = {}
        rounds = len(planning.plan.ends)
        for number in range(rounds):
            screen(context, planning.plan, number)
            short = bool(context.short)
            if short and not promoter.healthy():
                break
            if not planning.again(promoter.likely, short):
                break
            # No round follows one that was short: its proxies are all that there will be.
            number = rounds - 1 if short else number
            scores = run_proxies(context, promoter, self.pruner, planning.plan, number)
            if context.short:
                break
        context.watcher.promoted(promoter.close(scores, final=context.complete))
        confirm(context, self.same_architecture, planning.plan, promoter.promoted())
        verdict = self._judge()
        planning.note(PlanState(done=context.complete))
        return verdict

    def _judge(self) -> Verdict:
        context, results = self.context, self.context.board.results
        contenders = context.trials.contenders()
        causes = {
            trial.number: cause
            for trial in context.study.trials()
            if (cause := TrialState.of(trial).cause)
        }
        flaw = image_flaw(self.images)
        newest = context.meter.budget.newest if context.short else ""
        extend = context.run.how_to_resume(newest)
        verdict = judge(
            contenders,
            results.table(),
            results.table(ACCURACY).scores,
            self.references,
            context.cost_model.further_seeds(self.planning.plan, contenders),
            Chance.of(self.images),
            why_no_winner(contenders, causes, context.short, flaw, extend, context.late),
            flaw,
        )
        standing = self._standing()
        if standing and standing.winner is not None and standing.results == verdict.results:
            # What a further seed would cost is an estimate that changes with the pace: by the same
            # results the verdict stays.
            return standing
        verdict = verdict.model_copy(update={"sentence": self.words(verdict)})
        context.study.write(SearchState(verdict=verdict))
        return verdict

    def _standing(self) -> Verdict | None:
        """Return the verdict that the study holds."""
        return self.context.study.state.verdict
