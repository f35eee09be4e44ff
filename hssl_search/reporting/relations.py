"""The parts of the report page that tell what goes with what, as plain values for its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hssl_search.reporting.agreement import Agreement
from hssl_search.reporting.formats import number, signed, signed_interval
from hssl_search.reporting.ways import LevelMean, WayFound
from hssl_search.reporting.within import Effect
from hssl_search.search.correlation import LEAST, RankCorrelation
from hssl_search.search.measures import Measure

Plain = dict[str, Any]


def way_rows(found: Sequence[WayFound]) -> list[Plain]:
    """Each way with its sentence and a row for each of its levels."""
    return [
        {
            "title": one.way.title,
            "sentence": one.sentence(),
            "levels": [
                {
                    "name": level.name,
                    "gated_out": level.gated_out,
                    "discrepancy": _outcome(level.discrepancy, 3),
                    "accuracy": _outcome(level.accuracy, 1),
                }
                for level in one.levels
            ],
        }
        for one in found
    ]


def _outcome(outcome: LevelMean, digits: int) -> Plain:
    effect = outcome.against
    return {
        "heads": outcome.heads,
        "mean": number(outcome.mean, digits),
        "against": signed(effect.slope, digits),
        "between": signed_interval(effect.low, effect.high, digits),
        "sign": _sign(effect),
    }


def _sign(effect: Effect) -> str:
    """`up` or `down` where the interval excludes zero."""
    return ("up" if (effect.slope or 0) > 0 else "down") if effect.clear else ""


def agreement_rows(found: Sequence[Agreement]) -> list[Plain]:
    """A row a measure; no correlation where there are too few points for one that means anything."""
    return [_agreement_row(one, "accuracy") for one in found]


def promotion_rows(promotion: Mapping[str, Any]) -> list[Plain]:
    """What foretold the scores of the promoted heads' proxies, a row each; none before there are proxies."""
    names = {"forecast": "forecast from screening, each proxy left out in turn", "discrepancy": "discrepancy, the paper's rule"}
    measures = {key: Measure(key, name) for key, name in names.items() if key in promotion}
    return [_agreement_row(Agreement(measure, RankCorrelation(**promotion[key])), "the score") for key, measure in measures.items()]


def _agreement_row(one: Agreement, of: str) -> Plain:
    return {
        "name": one.measure.name,
        "good": one.measure.good,
        "correlation": signed(one.correlation.value if one.correlation.n >= LEAST else None, 2),
        "between": signed_interval(one.correlation.low, one.correlation.high, 2),
        "n": one.correlation.n,
        "words": one.words(of),
    }
