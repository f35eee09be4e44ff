"""The sentences of a report: how a search stands, and what it found."""

from __future__ import annotations

from statistics import mean

from optuna import Study
from optuna.trial import TrialState

from hssl_search.reporting.formats import plural
from hssl_search.reporting.record import RunRecord, is_control
from hssl_search.reporting.tables import leaderboard


def verdict_text(study: Study | RunRecord) -> str:
    """The verdict's sentences; for a run without a verdict, how far it came and what leads."""
    record = RunRecord.of(study)
    if sentence := record.verdict.get("sentence"):
        return str(sentence)
    return f"No verdict yet: {_progress(record)}. {_leader(record)}"


def _progress(record: RunRecord) -> str:
    candidates = [trial for trial in record.heads if not is_control(trial)]
    screened = sum(bool(trial.user_attrs.get("gate")) for trial in candidates)
    finished = sum(trial.state is TrialState.COMPLETE for trial in candidates)
    failed = sum(trial.state is TrialState.FAIL for trial in candidates)
    told = (
        f"{plural(len(candidates), 'head')}, {screened} screened, {finished} at full proxy fidelity"
    )
    return f"{told}, {failed} failed" if failed else told


def _leader(record: RunRecord) -> str:
    board = leaderboard(record)
    ranked = board[(board["role"] == "candidate") & board["rank"].notna()]
    if ranked.empty:
        return "No head has a result that can be ranked."
    best = ranked.iloc[0]
    told = record.ranked_by.amount
    if record.ranked_by.of_head:
        return f"The most discrepant healthy head so far is {best['name']} ({told(best['score'])})."
    no_head = record.no_head
    result = record.scores(no_head, record.ranked_by) if no_head else {}
    against = (
        f"no head {told(mean(result.values()))}"
        if result
        else "the control without a head has no result yet"
    )
    return f"The best so far is {best['name']} with {told(best['score'])} ({against})."
