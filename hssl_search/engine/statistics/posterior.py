"""Which trial is the best, and how probable that is."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np

from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.two_way import MOST_NUMBERS, Scores, TwoWay

RATIOS = np.exp(np.arange(-5.0, 10.5, 0.5))
"""Variance of trials over that of noise."""
PRIOR = RATIOS / (1 + RATIOS) ** 2
"""The share of a score's variance which is noise is uniform (Daniels 1999); as density on the
logarithmic scale of `RATIOS`."""
DRAWS = 20_000


class Posterior:
    """What a table says of its trials, controls too, if their effects come from one normal
    population of unknown spread.

    The model is that of `TwoWay`, with flat seeds and 1 / variance for the noise. A trial with few
    seeds is drawn to the middle, the more so the less trials differ beside noise: the best of many
    on one seed is not taken at its word. Whichever way runs were chosen by what had been seen, it
    needs no correction. Closed form for each of `RATIOS`, then their mixture.
    """

    def __init__(self, scores: Scores, resolution: float = 0.0) -> None:
        self.fit = fit = TwoWay(scores, resolution)
        self.trials, self.dof = fit.trials, max(1, fit.seedless)
        values, self._axes = np.linalg.eigh(fit.gram)
        projected = self._axes.T @ fit.sums
        self._variances = 1 / (values + 1 / RATIOS[:, None])
        """R x T, along the axes, in units of the noise's variance."""
        # Along these axes the effects are independent, for any ratio of the two variances.
        means = projected * self._variances
        misfit = np.maximum(
            fit.total - means @ projected + self.dof * fit.rounding, np.finfo(float).tiny
        )
        evidence = (
            np.log(PRIOR)
            - 0.5 * np.log1p(RATIOS[:, None] * values.clip(0)).sum(axis=1)
            - 0.5 * self.dof * np.log(misfit)
        )
        # The largest first taken off: evidences are too far apart for floats.
        self.weights = np.exp(evidence - evidence.max())
        self.weights /= self.weights.sum()
        self.means, self.noise = means @ self._axes.T, misfit / self.dof
        self._values = values

    @cached_property
    def expected(self) -> dict[int, float]:
        """Return trial -> its expected effect; their differences count."""
        return dict(zip(self.trials, (self.weights @ self.means).tolist(), strict=True))

    def leader(self, among: Collection[int]) -> int | None:
        """Return that of these trials which is expected to be the best, the lowest number on a tie;
        None when none has a score."""
        scored = {trial: self.expected[trial] for trial in among if trial in self.expected}
        return ties.best(scored, self._step(scored)) if scored else None

    def _step(self, among: Collection[int]) -> float:
        """Return the resolution of expected effects: by how much they differ where means over seeds
        differ by one step.

        The mean of n seeds moves in 1 / n of the resolution of scores, and what is expected by
        less, for it is drawn to the middle.
        """
        places = [self.trials.index(trial) for trial in among]
        axes, drawn = self._axes[places], self.weights @ (self._variances * self._values)
        kept = (axes**2 @ drawn)[:, None] - (axes * drawn) @ axes.T  # of a difference, by pair
        least = float(kept[~np.eye(len(places), dtype=bool)].min(initial=1.0))
        return max(
            self.fit.rounded,
            least * self.fit.resolution / float(self.fit.has[places].sum(axis=1).max()),
        )

    def above(self, trial: int) -> dict[int, float]:
        """Return every other trial -> probability that it is better than this one."""
        from scipy.special import stdtr

        place = self.trials.index(trial)
        spread = ((self._axes - self._axes[place]) ** 2 @ self._variances.T).T * self.noise[:, None]
        gaps = (self.means - self.means[:, [place]]) / np.sqrt(
            np.maximum(spread, np.finfo(float).tiny)
        )
        return {
            each: chance
            for each, chance in zip(
                self.trials, (self.weights @ stdtr(self.dof, gaps)).tolist(), strict=True
            )
            if each != trial
        }

    def best(self, draws: int = DRAWS) -> dict[int, float]:
        """Return trial -> probability that none is better; by simulation, always with the same
        draws."""
        random, draws = np.random.default_rng(0), min(draws, MOST_NUMBERS // len(self.trials))
        ratio = random.choice(len(RATIOS), draws, p=self.weights)
        noise = self.noise[ratio] * self.dof / random.chisquare(self.dof, draws)
        # Turned into the axes first, so that it is the same whichever axes a library returns for
        # equal eigenvalues.
        along = (
            random.standard_normal((draws, len(self.trials)))
            @ self._axes
            * np.sqrt(self._variances[ratio] * noise[:, None])
        )
        won = np.bincount(
            (self.means[ratio] + along @ self._axes.T).argmax(axis=1), minlength=len(self.trials)
        )
        return dict(zip(self.trials, (won / draws).tolist(), strict=True))
