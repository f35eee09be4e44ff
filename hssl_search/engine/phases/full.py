"""full: which training the winner gets, for as long as the budget lasts."""

from __future__ import annotations

from hssl_search.engine.execution.jobs import Job, Outcome, State
from hssl_search.engine.phases.context import Context
from hssl_search.engine.phases.jobs import full_key
from hssl_search.engine.phases.runner import Phase, Runner
from hssl_search.engine.planning.costs import FullTraining, Wanted
from hssl_search.engine.records.state import Contender, FullState, SearchState, Verdict


def train_winner(context: Context, verdict: Verdict, wanted: Wanted, proxy_steps: int) -> None:
    """Train the winner by the full recipe, as far as the budget lasts; nothing where that is
    shorter than its proxy was.

    Args:
        wanted: the training that was asked for.
        proxy_steps: steps of a proxy.
    """
    if not wanted.steps or verdict.winner is None:
        return
    training = _chosen(context, verdict, wanted, proxy_steps)
    if training.steps == 0:
        least = wanted.least(proxy_steps)
        cause = "the budget left is too small for that"
        if wanted.steps < least:
            cause = f"--full-epochs gives it {wanted.steps}"
        context.watcher.note(
            "No full training: one shorter than a proxy comes out worse, so it needs "
            f"{least} steps, and {cause}. The base of the best proxy is exported."
        )
        return

    def tell_failure(job: Job, outcome: Outcome) -> None:
        if outcome.state is State.FAILED:
            context.watcher.note(f"The {job.task.name} failed: {outcome.cause}")

    job = context.jobs.full(
        training.name,
        training.heads,
        training.steps,
        training.rungs,
        context.seed,
        context.cost_model.reserve(),
        training.number,
    )
    # No cost is expected of it, so that it may take all that is left.
    Runner(context, "full", Phase([job], context.ended), {}, tell_failure).run()


def _chosen(context: Context, verdict: Verdict, wanted: Wanted, proxy_steps: int) -> FullState:
    """Return what is to be trained, as the study keeps it."""
    assert verdict.winner is not None
    winner = context.trials.contender(verdict.winner)
    chosen = context.trials.control("none") if verdict.state == "no head" else winner
    before = context.study.state.full
    key = full_key(before.number) if before else ""
    ended = context.ended.get(key, Outcome(State.CUT)).state
    costs, cost_model = context.cost_model.costs, context.cost_model
    step_s, remaining_s = cost_model.pace * cost_model.step([chosen]), context.meter.remaining()
    affordable = wanted.affordable(remaining_s, costs, step_s, proxy_steps, context.policy)
    training = to_run(before, ended, winner, chosen, affordable)
    # Without steps nothing is kept: what was trained before stays the winner's training.
    if training.steps and training != before:
        context.study.write(SearchState(full=training))
    return training


def to_run(
    before: FullState | None,
    ended: State,
    winner: Contender,
    chosen: Contender,
    affordable: FullTraining,
) -> FullState:
    """Return the full training that is planned, or was made; another where the winner is, or where
    more of its steps are affordable now.

    Args:
        before: what was returned last.
        ended: how that ended; CUT where it is still to come to its end.
        chosen: who is trained: the winner, or no head where that is better.
        affordable: what is affordable now.
    """
    number, steps = 1 if before is None else before.number, affordable.steps
    if before is not None and before.steps:
        # By its heads: no head, too, is trained in the name of the winner.
        same = list(before.heads) == chosen.heads
        if same and (ended is State.CUT or steps <= before.steps):
            return before
        if steps == 0:
            return before.with_set(FullState(steps=0))
        number += 1
    return FullState(
        number=number,
        winner=winner.trial,
        steps=steps,
        rungs=tuple(affordable.rungs),
        heads=tuple(chosen.heads),
        name=f"full training with {chosen.name}",
    )
