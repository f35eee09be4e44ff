"""What goes with a parameter among heads of one family: the within-family slope, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from hssl_search.reporting.formats import known, plural
from hssl_search.search.inference import CONFIDENCE

LEAST_FREEDOM = 3
"""Residual degrees of freedom that an interval takes at least: 5 heads of one family, or 6 of two."""
LEAST_ON_A_SIDE = 2
"""Heads that must lie above, and below, the mean of their family: the slope through a single one is that head's own luck."""


@dataclass(frozen=True)
class Effect:
    """How much a value differs for one step of a parameter, at 95 % between `low` and `high`; all None where too few heads differ.

    `heads` of `families` have company in their family that differs from them; the rarer side of their family's mean holds `rarer` heads.
    """

    slope: float | None
    low: float | None
    high: float | None
    heads: int
    families: int
    rarer: int

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return known(self.low) and known(self.high) and not self.low <= 0 <= self.high

    def counted(self) -> str:
        """`17 heads of 3 families`."""
        return f"{plural(self.heads, 'head')} of {self.families} {'family' if self.families == 1 else 'families'}"

    def too_few(self) -> str:
        """Why there is no slope; empty where there is one."""
        if self.slope is not None:
            return ""
        if not self.heads:
            return "no two heads of one family differ in this"
        if self.rarer < LEAST_ON_A_SIDE and self.heads - self.families - 1 >= LEAST_FREEDOM:
            return f"only {self.rarer} of {self.counted()} stands apart from the others in this"
        return f"only {self.counted()} differ in this"


def within_family(amount: pd.Series, value: pd.Series, family: pd.Series, most: float = math.inf) -> Effect:
    """Least-squares slope of `value` on `amount` with a mean of its own for each family, and its Student's t interval.

    Both are centred by family and then regressed (Frisch and Waugh, Econometrica 1933): with x and y so centred over n heads of F
    families, slope = sum(x y) / sum(x^2) and its variance sum((y - slope x)^2) / (n - F - 1) / sum(x^2). Where `amount` has two values
    this is the mean over families of the difference between them, each family weighted by n_1 n_2 / (n_1 + n_2). Heads without a
    value, and families whose heads are all alike in `amount`, tell nothing and are left out.

    The interval takes the spread to be the same in all families. It is the t interval and not a bootstrap, which resamples too few
    heads of a family to know their spread. Other parameters are not held fixed.

    Args:
        amount, value, family: one entry a head, with a common index.
        most: how far apart two values can be; the interval goes no further.
    """
    heads = pd.DataFrame({"amount": amount, "value": value, "family": family}).dropna()
    heads = heads[heads.groupby("family")["amount"].transform("nunique") > 1]
    centred = heads[["amount", "value"]].astype(float)
    centred -= centred.groupby(heads["family"]).transform("mean")
    x, y = centred["amount"], centred["value"]
    rarer = int(min((x > 1e-9).sum(), (x < -1e-9).sum()))
    number, families = len(heads), heads["family"].nunique()
    if rarer < LEAST_ON_A_SIDE or number - families - 1 < LEAST_FREEDOM:
        return Effect(None, None, None, number, families, rarer)
    slope = float((x * y).sum() / (x**2).sum())
    half = _half_width(x, y - slope * x, number - families - 1)
    return Effect(slope, max(-most, slope - half), min(most, slope + half), number, families, rarer)


def _half_width(x: pd.Series, residual: pd.Series, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, freedom)) * math.sqrt(float((residual**2).sum() / freedom / (x**2).sum()))
