"""Prior runs: what earlier searches teach the surrogate of this one (`--warm-start`)."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Ended

from hssl_search.engine.candidates.surrogate import Lesson
from hssl_search.engine.records.run import ResolvedSearch, Run
from hssl_search.engine.records.state import (
    Contender,
    PriorHead,
    PriorRun,
    SearchState,
    TrialState,
)
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.statistics.metrics import RANKINGS
from hssl_search.errors import UserError

FEWEST = 2
"""Heads with a score from which on a run says which is better."""


def read_prior_runs(folders: Iterable[str], rank_by: str) -> tuple[PriorRun, ...]:
    """Return the heads of these runs whose proxies came to their end.

    Args:
        rank_by: key of the measure that ranks heads.

    Raises:
        UserError: for a run that is ranked by another measure, and for one with too few results.
    """
    runs = []
    for folder in folders:
        run = Run.find(folder)
        config = run.config()
        if config["rank_by"] != rank_by:
            theirs, ours = (RANKINGS[key].name for key in (config["rank_by"], rank_by))
            raise UserError(
                f"the run {run.name!r} ranked heads by {theirs} and this search ranks by {ours}; "
                "give --warm-start a run of the same --rank-by."
            )
        with StudyRecord.existing(run.study_url(config["storage"]), config["name"]) as study:
            trials = [trial for trial in study.trials() if trial.state is Ended.COMPLETE]
        heads = tuple(head for trial in trials if (head := _prior_head(trial)) is not None)
        if len(heads) < FEWEST:
            raise UserError(
                f"the run {run.name!r} has too few heads with a score to learn from "
                f"({len(heads)}); give --warm-start a run with at least two proxies that came to "
                "their end."
            )
        runs.append(PriorRun(name=run.shown, heads=heads))
    return tuple(runs)


def _prior_head(trial: FrozenTrial) -> PriorHead | None:
    """Return what an ended trial teaches; None for a control, and for a head that this version
    cannot read, such as one of a family that it lacks."""
    try:
        state = TrialState.of(trial)
    except UserError:
        return None
    if state.role != "candidate" or state.head is None:
        return None
    return PriorHead(head=state.head, gain=trial.value, measured=state.as_measured())


def lessons(study: StudyRecord, search: ResolvedSearch) -> list[Lesson]:
    """Return what the surrogate learns from the prior runs of a search; its study keeps it, so that
    their folders are needed once."""
    if search.warm_start and not study.state.warm_start:
        study.write(SearchState(warm_start=read_prior_runs(search.warm_start, search.rank_by)))
    return [_lesson(run) for run in study.state.warm_start if run.scored]


def _lesson(run: PriorRun) -> Lesson:
    # No trial of this study: the surrogate reads features alone.
    contenders = tuple(
        Contender(-1, head.measured.with_set(TrialState(head=head.head, family=head.head.family)))
        for head, _ in run.scored
    )
    return Lesson(contenders, tuple(gain for _, gain in run.scored), run.name)
