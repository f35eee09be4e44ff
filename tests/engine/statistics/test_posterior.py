"""Probabilities of being best on populations whose truth is known, and who leads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hssl_search.engine.statistics.posterior import Posterior

Table = dict[int, dict[int, float]]


def population(random: np.random.Generator, seeds: int) -> tuple[np.ndarray, Table]:
    """Return (truth, table) of six trials of which three have further seeds, the spread of trials
    drawn from the prior."""
    share = random.uniform()
    truth = random.normal(0, math.sqrt((1 - share) / share), 6)
    shared = random.normal(40, 3, seeds)
    return truth, {
        trial: {
            seed: truth[trial] + shared[seed] + random.normal()
            for seed in range(seeds if trial < 3 else 1)
        }
        for trial in range(6)
    }


@pytest.mark.parametrize("seeds", [2, 4])
def test_what_is_called_probable_is_true_as_often(seeds: int) -> None:
    random, told, true = np.random.default_rng(seeds), [], []
    for _ in range(1_000):
        truth, scores = population(random, seeds)
        told += Posterior(scores).best(draws=1_000).values()
        true += [trial == truth.argmax() for trial in range(6)]
    bins = np.digitize(told, [0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95])
    counts = np.bincount(bins, minlength=8)
    assert (counts >= 50).sum() >= 6
    for each in np.flatnonzero(counts >= 50):
        count, hits = int(counts[each]), int(np.array(true)[bins == each].sum())
        assert (
            stats.binomtest(hits, count, float(np.array(told)[bins == each].mean())).pvalue > 0.001
        )


def test_pairs_are_calibrated_too_though_the_trial_was_picked_for_leading() -> None:
    random, told, true = np.random.default_rng(1), [], []
    for _ in range(2_000):
        truth, scores = population(random, 3)
        posterior = Posterior(scores)
        leader = posterior.leader(range(6))
        assert leader is not None
        for trial, chance in posterior.above(leader).items():
            told.append(chance)
            true.append(truth[trial] > truth[leader])
    bins = np.digitize(told, [0.02, 0.1, 0.2, 0.3, 0.4])
    for each in range(6):
        inside = bins == each
        assert np.array(true)[inside].mean() == pytest.approx(
            np.array(told)[inside].mean(), abs=0.03
        )


def test_simulated_and_closed_probabilities_of_two_agree() -> None:
    posterior = Posterior({0: {0: 40.0, 1: 41.0, 2: 40.2}, 1: {0: 40.6, 1: 41.1, 2: 41.1}})
    assert posterior.best()[1] == pytest.approx(posterior.above(0)[1], abs=0.01)
    assert posterior.above(0)[1] == pytest.approx(1 - posterior.above(1)[0])
    assert 0.6 < posterior.above(0)[1] < 0.99


def test_of_trials_that_are_all_alike_each_is_the_best_as_probably() -> None:
    posterior = Posterior({trial: {0: 40.0, 1: 41.0} for trial in range(5)}, resolution=0.1)
    assert posterior.best() == pytest.approx(dict.fromkeys(range(5), 0.2), abs=0.02)
    assert Posterior({trial: {0: 40.0} for trial in range(3)}).above(0) == pytest.approx(
        {1: 0.5, 2: 0.5}
    )


def test_the_leader_has_the_highest_mean_of_equal_seeds_and_the_lower_number_on_a_tie() -> None:
    assert (
        Posterior({7: {0: 45.0}, 4: {0: 45.0}, 9: {0: 44.0}, 1: {0: 99.0}}).leader([9, 7, 4]) == 4
    )
    assert Posterior({7: {0: 45.0, 1: 44.0}, 4: {0: 44.0, 1: 46.0}}).leader([7, 4]) == 4
    assert Posterior({7: {0: 45.0}}).leader([3]) is None
    assert Posterior({}).leader([3]) is None


def test_a_lucky_first_seed_does_not_overtake_what_was_confirmed() -> None:
    noisy = {
        0: {0: 40.0, 1: 41.0, 2: 39.0},
        1: {0: 41.5, 1: 39.6, 2: 41.9},
        2: {0: 41.2, 1: 42.6, 2: 41.3},
        3: {0: 41.8},
    }
    assert max(noisy, key=lambda trial: noisy[trial][0]) == 3
    assert Posterior(noisy).leader(list(noisy)) == 2


def test_where_noise_is_small_one_seed_is_enough_to_lead() -> None:
    sharp = {0: {0: 40.0, 1: 41.0}, 1: {0: 41.0, 1: 42.01}, 2: {0: 44.0}}
    assert Posterior(sharp).leader(list(sharp)) == 2
    assert Posterior(sharp).best()[2] > 0.8
