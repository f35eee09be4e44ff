"""How far scores differ, and how sure that is: least squares for score = trial + seed + noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np

from hssl_search.engine.statistics import CONFIDENCE, ties

Scores = Mapping[int, Mapping[int, float]]
"""trial -> seed -> score at full proxy fidelity."""
DRAWS = 40_000
"""Simulated tables for a critical value: its own error is then below 2 %."""
MOST_NUMBERS = 20_000_000
"""To draw at once: of very many trials there are fewer draws."""
MOST_SEEDS = 100
"""More seeds than this are not said to settle anything."""
PAIRED = 2
"""Seeds that two trials must share before their difference is given an interval."""
BEYOND_DOUBT = 0.999
"""Confidence at which one need not continue. Who looks after every result whether 95 % are reached
will reach them by luck too often; at this level looking costs next to nothing (Haybittle 1971, Peto
et al. 1976)."""


@dataclass(frozen=True)
class Difference:
    """One trial minus another; where both have the same seeds, the mean of the gaps by seed."""

    mean: float
    error: float | None
    """Its standard error; None where nothing tells the noise."""
    half: float | None
    """Half the width of its interval."""
    seeds: int
    """That both have."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the ends of its interval; None where nothing tells the noise."""
        return None if self.half is None else (self.mean - self.half, self.mean + self.half)

    @property
    def decided(self) -> bool:
        """Return whether the interval is on one side of zero."""
        return self.half is not None and abs(self.mean) > self.half

    @property
    def paired(self) -> Difference:
        """Return the difference without an interval where too few seeds are shared: then other
        trials alone tell the noise."""
        return self if self.seeds >= PAIRED else replace(self, error=None, half=None)


class _Contrasts(NamedTuple):
    """Trials less another one, of those that seeds link with it."""

    trials: list[int]
    means: np.ndarray
    covariance: np.ndarray
    """In units of the noise's variance."""


class TwoWay:
    """The two-way model, fitted to a table in which any trial may have any seeds.

    A seed makes all trials better or worse alike (same weights of the base, same images in the same
    order), so that it drops out of differences. The noise is taken to be as large for one trial as
    for another, and all that share two seeds tell it together.

    Args:
        resolution: step in which scores move. Gaps that are equal by luck would say that there is
            no noise; so the variance of rounding to such steps, resolution^2 / 12, is added to what
            they say. At least what rounding of floats leaves (`ties.tolerance`).
    """

    def __init__(self, scores: Scores, resolution: float = 0.0) -> None:
        self.trials = sorted(trial for trial, by_seed in scores.items() if by_seed)
        seeds = sorted({seed for trial in self.trials for seed in scores[trial]})
        shape = len(self.trials), len(seeds)
        self.has = np.array(
            [[seed in scores[trial] for seed in seeds] for trial in self.trials], dtype=float
        ).reshape(shape)
        values = np.array(
            [[scores[trial].get(seed, 0.0) for seed in seeds] for trial in self.trials]
        ).reshape(shape)
        per_seed, per_trial = self.has.sum(axis=0), self.has.sum(axis=1)
        self.means = values.sum(axis=1) / per_trial
        centred = self.has * (values - values.sum(axis=0) / per_seed)
        self.rounded = ties.tolerance(values.flat)
        """What the rounding of floats may come to, amply."""
        self.resolution = max(resolution, self.rounded)
        self.gram = np.diag(per_trial) - (self.has / per_seed) @ self.has.T
        """T x T: of the trials' indicator columns, each less its mean over a seed."""
        self.sums, self.total = centred.sum(axis=1), float((centred**2).sum())
        # Singular: an effect common to all linked trials cannot be told from the seeds'.
        self.inverse = np.linalg.pinv(self.gram, rcond=1e-9, hermitian=True)
        self.effects = self.inverse @ self.sums
        self.seedless = int(self.has.sum()) - len(seeds)
        """Scores less seeds."""
        self.dof = self.seedless - round(float(np.trace(self.inverse @ self.gram)))
        """Degrees of freedom of the noise: 0 where no two trials share two seeds."""
        self.rounding = self.resolution**2 / 12
        fitted = self.effects[:, None] - self.has.T @ self.effects / per_seed
        # Summed up from the residuals: the difference of two sums of squares would be noise where
        # the fit is close.
        self._misfit = float(((centred - self.has * fitted) ** 2).sum())

    @property
    def sd(self) -> float | None:
        """Return the standard deviation of the noise of one score; None where nothing tells it."""
        return math.sqrt(self._misfit / self.dof + self.rounding) if self.dof else None

    def interval_of_mean(self, trial: int) -> tuple[float, float] | None:
        """Return the interval of a trial's mean over its seeds, as far as chance under these seeds
        goes; None where nothing tells the noise."""
        if self.sd is None or trial not in self.trials:
            return None
        place = self.trials.index(trial)
        half = self.sd * _student(CONFIDENCE, self.dof) / math.sqrt(self.has[place].sum())
        return float(self.means[place] - half), float(self.means[place] + half)

    def against(self, other: int) -> dict[int, Difference]:
        """Return the difference to `other` of every trial that can be compared with it, with
        simultaneous intervals: with probability `CONFIDENCE` all hold together, and so does that of
        the trial which the same scores made one pick (Dunnett 1955; here for any pattern of seeds).

        Where earlier scores decided who got more seeds, only that of the pick does: those who had
        bad luck at first kept it.
        """
        trials, means, covariance = self._contrasts(other)
        if not trials:
            return {}
        common = dict(zip(self.trials, self.has @ self.has[self.trials.index(other)], strict=True))
        if self.sd is None:
            return {
                trial: Difference(float(mean), None, None, int(common[trial]))
                for trial, mean in zip(trials, means, strict=True)
            }
        errors = self.sd * np.sqrt(np.diag(covariance))
        halves = errors * critical(covariance, self.dof)
        return {
            trial: Difference(float(mean), float(error), float(half), int(common[trial]))
            for trial, mean, error, half in zip(trials, means, errors, halves, strict=True)
        }

    def sign_beyond_doubt(self, trial: int, other: int) -> int:
        """Return 1 or -1 where `trial` is better or worse than `other` at a level at which one need
        not continue, all that are compared with `other` allowed for (Bonferroni); else 0."""
        trials, means, covariance = self._contrasts(other)
        if self.sd is None or trial not in trials:
            return 0
        place = trials.index(trial)
        reached = means[place] / (self.sd * math.sqrt(covariance[place, place]))
        beyond_doubt = _student(1 - (1 - BEYOND_DOUBT) / len(trials), self.dof)
        return int(np.sign(reached)) if abs(reached) > beyond_doubt else 0

    def seeds_to_settle(self, gap: Difference, within: float) -> int | None:
        """Return how many more seeds of both would narrow a difference's interval enough, should
        the noise stay what it is; None for more than `MOST_SEEDS`.

        Args:
            within: what half the interval has to fall below: the difference itself, to set it off
                from zero.
        """
        from scipy.stats import t

        assert gap.error is not None and gap.half is not None and self.sd is not None, (
            "nothing tells the noise"
        )
        level, worth = t.sf(gap.half / gap.error, self.dof), 2 * (self.sd / gap.error) ** 2
        more = np.arange(1, MOST_SEEDS + 1)
        halves = t.isf(level, self.dof + more) * self.sd * np.sqrt(2 / (worth + more))
        enough = more[halves < within]
        return int(enough[0]) if len(enough) else None

    def _contrasts(self, other: int) -> _Contrasts:
        """Return the effects of trials less that of `other`, as far as seeds link them."""
        if other not in self.trials:
            return _Contrasts([], np.empty(0), np.empty((0, 0)))
        place, one_each = self.trials.index(other), np.eye(len(self.trials))
        contrasts = one_each - one_each[place]
        # What seeds do not link is not its own projection onto what the table can tell.
        linked = np.abs(contrasts @ self.inverse @ self.gram - contrasts).max(axis=1) < 1e-6
        linked[place] = False
        contrasts = contrasts[linked]
        return _Contrasts(
            [trial for trial, is_linked in zip(self.trials, linked, strict=True) if is_linked],
            contrasts @ self.effects,
            contrasts @ self.inverse @ contrasts.T,
        )


