"""The two-way model against least squares on indicator columns, Dunnett's table, and searches whose
truth is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import (
    MOST_SEEDS,
    Difference,
    TwoWay,
    critical,
    t_interval,
)

Table = dict[int, dict[int, float]]
Pattern = Mapping[int, Sequence[int]]
"""trial -> its seeds"""
BALANCED: Pattern = {trial: range(4) for trial in range(6)}
UNBALANCED: Pattern = {0: range(4), 1: (0, 1, 3), 2: (0, 2), 3: (0,), 4: (0, 1), 5: (0,)}
FEW: Pattern = {0: (0, 1), 1: (0, 1), 2: (0,), 3: (0,), 4: (0,), 5: (0,)}
TRUTHS = {
    "all equal": [0.0] * 6,
    "a ladder": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5],
    "one good": [0.0, 0.0, 2.0, 0.0, 0.0, 0.0],
}


def drawn(
    truth: Sequence[float],
    pattern: Pattern,
    noise: float,
    random: np.random.Generator,
    step: float = 0.0,
) -> Table:
    seeds = random.normal(40, 3, 1 + max(seed for seeds in pattern.values() for seed in seeds))
    scores = {
        trial: {
            seed: truth[trial] + seeds[seed] + random.normal(0, noise) for seed in pattern[trial]
        }
        for trial in pattern
    }
    return {
        trial: {seed: step * round(score / step) if step else score for seed, score in row.items()}
        for trial, row in scores.items()
    }


def by_least_squares(scores: Table, one: int, other: int) -> tuple[float, float, int]:
    """Return (difference, standard error, degrees of freedom), from a column for each trial and
    each seed but the first."""
    trials, seeds = sorted(scores), sorted({seed for row in scores.values() for seed in row})
    cells = [(trial, seed) for trial in trials for seed in scores[trial]]
    design = np.array(
        [
            [float(trial == each) for each in trials] + [float(seed == each) for each in seeds[1:]]
            for trial, seed in cells
        ]
    )
    values = np.array([scores[trial][seed] for trial, seed in cells])
    found, [misfit], rank, _ = np.linalg.lstsq(design, values, rcond=None)
    contrast = np.array(
        [float(trial == one) - float(trial == other) for trial in trials] + [0.0] * (len(seeds) - 1)
    )
    dof = len(values) - int(rank)
    return (
        contrast @ found,
        math.sqrt(misfit / dof * (contrast @ np.linalg.inv(design.T @ design) @ contrast)),
        dof,
    )


@pytest.mark.parametrize(
    "pattern", [BALANCED, UNBALANCED, FEW], ids=["balanced", "unbalanced", "few"]
)
def test_differences_errors_and_degrees_of_freedom_are_those_of_least_squares(
    pattern: Pattern,
) -> None:
    scores = drawn(TRUTHS["a ladder"], pattern, 0.5, np.random.default_rng(0))
    fit = TwoWay(scores)
    found = fit.against(0)
    assert sorted(found) == [1, 2, 3, 4, 5]
    for trial, difference in found.items():
        assert (difference.mean, difference.error, fit.dof) == pytest.approx(
            by_least_squares(scores, trial, 0)
        )
        assert difference.seeds == len({*pattern[trial]} & {*pattern[0]})


def test_of_two_trials_it_is_the_paired_t_interval() -> None:
    one, other = (np.random.default_rng(1).normal(40 + up, 1, 5).tolist() for up in (1, 0))
    found = TwoWay({3: dict(enumerate(one)), 8: dict(enumerate(other))}).against(8)[3]
    assert found.interval == pytest.approx(
        tuple(stats.ttest_rel(one, other).confidence_interval(0.95))
    )
    assert found.decided == (stats.ttest_rel(one, other).pvalue < 0.05)


@pytest.mark.parametrize(
    ("dof", "table"),
    [
        (5, [2.57, 3.03, 3.29, 3.48, 3.62]),
        (10, [2.23, 2.57, 2.76, 2.89, 2.99]),
        (20, [2.09, 2.38, 2.54, 2.65, 2.73]),
    ],
)
def test_critical_values_are_those_of_dunnetts_table(dof: int, table: list[float]) -> None:
    for count, expected in enumerate(table, start=1):
        assert critical(np.eye(count) + np.ones((count, count)), dof) == pytest.approx(
            expected, rel=0.015
        )


@pytest.mark.parametrize("noise", [0.05, 1.5])
@pytest.mark.parametrize(
    "pattern", [BALANCED, UNBALANCED, FEW], ids=["balanced", "unbalanced", "few"]
)
@pytest.mark.parametrize("truth", TRUTHS.values(), ids=list(TRUTHS))
def test_intervals_of_all_trials_hold_together_nineteen_times_in_twenty(
    truth: list[float], pattern: Pattern, noise: float
) -> None:
    random, held, picked_held, wrong = np.random.default_rng(0), 0, 0, 0
    for _ in range(1_000):
        scores = drawn(truth, pattern, noise, random)
        posterior = Posterior(scores)
        found = posterior.fit.against(0)
        right = {
            trial: abs(gap.mean - (truth[trial] - truth[0])) <= (gap.half or 0)
            for trial, gap in found.items()
        }
        picked = posterior.leader([1, 2, 3, 4, 5])
        assert picked is not None
        held, picked_held = held + all(right.values()), picked_held + right[picked]
        wrong += found[picked].decided and found[picked].mean > 0 >= truth[picked] - truth[0]
    assert stats.binomtest(held, 1_000, 0.95).pvalue > 0.001
    assert stats.binomtest(picked_held, 1_000, 0.95, "less").pvalue > 0.001, (
        "that of the best of five holds as well"
    )
    assert stats.binomtest(wrong, 1_000, 0.04, "greater").pvalue > 0.001, (
        "nothing is called better by chance"
    )


def test_the_t_interval_of_a_mean_is_that_of_scipy_and_needs_two_values() -> None:
    draws = np.random.default_rng(0)
    for count in (2, 3, 5, 30):
        values = draws.normal(40, 2, count)
        low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
        assert t_interval(values.tolist()) == pytest.approx((low, high))
    assert (t_interval([]), t_interval([40.0])) == (None, None)


def test_the_t_interval_of_the_best_of_five_calls_it_better_too_often() -> None:
    random, wrong = np.random.default_rng(0), 0
    for _ in range(1_000):
        scores = np.array(
            [
                list(row.values())
                for row in drawn(TRUTHS["all equal"], BALANCED, 1.0, random).values()
            ]
        )
        gaps = scores[1:] - scores[0]
        wrong += (
            stats.ttest_1samp(gaps[gaps.mean(axis=1).argmax()], 0, alternative="greater").pvalue
            < 0.025
        )
    assert stats.binomtest(wrong, 1_000, 0.04, "greater").pvalue < 0.001


@pytest.mark.parametrize(("seeds", "most"), [(2, 0.60), (3, 0.80), (4, 0.86), (5, 0.90)])
def test_a_percentile_bootstrap_over_few_seeds_holds_too_seldom(seeds: int, most: float) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(1_000, seeds))
    means = values[
        np.arange(1_000)[:, None, None], random.integers(0, seeds, (1_000, 500, seeds))
    ].mean(axis=2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    assert ((low <= 0) & (high >= 0)).mean() < most


def test_gaps_that_are_equal_by_luck_are_not_sure() -> None:
    equal: Table = {0: {0: 40.0, 1: 41.4}, 3: {0: 38.6, 1: 40.0}}
    found = TwoWay(equal, resolution=0.2).against(0)[3]
    assert found.mean == pytest.approx(-1.4)
    assert found.half == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(0.2**2 / 12), rel=0.02)


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_intervals_hold_where_scores_move_in_steps(noise: float) -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(1_000):
        found = TwoWay(drawn(TRUTHS["all equal"], FEW, noise, random, step=0.28), 0.28).against(0)
        held += all(abs(gap.mean) <= (gap.half or 0) for gap in found.values())
    assert stats.binomtest(held, 1_000, 0.95, "less").pvalue > 0.001


def test_without_two_seeds_in_common_nothing_tells_the_noise() -> None:
    fit = TwoWay({0: {0: 40.0, 1: 41.0}, 3: {0: 42.0, 2: 7.0}})
    assert fit.against(0) == {3: Difference(pytest.approx(2.0), None, None, 1)}
    assert (fit.dof, fit.sd, fit.interval_of_mean(0), fit.against(0)[3].interval) == (
        0,
        None,
        None,
        None,
    )
    assert not fit.against(0)[3].decided


def test_trials_that_no_seeds_link_are_not_compared() -> None:
    fit = TwoWay({0: {0: 40.0}, 1: {0: 41.0, 1: 43.0}, 2: {1: 44.0}, 3: {7: 9.0}, 4: {}})
    assert {trial: gap.mean for trial, gap in fit.against(0).items()} == pytest.approx(
        {1: 1.0, 2: 2.0}
    )
    assert (fit.against(0)[2].seeds, fit.against(9), TwoWay({}).against(0)) == (0, {}, {})


def test_the_interval_of_a_mean_is_of_chance_under_its_seeds() -> None:
    scores = drawn(TRUTHS["a ladder"], UNBALANCED, 0.5, np.random.default_rng(2))
    fit = TwoWay(scores)
    assert fit.sd is not None
    middle, half = (
        np.mean(list(scores[1].values())),
        stats.t.ppf(0.975, fit.dof) * fit.sd / math.sqrt(3),
    )
    assert fit.interval_of_mean(1) == pytest.approx((middle - half, middle + half))


def test_as_many_more_seeds_as_it_says_settle_a_difference_that_stays() -> None:
    def table(seeds: int) -> Table:
        """Return scores: the gaps' mean is 0.5 and their standard deviation 0.8, whatever their
        number."""
        spread = np.linspace(-1, 1, seeds)
        return {
            0: dict.fromkeys(range(seeds), 40.0),
            1: dict(enumerate(40.5 + 0.8 * spread / spread.std(ddof=1))),
        }

    fit = TwoWay(table(4))
    found = fit.against(0)[1]
    more = fit.seeds_to_settle(found, abs(found.mean))
    assert not found.decided and more is not None
    assert [TwoWay(table(4 + more + change)).against(0)[1].decided for change in (-2, 0)] == [
        False,
        True,
    ]


def test_a_difference_near_zero_is_not_to_be_settled() -> None:
    fit = TwoWay({0: {0: 40.0, 1: 41.0}, 1: {0: 39.0, 1: 42.1}})
    gap = fit.against(0)[1]
    assert fit.seeds_to_settle(gap, abs(gap.mean)) is None
    assert MOST_SEEDS >= 100


@pytest.mark.parametrize(("gap", "sign"), [(3.0, 1), (-3.0, -1), (1.0, 0)])
def test_beyond_doubt_asks_more_than_a_verdict(gap: float, sign: int) -> None:
    scores = drawn([0.0, gap, 0.0, 0.0, 0.0, 0.0], BALANCED, 0.3, np.random.default_rng(0))
    fit = TwoWay(scores)
    assert fit.sign_beyond_doubt(1, 0) == sign
    assert fit.against(0)[1].decided
    assert (
        fit.sign_beyond_doubt(1, 9)
        == TwoWay({0: {0: 1.0}, 1: {0: 9.0}}).sign_beyond_doubt(1, 0)
        == 0
    )
