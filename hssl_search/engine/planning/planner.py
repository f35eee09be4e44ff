"""The planner: makes the plan of a search, makes it anew as the search goes, and keeps it in the
study and in search.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hssl_search.engine.budget import Budget
from hssl_search.engine.candidates.sampler import LEARNING
from hssl_search.engine.phases.context import Context
from hssl_search.engine.planning.cost_model import Measurement
from hssl_search.engine.planning.costs import Costs
from hssl_search.engine.planning.plan import (
    BudgetTooSmall,
    Plan,
    extend_plan,
    make_plan,
    plan_again,
)
from hssl_search.engine.planning.preview import (
    Page,
    PlannedPhase,
    planned_phases,
    preview,
    too_small,
)
from hssl_search.engine.records.run import ResolvedSearch
from hssl_search.engine.records.state import Contender, PlanState, SearchState
from hssl_search.engine.statistics import ties


class Planning:
    """The plan of one search, as it stands.

    Args:
        search: as search.yaml held it when it was begun or taken up.
        space_size: how many heads there are, None for endless.
        fits: options with which a smallest search would fit into so many device-seconds, by the
            costs of this one.
    """

    def __init__(
        self,
        context: Context,
        search: ResolvedSearch,
        space_size: int | None,
        fits: Callable[[float, Costs], list[str]],
    ) -> None:
        self.context, self.space_size, self.fits = context, space_size, fits
        self.run, self.study, self.meter = context.run, context.study, context.meter
        self.cost_model, self.policy = context.cost_model, context.policy
        self.max_head_cost = search.max_head_cost
        self.learning, self.full = (
            search.sampler in LEARNING,
            self.cost_model.full(search.full_epochs),
        )

    @property
    def plan(self) -> Plan:
        """Return the plan as it stands, once the search has begun."""
        numbers = self.known.numbers
        assert numbers is not None
        return Plan(**numbers)

    @property
    def known(self) -> PlanState:
        """Return what the study holds of the plan."""
        return self.study.state.plan or PlanState()

    @property
    def extended(self) -> bool:
        """Return whether the budget is larger than what was planned for."""
        return self.meter.budget.seconds > (self.known.budget_s or 0.0)

    @property
    def done(self) -> bool:
        """Return whether all that was planned for this budget is done."""
        return bool(self.known.done) and not self.extended

    def begin(self, settled: Mapping[str, object]) -> None:
        """Take up the plan that the study holds, or make one for what is left.

        Args:
            settled: what measuring has settled, for search.yaml, which then holds the plan too.
        """
        if self.known.numbers:
            # A resumed search: its plan was made with this cost of a head.
            self.cost_model.expect(self.known.head_s)
        else:
            try:
                plan = make_plan(
                    self.meter.remaining(),
                    self.cost_model.planned,
                    self.space_size,
                    self.learning,
                    self.full,
                    self.policy,
                )
            # `make_plan` knows device-seconds alone; a user is told what to type.
            except BudgetTooSmall as error:
                raise BudgetTooSmall(
                    too_small(
                        self.run,
                        self.meter,
                        error.needed_s,
                        self.cost_model.planned,
                        self.fits,
                        self.policy,
                    ),
                    error.needed_s,
                ) from None
            # Measuring is over: what it took stands where others have an expectation.
            phases = {
                "measure": self.meter.ledger.by_phase()["measure"],
                **self._phases_s(plan),
            }
            self.note(
                PlanState(
                    budget_s=self.meter.budget.seconds,
                    phases=phases,
                    jobs=plan.jobs,
                    numbers=plan.as_plain(),
                )
            )
        self.run.update_config(**settled, plan=self.plan.as_plain())
        self.context.watcher.planned(self.plan, "begun")
        if costly := self._costly():
            told = ", ".join(f"{family} {times:.1f}" for family, times in costly.items())
            self.context.watcher.note(
                f"Some heads make a step many times as long as without a head ({told} times); "
                f"after screening, those above {self.max_head_cost:g} times are left out while "
                "there are others (--max-head-cost)."
            )

    def again(self, likely: Callable[[int], Sequence[Contender]], short: bool = False) -> bool:
        """Fit proxies and confirming, once, after the first screening, to what is left now, at the
        pace that it has shown, and to what the heads cost that will be promoted.

        Args:
            likely: which heads are promoted where so many are.
            short: whether the budget did not last for all of that screening.

        Returns:
            Whether there are proxies to run: not where screening was short and what it left is too
            little for the shortest proxies. Then nothing is settled, and an extended budget is
            planned for anew.
        """
        known = self.known
        # Fitted already: proxies of other lengths could not be compared with the first ones.
        if known.first:
            return True
        if (remaining_s := self.meter.remaining()) <= 0:
            return not short
        self.cost_model.promoted(likely(self.plan.proxies))
        costs = self.cost_model.at_pace()
        plan = plan_again(
            self.plan, remaining_s, costs, self.full, self.policy, more_screening=not short
        )
        if short and not ties.at_least(
            remaining_s, plan.expected_s["proxy"] + costs.between_phases()
        ):
            return False
        if not plan.runs_as(self.plan):
            self.context.watcher.planned(plan, "screened")
        planned_s = known.phases or {}
        # Screening last: what was planned for it stays, whatever pace it has shown.
        phases = {
            **planned_s,
            **self._phases_s(plan, self.cost_model.pace),
            "screen": planned_s["screen"],
        }
        self._replace(
            plan,
            PlanState(
                first=known.numbers,
                first_phases=planned_s,
                phases=phases,
                head_s=self.cost_model.planned.mean_head,
            ),
        )
        return True

    def extend(self, waiting: int) -> bool:
        """Plan more at the same fidelity, where the budget was extended and what was planned before
        is done.

        Args:
            waiting: healthy candidates that were screened and had no proxy.

        Returns:
            Whether there is more to do.
        """
        if self.context.short or not self.extended:
            return False
        plan = extend_plan(
            self.plan,
            self.meter.remaining(),
            self.cost_model.at_pace(),
            self.space_size,
            waiting,
            self.full,
            self.policy,
        )
        # An extended plan's `expected_s` is of what is added alone.
        spent = self.meter.ledger.by_phase()
        phases = {
            phase: spent.get(phase, 0.0) + seconds
            for phase, seconds in {"measure": 0.0, **plan.expected_s}.items()
        }
        more = not plan.runs_as(self.plan)
        self._replace(
            plan, PlanState(budget_s=self.meter.budget.seconds, phases=phases, done=not more)
        )
        self.context.watcher.planned(plan, "extended" if more else "done")
        return more

    def note(self, state: PlanState) -> None:
        """Keep these values with the plan in the study."""
        self.study.write(SearchState(plan=self.known.with_set(state)))

    def preview(self, budget: Budget, measured: Measurement) -> Page:
        """Return what a search with this budget would do and cost, after measuring (`preview`)."""
        measuring_s, reserve_s, costs = (
            self.meter.spent(),
            self.meter.reserve_s,
            self.cost_model.planned,
        )
        fits: Sequence[str] = ()
        try:
            plan = make_plan(
                budget.seconds - reserve_s - measuring_s,
                costs,
                self.space_size,
                self.learning,
                self.full,
                self.policy,
            )
        # No error here: the page tells what would be enough.
        except BudgetTooSmall:
            plan = None
            fits = self.fits(budget.seconds - reserve_s - measuring_s, costs)
        phases = [] if plan is None else self._phases(plan)
        return preview(
            budget,
            measuring_s,
            reserve_s,
            measured,
            costs,
            plan,
            phases,
            self.space_size,
            fits,
            self._costly(),
            self.max_head_cost,
            self.policy,
        )

    def _replace(self, plan: Plan, state: PlanState) -> None:
        self.note(state.with_set(PlanState(jobs=plan.jobs, numbers=plan.as_plain())))
        self.run.update_config(plan=plan.as_plain())

    def _phases(self, plan: Plan, pace: float = 1.0) -> list[PlannedPhase]:
        costs = self.cost_model.costs
        step_s = pace * (costs.step + self.cost_model.planned.mean_head)
        left_s = plan.expected_s["full"] + costs.between_phases()
        full = self.full.affordable(left_s, costs, step_s, plan.proxy_steps, self.policy)
        return planned_phases(plan, full, costs, self.context.machine, self.context.jobs.whole)

    def _phases_s(self, plan: Plan, pace: float = 1.0) -> dict[str, float]:
        """Return the device-seconds of each phase after measuring, the starting of workers
        included."""
        return {"full": 0.0, **{row.phase: row.device_s for row in self._phases(plan, pace)}}

    def _costly(self) -> dict[str, float]:
        """Return family -> times the base's step, of heads that cost more than is allowed."""
        most = self.max_head_cost
        return {} if most is None else self.cost_model.costly(most)