def ranked(scores: Scores, resolution: float = 0.0) -> list[int]:
    """Return the trials that have scores by their means over seeds, the best first, of those that
    tie the lowest number first.

    Args:
        resolution: step in which scores move; a mean over n seeds moves in 1 / n of it.
    """
    means = {trial: mean(by_seed.values()) for trial, by_seed in scores.items() if by_seed}
    return ties.rank(means, resolution / max([1, *map(len, scores.values())]))


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's t interval of the mean of values that have nothing in common; None for fewer
    than two."""
    if len(values) < 2:
        return None
    half = _student(CONFIDENCE, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def critical(covariance: np.ndarray, dof: int) -> float:
    """Return the c with P(max |z_i / s| <= c) = `CONFIDENCE`, for z normal with the correlations of
    `covariance`, and s^2 chi-square / dof.

    Student's for one; by simulation, always with the same draws, for several.
    """
    if len(covariance) == 1:
        return _student(CONFIDENCE, dof)
    spread = np.sqrt(np.diag(covariance))
    # In one order and rounded, so that the same table has the same draws on every machine.
    order = np.lexsort((spread.round(9),))
    correlation = (covariance / np.outer(spread, spread))[np.ix_(order, order)]
    return _critical(correlation.round(9).tobytes(), len(spread), dof)


@lru_cache(maxsize=4096)
def _critical(correlation: bytes, count: int, dof: int) -> float:
    values, vectors = np.linalg.eigh(np.frombuffer(correlation).reshape(count, count))
    draws = min(DRAWS, MOST_NUMBERS // count)
    # The symmetric root: of equal eigenvalues every library returns other vectors, and with them
    # the draws would be others.
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    normal = np.random.default_rng(0).standard_normal((draws, count)) @ root
    return float(np.quantile(np.abs(normal).max(axis=1) / _scales(dof, draws), CONFIDENCE))


@lru_cache(maxsize=256)
def _scales(dof: int, draws: int) -> np.ndarray:
    """Return evenly spread draws of sqrt(chi-square / dof)."""
    from scipy.stats import chi2

    return np.sqrt(chi2.ppf((np.arange(draws) + 0.5) / draws, dof) / dof)


@lru_cache(maxsize=4096)
def _student(confidence: float, dof: int) -> float:
    from scipy.stats import t

    return float(t.isf((1 - confidence) / 2, dof))
