"""What the analysis says, in sentences; each states its interval, its seeds, and whether it holds against the paper's claim."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from benchmarks.evidence.analysis import AGAINST, proxy_length
from benchmarks.evidence.protocol import Cell
from hssl_search.reporting.formats import plural, signed, signed_interval


def gains(found: pd.DataFrame, cells: list[Cell], score: str) -> Iterator[str]:
    """Of each cell: how many heads beat no head, and by how much the one does whose comparison decides."""
    for cell, rows in _by_cell(found, cells):
        candidates = rows[rows.branch.map(cell.role) == "candidate"]
        counted = [_counted(candidates[candidates.against == against], against) for against in AGAINST]
        yield f"{cell.name}, by {score}: of the candidates {'; '.join(filter(None, counted))}."
        decisive = rows[rows.branch == cell.base.decisive]
        told = [f"{_amount(row)} points over {row.against}, {plural(row.n, 'seed')}" for row in decisive.itertuples()]
        if told:
            yield f"{cell.name}: the deciding head, {cell.base.decisive}: {'; '.join(told)}."


def _counted(rows: pd.DataFrame, against: str) -> str:
    better, worse = int((rows.low > 0).sum()), int((rows.high < 0).sum())
    return f"{better} better and {worse} worse than {against}, {len(rows) - better - worse} undecided" if len(rows) else ""


def _amount(row: pd.Series) -> str:
    return f"{signed(row.mean_value, 2)} {signed_interval(row.low, row.high, 2)}".strip()


def foretold(found: pd.DataFrame, cells: list[Cell], score: str) -> Iterator[str]:
    """Of each cell: whether discrepancy orders heads as the claim has it, from where it is cheap and from where it is not."""
    for cell, rows in _by_cell(found, cells):
        joint, alone = rows[rows.source == "joint"], rows[rows.source == "alone"]
        picked = [("overlap, joint screening", joint[(joint.measure == "overlap") & (joint.step == joint.step.max())]),
                  ("cka, joint screening", joint[(joint.measure == "cka") & (joint.step == joint.step.max())]),
                  ("architecture, untrained", rows[rows.source == "untrained"]),
                  ("overlap, trained alone", alone[(alone.measure == "overlap") & (alone.fraction == 1.0)]),
                  ("cka, trained alone", alone[(alone.measure == "cka") & (alone.fraction == 1.0)])]
        told = [f"{name} {_correlation(its.iloc[0])}" for name, its in picked if len(its)]
        yield f"{cell.name}: rank correlation with {score} at the end: {'; '.join(told)}."


def _correlation(row: pd.Series) -> str:
    if pd.isna(row["value"]):
        return "none (too few heads, or all alike)"
    between = signed_interval(row.low, row.high, 2)
    words = "undecided" if not between or row.low <= 0 <= row.high else "as the paper claims" if row.low > 0 else "contradicts the paper"
    return f"{signed(row['value'], 2)} {between} over {row.n} heads: {words}".replace("  ", " ")


def settling(found: pd.DataFrame, cells: list[Cell]) -> Iterator[str]:
    """Of each cell: how short a proxy may be, by the rule of `analysis.proxy_length`, and overall the longest of them."""
    lengths: list[float | None] = []
    for cell, rows in _by_cell(found, cells):
        lengths.append(length := proxy_length(rows))
        whole = rows.sort_values("fraction").iloc[-1]
        yield f"{cell.name}: {_agreement(whole)}; {_proposal(length)}."
    known = [length for length in lengths if length is not None]
    if len(known) == len(lengths) and known:
        yield f"The longest of these, {100 * max(known):g} % of the schedule, suits all."
    elif lengths:
        yield "No length suits all: the tool's default stays what the plan can afford."


def _agreement(whole: pd.Series) -> str:
    if whole.seeds < 2:
        return "one seed does not tell how far trainings agree"
    between = signed_interval(whole.other_low, whole.other_high, 2)
    return f"final rankings of different seeds agree by tau {signed(whole.other, 2)} {between or '(no interval)'}, {whole.seeds} seeds"


def _proposal(length: float | None) -> str:
    if length is None:
        return "no agreement is sure, so no proxy length can be proposed"
    return f"a proxy of {100 * length:g} % of the schedule ranks nine tenths as well"


def effects(found: pd.DataFrame, cells: list[Cell]) -> Iterator[str]:
    for cell, rows in _by_cell(found, cells):
        told = [f"{row.effect}: {row.outcome} {_amount(row)}, {plural(row.n, 'seed')}" for row in rows.itertuples()]
        yield f"{cell.name}: {'; '.join(told)}."


def _by_cell(found: pd.DataFrame, cells: list[Cell]) -> Iterator[tuple[Cell, pd.DataFrame]]:
    for cell in cells:
        rows = found[(found.base == cell.base.name) & (found.method == cell.method)] if len(found) else found
        if len(rows):
            yield cell, rows.rename(columns={"mean": "mean_value"})


