"""Discrepancies of features against their definitions, and where their answer is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from hssl_search.discrepancy.feature import debiased_cka, feature_discrepancy, neighbour_overlap

torch.set_num_threads(1)


def normal(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def rotation(width: int) -> Tensor:
    return torch.linalg.qr(normal(width, width, seed=9))[0]


def unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Return the U-statistic of Song et al. (JMLR 2012, equation 4): means over all tuples of
    different images.
    """
    n = len(k)
    pairs = np.mean([k[i, j] * m[i, j] for i, j in permutations(range(n), 2)])
    fours = np.mean([k[i, j] * m[q, r] for i, j, q, r in permutations(range(n), 4)])
    threes = np.mean([k[i, j] * m[i, q] for i, j, q in permutations(range(n), 3)])
    return float(pairs + fours - 2 * threes)


@pytest.mark.parametrize("count", [4, 7])
def test_cka_is_the_ratio_of_unbiased_hsics(count: int) -> None:
    first, second = normal(count, 3) + 1, normal(count, 5, seed=1)
    second[:, :3] += first
    k, m = (x.double().numpy() @ x.double().numpy().T for x in (first, second))
    expected = unbiased_hsic(k, m) / np.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))
    assert debiased_cka(first, second) == pytest.approx(expected, rel=1e-6)


def test_cka_does_not_change_with_rotation_scale_and_shift() -> None:
    x = normal(60, 16)
    assert debiased_cka(x, x) == pytest.approx(1.0)
    assert debiased_cka(x, 30 * x @ rotation(16) + 100) == pytest.approx(1.0, abs=1e-5)
    assert debiased_cka(x, normal(60, 8, seed=1)) == pytest.approx(
        debiased_cka(normal(60, 8, seed=1), x)
    )


def test_cka_changes_with_linear_maps_that_stretch() -> None:
    x = normal(200, 16)
    stretched = x * torch.logspace(0, 2, 16)
    assert debiased_cka(x, stretched) < 0.7


def test_cka_of_independent_features_is_about_nothing_even_when_they_are_wider_than_many() -> None:
    first, second = normal(100, 800), normal(100, 800, seed=1)
    assert debiased_cka(first, second) == pytest.approx(0.0, abs=0.05)
    centred = [(x - x.mean(dim=0)).numpy() for x in (first, second)]
    cross, *own = (
        np.square(a.T @ b).sum()
        for a, b in ((centred[0], centred[1]), (centred[0], centred[0]), (centred[1], centred[1]))
    )
    assert cross / np.sqrt(own[0] * own[1]) > 0.8  # the biased estimate


def test_cka_falls_with_the_share_of_noise() -> None:
    x = normal(200, 16)
    found = [debiased_cka(x, x + share * normal(200, 16, seed=2)) for share in (0.0, 0.5, 1.0, 4.0)]
    assert found == sorted(found, reverse=True)


def test_cka_of_features_that_are_one_point_is_nothing_and_of_broken_ones_not_a_number() -> None:
    x = normal(20, 4)
    assert debiased_cka(x, torch.ones(20, 4)) == 0.0
    assert np.isnan(debiased_cka(x, x.clone().fill_(float("nan"))))


def test_neighbours_are_those_by_cosine_after_centring() -> None:
    x, y = normal(30, 6) + 3, normal(30, 6, seed=1)
    unit = [(z - z.mean(dim=0)) / (z - z.mean(dim=0)).norm(dim=1, keepdim=True) for z in (x, y)]
    near = [
        [{j for j in np.argsort(-(u @ u[i]).numpy())[:6] if j != i} for u in unit]
        for i in range(30)
    ]
    shared = [len(one & other) / 5 for one, other in near]
    assert neighbour_overlap(x, y, k=5) == pytest.approx(np.mean(shared))


def test_overlap_is_whole_for_equal_features_up_to_rotation_scale_and_shift() -> None:
    x = normal(80, 12)
    assert neighbour_overlap(x, x) == 1.0
    assert neighbour_overlap(x, 7 * x @ rotation(12) + 5) == pytest.approx(1.0, abs=0.01)


def test_overlap_of_independent_features_is_that_of_chance() -> None:
    found = [
        neighbour_overlap(normal(201, 16, seed), normal(201, 16, seed + 50), k=10)
        for seed in range(5)
    ]
    assert np.mean(found) == pytest.approx(10 / 200, abs=0.01)


def test_fewer_images_than_neighbours_have_all_in_common() -> None:
    assert neighbour_overlap(normal(8, 4), normal(8, 4, seed=1), k=10) == 1.0


def test_discrepancy_is_what_is_missing_to_equality() -> None:
    x, y = normal(50, 8), normal(50, 6, seed=1)
    y[:, :6] += x[:, :6]
    assert feature_discrepancy(x, y) == {
        "cka": 1 - debiased_cka(x, y),
        "overlap": 1 - neighbour_overlap(x, y),
    }
    assert feature_discrepancy(x, x) == pytest.approx({"cka": 0.0, "overlap": 0.0})
    assert feature_discrepancy(normal(400, 8), normal(400, 6, seed=1)) == pytest.approx(
        {"cka": 1.0, "overlap": 1.0}, abs=0.05
    )
