"""What the table says: gains of heads, what predicts them, how early rankings settle. Pure
functions of the table (`table.COLUMNS`).

A *cell* is a base under a method. Differences are paired by seed; intervals are Student's t over
seeds, 95 %, each for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from benchmarks.evidence.protocol import NONE, longer
from hssl_search.engine.statistics.correlation import rank_correlation
from hssl_search.engine.statistics.two_way import t_interval

CELL = ["base", "method"]
SCORES = ("accuracy", "linear")
"""By the first, rankings are compared, as in a search."""
IDENTITY, NOISE, SAME_TIME = "identity", "noise", "none, same device-time"
AGAINST = (NONE, IDENTITY, SAME_TIME)
SHORTCUT = (("convnext 1", "convnext 1, shortcut"), ("convnext 3", "convnext 3, shortcut"))
"""(without, with) the first shortcut."""
DEPTH = (
    ("convnext 3", "convnext 1"),
    ("convnext 3, shortcut", "convnext 1, shortcut"),
    ("transformer 3", "transformer 1"),
)
"""(three blocks, one)."""
LOWER_IS_BETTER = ("head_loss",)
OF_JOINT = ("overlap", "cka", "output", "head_loss")
OF_ALONE = ("overlap", "cka", "output", "head_loss", "head_accuracy", "rankme", "accuracy")
ENOUGH = 0.9
"""Share of the agreement between whole trainings that a proxy's has to reach."""


def answers(
    table: pd.DataFrame, lengths: Mapping[str, Mapping[str, float]]
) -> dict[str, pd.DataFrame]:
    """Return, by name, a table for each question: `gains` (does a head beat no head), `predicted`
    (by what), `settling` (how short may a proxy be, with `proxy_length`) and `effects` (of the
    first shortcut and of depth). `lengths` as in `gains`.
    """
    settled = settling(table, SCORES[0])
    proxies = {cell: proxy_length(rows) for cell, rows in settled.groupby(CELL)}
    cells = settled[CELL].itertuples(index=False, name=None)
    return {
        "gains": pd.concat([gains(table, score, lengths).assign(score=score) for score in SCORES]),
        "predicted": predicted(table, SCORES[0]),
        "settling": settled.assign(proxy_length=[proxies[cell] for cell in cells]),
        "effects": effects(table, [*SCORES, "overlap"]),
    }


def alone(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.training == "alone"]


def at_the_end(table: pd.DataFrame) -> pd.DataFrame:
    """Return the last rung of each training alone."""
    rows = alone(table)
    return rows[rows.step == rows.steps]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return `mean`, `low` and `high` of its t interval (None for fewer than two), `n`."""
    known = [float(value) for value in values if not pd.isna(value)]
    low, high = t_interval(known) or (None, None)
    return {
        "mean": sum(known) / len(known) if known else None,
        "low": low,
        "high": high,
        "n": len(known),
    }


def balanced(rows: pd.DataFrame) -> pd.DataFrame:
    """Return of the trainings of one cell those of the seeds under which all branches were trained:
    a seed makes all of them better or worse."""
    seeds = at_the_end(rows).groupby("branch").seed.agg(set)
    return rows[rows.seed.isin(set.intersection(*seeds))] if len(seeds) else rows


def paired(rows: pd.DataFrame, one: str, other: str, score: str) -> pd.Series:
    """Return the score of one branch less that of another, by the seeds that both have, of the rows
    of one cell."""
    scores = rows.set_index(["branch", "seed"])[score].dropna()
    known = scores.index.get_level_values("branch")
    if one not in known or other not in known:
        return pd.Series(dtype=float)
    return (scores.loc[one] - scores.loc[other]).dropna()


def gains(
    table: pd.DataFrame, score: str, lengths: Mapping[str, Mapping[str, float]]
) -> pd.DataFrame:
    """Return the gain of every head over each of `AGAINST`: columns base, method, branch, against,
    mean, low, high, n (seeds).

    Args:
        lengths: of each cell (`base, method`) by branch, how many times as long no head is trained
            in the time that the branch takes.
    """
    found = []
    for (base, method), rows in at_the_end(table).groupby(CELL, sort=False):
        its = lengths[f"{base}, {method}"]
        for branch in rows[rows["head"] != ""].branch.unique():
            for against in AGAINST:
                if branch == against:
                    continue
                other = longer(its[branch]) if against == SAME_TIME else against
                values = list(paired(rows, branch, other, score))
                if values:
                    found.append(
                        {
                            "base": base,
                            "method": method,
                            "branch": branch,
                            "against": against,
                            **spread(values),
                        }
                    )
    return pd.DataFrame(found, columns=[*CELL, "branch", "against", "mean", "low", "high", "n"])


def predicted(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return how each measure ranks heads like the score at the end does: Spearman's over healthy
    heads, means over seeds, bootstrap interval.

    Columns: base, method, measure, source (`joint`, `alone`, `untrained`), fraction (of a training
    alone), step (of a joint one), value, low, high, n (heads). A positive value means that heads
    with more of it taught the base more; losses are turned round.
    """
    found = []
    for (base, method), rows in table.groupby(CELL, sort=False):
        final = at_the_end(balanced(full_length(rows)))
        target = final[final.branch.isin(healthy(final))].groupby("branch")[score].mean()
        for where, measure, values in _predictors(rows):
            both = pd.concat([target, values], axis=1, keys=["target", "value"]).dropna()
            sign = -1.0 if measure in LOWER_IS_BETTER else 1.0
            agreement = asdict(rank_correlation(list(sign * both.value), list(both.target)))
            found.append({"base": base, "method": method, "measure": measure, **where, **agreement})
    return pd.DataFrame(
        found, columns=[*CELL, "measure", "source", "fraction", "step", "value", "low", "high", "n"]
    )


