"""Alignment and uniformity against closed forms, numeric integration, and the authors' code."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.special import hyp0f1
from torch import Tensor

from hssl_search.evaluation import hypersphere
from hssl_search.evaluation.hypersphere import alignment, uniformity

torch.set_num_threads(1)


def normal(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_equal_views_are_aligned_and_opposite_ones_are_not() -> None:
    assert alignment(normal(20, 8).expand(3, 20, 8)) == pytest.approx(0, abs=1e-12)
    assert alignment(torch.stack([normal(20, 8), -normal(20, 8)])) == pytest.approx(4)
    assert alignment(normal(2, 500, 512)) == pytest.approx(2, abs=0.02)


def test_alignment_of_two_views_is_that_of_the_authors() -> None:
    x, y = normal(2, 40, 8)
    authors = (F.normalize(x, dim=1) - F.normalize(y, dim=1)).norm(p=2, dim=1).pow(2).mean()
    assert alignment(torch.stack([x, y])) == pytest.approx(float(authors))


def test_alignment_of_more_views_is_the_mean_over_their_pairs() -> None:
    views = normal(4, 10, 5)
    pairs = [alignment(views[[first, second]]) for first in range(4) for second in range(first)]
    assert alignment(views) == pytest.approx(sum(pairs) / len(pairs))


def test_uniformity_of_one_point_is_zero() -> None:
    assert uniformity(torch.full((30, 5), 0.4)) == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.zeros(30, 5)) == 0


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_of_two_opposite_clusters(t: float) -> None:
    """Of n = 40 points, half at either pole, n/2 - 1 of the n - 1 others are at distance 0."""
    points = torch.cat([torch.eye(3)[:1].repeat(20, 1), -torch.eye(3)[:1].repeat(20, 1)])
    assert uniformity(points, t) == pytest.approx(math.log((19 + 20 * math.exp(-4 * t)) / 39))
    assert uniformity(points[[0, 39]], t) == pytest.approx(-4 * t)


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_of_a_circle_is_an_integral(t: float) -> None:
    """The mean over 200 points at equal angles is that over the circle, less the share of each
    point itself.
    """
    angles = torch.arange(200, dtype=torch.float64) * 2 * math.pi / 200
    whole = quad(lambda angle: math.exp(-t * (2 - 2 * math.cos(angle))), 0, 2 * math.pi)[0] / (
        2 * math.pi
    )
    assert uniformity(torch.stack([angles.cos(), angles.sin()], dim=1), t) == pytest.approx(
        math.log((200 * whole - 1) / 199), rel=1e-9
    )


@pytest.mark.parametrize("width", [3, 64])
def test_uniformity_of_the_sphere(width: int) -> None:
    """E exp(2 t x.y) over independent directions is 0F1(; width / 2; t^2)."""
    assert uniformity(normal(2000, width)) == pytest.approx(
        math.log(hyp0f1(width / 2, 4.0)) - 4, abs=0.02
    )


def test_uniformity_is_that_of_the_authors() -> None:
    x = normal(50, 6)
    assert uniformity(x + 1) == pytest.approx(
        float(torch.pdist(F.normalize(x + 1, dim=1), p=2).pow(2).mul(-2).exp().mean().log())
    )


def test_uniformity_in_chunks_is_that_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = uniformity(normal(70, 6))
    monkeypatch.setattr(hypersphere, "CHUNK", 16)
    assert uniformity(normal(70, 6)) == pytest.approx(whole, rel=1e-12)


def test_rotation_and_lengths_change_neither() -> None:
    views, rotation, lengths = (
        normal(3, 30, 6),
        torch.linalg.qr(normal(6, 6)).Q,
        normal(30, 1).exp(),
    )
    assert alignment(views @ rotation * lengths) == pytest.approx(alignment(views))
    assert uniformity(views[0] @ rotation * lengths) == pytest.approx(uniformity(views[0]))


def test_shared_mean_takes_uniformity_away() -> None:
    assert uniformity(normal(50, 6)) < -2 < -0.1 < uniformity(normal(50, 6) + 100)
