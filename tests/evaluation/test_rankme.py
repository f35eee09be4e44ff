"""RankMe against closed forms and the paper's formula by a singular value decomposition in
NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hssl_search.evaluation.rankme import rankme

torch.set_num_threads(1)


def correlated(count: int, width: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, width, generator=generator)
        @ torch.randn(width, width, generator=generator)
        + shift
    )


def transcription(embeddings: Tensor) -> float:
    sigma = np.linalg.svd(embeddings.numpy().astype(np.float64), compute_uv=False)
    p = sigma / np.abs(sigma).sum() + 1e-7
    return float(np.exp(-np.sum(p * np.log(p))))


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_equal_orthogonal_directions_are_counted(directions: int) -> None:
    assert rankme(torch.eye(8)[torch.arange(24 * directions) % directions] * 5) == pytest.approx(
        directions, rel=1e-4
    )


def test_embeddings_that_are_one_point_fill_one_direction() -> None:
    assert rankme(torch.full((40, 16), 0.3)) == pytest.approx(1, rel=1e-4)
    assert rankme(torch.zeros(40, 16)) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    "embeddings", [correlated(200, 30), correlated(30, 200), correlated(100, 12, shift=20.0)]
)
def test_value_is_that_of_the_formula(embeddings: Tensor) -> None:
    assert rankme(embeddings) == pytest.approx(transcription(embeddings), rel=1e-6)


def test_rotation_and_scale_change_nothing() -> None:
    embeddings = correlated(200, 30)
    rotation = torch.linalg.qr(correlated(30, 30)).Q
    assert rankme(embeddings @ rotation) == pytest.approx(rankme(embeddings), rel=1e-5)
    assert rankme(embeddings * 1e-4) == pytest.approx(rankme(embeddings), rel=1e-5)


def test_shared_mean_counts_as_a_direction() -> None:
    """Uncentred, as in the paper: a mean that outweighs the rest hides it."""
    assert rankme(correlated(200, 30, shift=1e4)) < 1.2 < 5 < rankme(correlated(200, 30))