def healthy(final: pd.DataFrame) -> list[str]:
    """Return the branches whose head passed the gate under every seed; noise is none."""
    with_head = final[(final["head"] != "") & (final.branch != NOISE)]
    passed = (with_head.gate == "healthy").groupby(with_head.branch, sort=False).all()
    return list(passed[passed].index)


def _predictors(rows: pd.DataFrame) -> Iterator[tuple[dict[str, Any], str, pd.Series]]:
    """Return (where it was measured, its name, its mean over seeds by branch) of every measure."""
    joint = rows[rows.training == "joint"]
    yield (
        {"source": "untrained", "fraction": None, "step": None},
        "architecture",
        joint.groupby("branch").architecture.mean(),
    )
    for step, its in joint.groupby("step"):
        for measure in OF_JOINT:
            yield (
                {"source": "joint", "fraction": None, "step": step},
                measure,
                its.groupby("branch")[measure].mean(),
            )
    full = balanced(full_length(rows))
    for fraction, its in full.groupby("fraction"):
        for measure in OF_ALONE:
            yield (
                {"source": "alone", "fraction": fraction, "step": None},
                measure,
                its.groupby("branch")[measure].mean(),
            )


def full_length(table: pd.DataFrame) -> pd.DataFrame:
    """Return the trainings alone of the schedule that all heads have: those of no head for the same
    time are longer."""
    rows = alone(table)
    return rows[~rows.branch.str.startswith(f"{NONE} x")]


def settling(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return how far rankings at each fraction of the schedule are the final ones: Kendall's tau-b
    over branches (no head too, noise not).

    Columns: base, method, fraction, `same` (the final ranking under the same seed), `other` (that
    of the mean over all other seeds: what an early ranking is for; at the whole schedule, how far
    whole trainings agree), each with `_low`, `_high`, and seeds.
    """
    found = []
    for (base, method), rows in full_length(table).groupby(CELL, sort=False):
        ranked = balanced(rows[rows.branch != NOISE])
        final = at_the_end(ranked).pivot_table(index="branch", columns="seed", values=score)
        for fraction, its in ranked.groupby("fraction"):
            early = its.pivot_table(index="branch", columns="seed", values=score).loc[final.index]
            same = [_tau(early[seed], final[seed]) for seed in final]
            other = (
                [_tau(early[seed], final.drop(columns=seed).mean(axis=1)) for seed in final]
                if final.shape[1] > 1
                else []
            )
            # of two seeds each is the other's other
            unsure = {"other_low": None, "other_high": None} if final.shape[1] < 3 else {}
            found.append(
                {
                    "base": base,
                    "method": method,
                    "fraction": fraction,
                    **_named("same", same),
                    **_named("other", other),
                    **unsure,
                    "seeds": final.shape[1],
                    "branches": len(final),
                }
            )
    return pd.DataFrame(found)


def _named(name: str, values: Sequence[float]) -> dict[str, Any]:
    found = spread(values)
    return {name: found["mean"], f"{name}_low": found["low"], f"{name}_high": found["high"]}


def _tau(first: pd.Series, second: pd.Series) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)


def proxy_length(settled: pd.DataFrame) -> float | None:
    """Return the shortest fraction of the schedule from which on rankings under one seed agree with
    the final ones of the other seeds at least `ENOUGH` times as well as whole trainings do; None
    where whole trainings do not agree either, their interval reaching zero.

    Args:
        settled: the rows of one cell of `settling`.
    """
    rows = settled.sort_values("fraction")
    whole = rows.iloc[-1]
    if pd.isna(whole.other_low) or whole.other_low <= 0:
        return None
    enough = (rows.other >= ENOUGH * whole.other)[::-1].cummin()[::-1]
    return float(rows.fraction[enough].iloc[0])


def effects(table: pd.DataFrame, outcomes: Sequence[str]) -> pd.DataFrame:
    """Return what no first shortcut, and three blocks instead of one, do to each outcome at the
    end; means over pairs of heads, then over seeds.

    Columns: base, method, effect, outcome, mean, low, high, n (seeds).
    """
    found = []
    for (base, method), rows in at_the_end(table).groupby(CELL, sort=False):
        for effect, pairs in (
            ("no first shortcut", SHORTCUT),
            ("three blocks instead of one", DEPTH),
        ):
            for outcome in outcomes:
                per_pair = pd.concat(
                    [paired(rows, one, other, outcome) for one, other in pairs], axis=1
                )
                values = list(per_pair.dropna().mean(axis=1))
                if values:
                    found.append(
                        {
                            "base": base,
                            "method": method,
                            "effect": effect,
                            "outcome": outcome,
                            **spread(values),
                        }
                    )
    return pd.DataFrame(found, columns=[*CELL, "effect", "outcome", "mean", "low", "high", "n"])
