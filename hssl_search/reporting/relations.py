"""The parts of the report page that tell what goes with what, as plain values for its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hssl_search.engine.statistics.correlation import LEAST, RankCorrelation
from hssl_search.engine.statistics.metrics import Measure
from hssl_search.reporting.agreement import Agreement
from hssl_search.reporting.formats import number, signed, signed_interval

Plain = dict[str, Any]


def value_rows(values: pd.DataFrame) -> list[Plain]:
    """Return the rows of `tables.parameter_values`, their means as texts."""
    digits = {"discrepancy": 3, "discrepancy_without": 3, "accuracy": 1, "accuracy_without": 1}
    return [
        {**row, **{name: number(row[name], places) for name, places in digits.items()}}
        for row in values.to_dict("records")
    ]


def agreement_rows(found: Sequence[Agreement]) -> list[Plain]:
    """A row a measure; no correlation where there are too few points for one that means anything."""
    return [_agreement_row(one, "accuracy") for one in found]


def promotion_rows(promotion: Mapping[str, Any]) -> list[Plain]:
    """What foretold the scores of the promoted heads' proxies, a row each; none before there are proxies."""
    names = {
        "forecast": "forecast from screening, each proxy left out in turn",
        "discrepancy": "discrepancy, the paper's rule",
    }
    measures = {key: Measure(key, name) for key, name in names.items() if key in promotion}
    return [
        _agreement_row(Agreement(measure, RankCorrelation(**promotion[key])), "the score")
        for key, measure in measures.items()
    ]


def _agreement_row(one: Agreement, of: str) -> Plain:
    return {
        "name": one.measure.name,
        "good": one.measure.good,
        "correlation": signed(one.correlation.value if one.correlation.n >= LEAST else None, 2),
        "between": signed_interval(one.correlation.low, one.correlation.high, 2),
        "n": one.correlation.n,
        "words": one.words(of),
    }
