"""The evidence as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.evidence import analysis, answers, figures
from benchmarks.evidence.protocol import Cell
from hssl_search.reporting.formats import MISSING, duration, known, number, signed, signed_interval
from hssl_search.reporting.page import render
from hssl_search.reporting.panels import Panel, panel
from hssl_search.search.execution.jobs import Plain

TEMPLATE = Path(__file__).with_name("template.html")
SCORES = {"accuracy": "k-NN accuracy", "linear": "linear accuracy"}
JUDGED = "accuracy"
"""What the questions about rankings are answered by, as in a search."""
LEVELS = {"accuracy": "k-NN", "accuracy_mean": "k-NN, mean token", "linear": "linear", "linear_mean": "linear, mean token",
          "head_accuracy": "head's own k-NN", "overlap": "overlap", "cka": "CKA", "output": "output", "rankme": "RankMe"}
DRAWN = ("overlap", "cka", "head_loss", "head_accuracy", "rankme", "accuracy")
T_INTERVALS = ("Means over seeds of differences paired by seed, with 95 % Student's t intervals, each for itself: of many, one in twenty "
               "misses by chance.")


@dataclass(frozen=True)
class Number:
    """A figure in a table: its text, its interval, and `up` or `down` where that excludes zero."""

    text: str
    interval: str = ""
    sign: str = ""

    @classmethod
    def of(cls, value: Any, low: Any = None, high: Any = None, digits: int = 2) -> Number:
        sign = "up" if known(low) and low > 0 else "down" if known(high) and high < 0 else ""
        return cls(signed(value, digits), signed_interval(low, high, digits), sign)


@dataclass(frozen=True)
class Grid:
    """A table: of each row the first `names` cells are words, the others figures."""

    title: str
    headings: list[str]
    rows: list[list[Any]]
    hint: str
    names: int = 2


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    sentences: list[str]
    panels: list[Panel] = field(default_factory=list)
    tables: list[Grid] = field(default_factory=list)


def build(table: pd.DataFrame, about: Plain, cells: Sequence[Cell]) -> str:
    """The page of a table (`table.COLUMNS`) and its sidecar."""
    toy, its = about["scale"] == "toy", list(cells)
    sections = [_gains(table, about, its), _foretold(table, its), _settling(table, its), _effects(table, its)]
    return render(TEMPLATE.read_text(encoding="utf-8"), {
        "title": ("TOY: " if toy else "") + "What a head is worth, what foretells it, and how early", "toy": toy, "note": about["note"],
        "facts": _facts(table, about), "sections": sections, "command": about["command"], "failed": about["failed"],
        "versions": about["versions"], "made": _made(table, about)})


def _facts(table: pd.DataFrame, about: Plain) -> list[tuple[str, str]]:
    images, alone = about["images"], analysis.at_the_end(table)
    return [("Scale", about["scale"]), ("Images", f"{images['training']:,} without labels, {images['side']} px"),
            ("Judged by", f"{images['queries']:,} test images, a bank of {images['bank']:,}"), ("Bases", ", ".join(alone.base.unique())),
            ("Methods", ", ".join(alone.method.unique())), ("Trainings", f"{len(alone)} of {int(alone.steps.min()):,} steps or more"),
            ("Device", "; ".join(about["device"])), ("Device-time", f"{duration(about['device_seconds'])} ({about['unit']})")]


def _made(table: pd.DataFrame, about: Plain) -> str:
    seeds = analysis.at_the_end(table).groupby(["base", "method", "branch"]).seed.nunique()
    return (f"Started again until nothing was left, or time was over: branches have {seeds.min()} to {seeds.max()} seeds. All rows are in "
            "evidence.csv, what surrounds them in evidence.json, and headbench/ has them in the HeadBench format.")


def _gains(table: pd.DataFrame, about: Plain, cells: list[Cell]) -> Section:
    found = {score: analysis.gains(table, score, about["lengths"]) for score in SCORES}
    sentences = [sentence for score, words in SCORES.items() for sentence in answers.gains(found[score], cells, words)]
    drawn = [panel(f"gains-{place}", cell.name, figures.draw_gains(_of(found[JUDGED], cell), SCORES[JUDGED]), T_INTERVALS,
                   "Nothing has been trained to its end yet.") for place, cell in enumerate(cells)]
    grids = [Grid(f"Gain in {words}, points", ["base, method", "head", "seeds", *(f"over {against}" for against in analysis.AGAINST)],
                  _gain_rows(found[score]), f"{T_INTERVALS} No head for the same device-time is trained as many times as long as the head "
                  "takes, rounded up to halves: it never has less time than the head.", names=3) for score, words in SCORES.items()]
    return Section("gains", "Does a head beat no head?", sentences, drawn, [*grids, _levels(table)])


def _gain_rows(found: pd.DataFrame) -> list[list[Any]]:
    rows = []
    for (base, method, branch), its in found.groupby([*analysis.CELL, "branch"], sort=False):
        of = its.set_index("against")
        numbers = [_number(of, against, "mean") for against in analysis.AGAINST]
        rows.append([f"{base}, {method}", branch, int(its.n.min()), *numbers])
    return rows


def _levels(table: pd.DataFrame) -> Grid:
    measured = {key: title for key, title in LEVELS.items() if table[key].notna().any()}
    rows = [[f"{row['base']}, {row['method']}", row["branch"], row["seeds"], *(Number(number(row[key], 2)) for key in measured)]
            for row in analysis.levels(table, list(measured)).to_dict("records")]
    return Grid("At the end of the schedule", ["base, method", "branch", "seeds", *measured.values()], rows,
                "Means over seeds. Accuracies in per cent; overlap, CKA and output are discrepancies of head and base.", names=3)


def _foretold(table: pd.DataFrame, cells: list[Cell]) -> Section:
    found = analysis.foretold(table, JUDGED)
    drawn = [panel(f"foretold-{place}", f"{cell.name}: measured in the trainings alone", figures.draw_foretold(_of(found, cell), DRAWN),
                   "Spearman's over healthy heads, means over seeds, 95 % bootstrap intervals over heads. Losses are turned round, so that "
                   "up is always: more of it, more accuracy. At 100 % the measure is of the same trainings as the score.",
                   "Too few heads have been trained to their end.") for place, cell in enumerate(cells)]
    hint = "Spearman's over healthy heads and its 95 % bootstrap interval over heads; fewer than five heads have none."
    early = _correlations(found[found.source != "alone"], lambda row: "untrained" if row.source == "untrained" else f"{row.step:.0f} steps")
    late = _correlations(found[found.source == "alone"], lambda row: f"{100 * row.fraction:g} %")
    return Section("foretold", "Does discrepancy foretell it?", list(answers.foretold(found, cells, SCORES[JUDGED])), drawn, [
        Grid("From a joint screening of all heads, and from untrained structure", ["base, method", "measure", *early[0]], early[1], hint),
        Grid("From trainings alone, by share of the schedule", ["base, method", "measure", *late[0]], late[1], hint)])


def _correlations(found: pd.DataFrame, place_of: Callable[[Any], str]) -> tuple[list[str], list[list[Any]]]:
    """(headings, rows) with a column for each place of measurement."""
    placed = found.assign(place=[place_of(row) for row in found.itertuples()])
    places, rows = list(placed.place.unique()), []
    for (base, method, measure), its in placed.groupby([*analysis.CELL, "measure"], sort=False):
        of = its.set_index("place")
        rows.append([f"{base}, {method}", measure, *(_number(of, place, "value") for place in places)])
    return places, rows


def _number(rows: pd.DataFrame, place: str, column: str) -> Number:
    return Number.of(*rows.loc[place, [column, "low", "high"]]) if place in rows.index else Number(MISSING)


def _settling(table: pd.DataFrame, cells: list[Cell]) -> Section:
    found = analysis.settling(table, JUDGED)
    plot = panel("settling", "How soon rankings are the final ones", figures.draw_settling(found),
                 "Kendall's tau-b over branches, no head too; means over seeds with 95 % t intervals. Solid lines: the ranking under one "
                 "seed with the final one of the mean over the other seeds, which a proxy is for; at 100 % that is how far whole "
                 "trainings agree. Dotted: with the final ranking under the same seed.", "Nothing has been trained to its end yet.")
    rows = [[f"{row.base}, {row.method}", f"{100 * row.fraction:g} %", row.seeds, Number.of(row.other, row.other_low, row.other_high),
             Number.of(row.same, row.same_low, row.same_high)] for row in found.itertuples()]
    rule = (f"The rule for a proxy's length: the shortest share from which on rankings agree with the final ones of other seeds at least "
            f"{analysis.ENOUGH:g} times as well as whole trainings do. Longer buys little: what is left is the noise of seeds.")
    return Section("settling", "How short may a proxy be?", list(answers.settling(found, cells)), [plot], [
        Grid("Kendall's tau with the final ranking", ["base, method", "share", "seeds", "of other seeds", "of the same seed"], rows, rule,
             names=3)])


def _effects(table: pd.DataFrame, cells: list[Cell]) -> Section:
    found = analysis.effects(table, [*SCORES, "overlap"])
    rows = [[f"{row.base}, {row.method}", row.effect, row.outcome, row.n, Number.of(row.mean_value, row.low, row.high)]
            for row in found.rename(columns={"mean": "mean_value"}).itertuples()]
    return Section("effects", "What do the first shortcut and depth do?", list(answers.effects(found, cells)), [], [
        Grid("Differences at the end of the schedule", ["base, method", "effect", "of", "seeds", "difference"], rows,
             f"{T_INTERVALS} First shortcut: convnext heads of one and of three blocks, without it less with it. Depth: convnext and "
             "transformer heads.", names=4)])


def _of(found: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    return found[(found.base == cell.base.name) & (found.method == cell.method)]
