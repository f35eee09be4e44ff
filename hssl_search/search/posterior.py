"""Which trial is the best, and how probable that is."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from statistics import mean

import numpy as np

from hssl_search.search.inference import Scores, TwoWay

RATIOS = np.exp(np.arange(-5.0, 10.5, 0.5))
"""Variance of trials over that of noise."""
PRIOR = RATIOS / (1 + RATIOS) ** 2
"""The share of noise in a single score's variance is uniform (Daniels 1999), on the logarithmic scale of RATIOS."""
DRAWS = 20_000


class Posterior:
    """What a table says of its trials' effects, which come from one normal population of unknown spread, controls too.

    score = trial + seed + noise as in `TwoWay`, seeds flat, noise 1 / variance. So a trial with few seeds is drawn to the middle, the
    more so the less trials differ beside noise: the best of many on one seed is not taken at its word, and however runs were chosen by
    what had been seen, it needs no correction. Integrated over `RATIOS` in closed form; for a table that tells the noise.
    """

    def __init__(self, fit: TwoWay) -> None:
        assert fit.dof, "nothing tells the noise"
        self.trials, self.dof = fit.trials, fit.seedless
        values, self._axes = np.linalg.eigh(fit.gram)
        projected = self._axes.T @ fit.sums
        self._variances = 1 / (values + 1 / RATIOS[:, None])
        """R x T, along the axes, in units of the noise's variance."""
        means = projected * self._variances
        misfit = np.maximum(fit.total - means @ projected, 0.0) + fit.dof * fit.rounding
        evidence = np.log(PRIOR) - 0.5 * np.log1p(RATIOS[:, None] * values.clip(0)).sum(axis=1) - 0.5 * self.dof * np.log(misfit)
        self.weights = np.exp(evidence - evidence.max())
        self.weights /= self.weights.sum()
        self.means, self._noise = means @ self._axes.T, misfit / self.dof

    @cached_property
    def expected(self) -> dict[int, float]:
        """Trial -> its expected effect; their differences count."""
        return dict(zip(self.trials, (self.weights @ self.means).tolist(), strict=True))

    def above(self, one: int, other: int) -> float:
        """Probability that one trial is better than another."""
        from scipy.stats import t

        first, second = (self.trials.index(trial) for trial in (one, other))
        spread = ((self._axes[first] - self._axes[second]) ** 2 * self._variances).sum(axis=1) * self._noise
        return float(self.weights @ t.cdf((self.means[:, first] - self.means[:, second]) / np.sqrt(spread), self.dof))

    def best(self, draws: int = DRAWS) -> dict[int, float]:
        """Trial -> probability that none is better; by simulation, always with the same draws."""
        random = np.random.default_rng(0)
        ratio = random.choice(len(RATIOS), draws, p=self.weights)
        noise = self._noise[ratio] * self.dof / random.chisquare(self.dof, draws)
        along = random.standard_normal((draws, len(self.trials))) * np.sqrt(self._variances[ratio] * noise[:, None])
        won = np.bincount((self.means[ratio] + along @ self._axes.T).argmax(axis=1), minlength=len(self.trials))
        return dict(zip(self.trials, (won / draws).tolist(), strict=True))


def best(scores: Scores, among: Collection[int], resolution: float = 0.0) -> int | None:
    """The trial of `among` that is expected to be the best; the lower number on a tie.

    As long as nothing tells the noise, that of the highest mean over its seeds among those with the most seeds: one that was never
    confirmed cannot overtake one that was.
    """
    scored = [trial for trial in among if scores.get(trial)]
    fit = TwoWay(scores, resolution)
    if fit.dof:
        expected = Posterior(fit).expected
        return min(scored, key=lambda trial: (-expected[trial], trial), default=None)
    most = max((len(scores[trial]) for trial in scored), default=0)
    confirmed = [trial for trial in scored if len(scores[trial]) == most]
    return min(confirmed, key=lambda trial: (-mean(scores[trial].values()), trial), default=None)
