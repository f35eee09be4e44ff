"""LiDAR against designs whose covariances are known exactly, scikit-learn's discriminant analysis,
and the formula in NumPy.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from hssl_search.evaluation.lidar import lidar
from hssl_search.evaluation.rankme import rankme

torch.set_num_threads(1)


def design(between: Tensor, within: Tensor) -> Tensor:
    """Return views of images at +- between_d along each axis, which lie at +- within_d along each
    axis around them: S_w is diagonal.
    """
    means = torch.cat([torch.diag(between), -torch.diag(between)])
    around = torch.cat([torch.diag(within), -torch.diag(within)])
    return around[:, None] + means


def gaussian(images: int, width: int, views: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(width, width, generator=generator)
    means, noise = (
        torch.randn(images, width, generator=generator) @ mixed,
        torch.randn(views, images, width, generator=generator),
    )
    return scale * (means + noise @ torch.randn(width, width, generator=generator) + 2)


def count(eigenvalues: np.ndarray) -> float:
    p = eigenvalues / eigenvalues.sum() + 1e-7
    return float(np.exp(-np.sum(p * np.log(p))))


def transcription(views: Tensor, delta: float) -> float:
    e = views.numpy().astype(np.float64)
    q, n, width = e.shape
    means = e.mean(axis=0)
    s_b = np.cov(means.T)
    s_w = sum(
        np.outer(e[v, i] - means[i], e[v, i] - means[i]) for v in range(q) for i in range(n)
    ) / (n * (q - 1)) + delta * np.eye(width)
    values, vectors = np.linalg.eigh(s_w)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return count(np.linalg.eigvalsh(root @ s_b @ root).clip(0))


@pytest.mark.parametrize("directions", [1, 3, 6])
def test_directions_that_tell_images_apart_equally_are_counted(directions: int) -> None:
    between = torch.tensor([5.0] * directions + [0.0] * (6 - directions))
    assert lidar(design(between, torch.ones(6))) == pytest.approx(directions, rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-2])
def test_directions_weigh_by_the_ratio_of_variances(scale: float) -> None:
    """Closed form, with the ridge: at the smaller scale it outweighs the variance within images."""
    between, within = (
        scale * torch.tensor([1.0, 2.0, 3.0, 4.0]),
        scale * torch.tensor([0.1, 1.0, 2.0, 0.5]),
    )
    expected = between.double().square() / (2 * within.double().square() / 7 + 1e-4)
    assert lidar(design(between, within)) == pytest.approx(count(expected.numpy()), rel=1e-5)


def test_directions_of_the_augmentation_do_not_count() -> None:
    """Two directions tell images apart; four others vary three times as much, from view to view
    alone.
    """
    views = design(torch.tensor([1.0, 1.0, 0, 0, 0, 0]), torch.tensor([0.1, 0.1, 3, 3, 3, 3]))
    assert lidar(views) == pytest.approx(2, rel=1e-3)
    assert rankme(views.flatten(0, 1)) > 4


@pytest.mark.parametrize(
    "views", [gaussian(60, 8, 5), gaussian(60, 8, 2, scale=0.01), gaussian(20, 30, 4)]
)
def test_value_is_that_of_the_formula(views: Tensor) -> None:
    assert lidar(views) == pytest.approx(transcription(views, 1e-4), rel=1e-4)
    assert lidar(views, ridge=0.1) == pytest.approx(transcription(views, 0.1), rel=1e-4)


def test_shares_are_those_of_discriminant_analysis() -> None:
    views = gaussian(100, 10, 6)
    model = LinearDiscriminantAnalysis(solver="eigen").fit(
        views.double().flatten(0, 1), torch.arange(100).repeat(6)
    )
    assert lidar(views, ridge=1e-9) == pytest.approx(
        count(model.explained_variance_ratio_), rel=1e-5
    )


def test_rotation_and_shift_change_nothing_nor_does_scale_above_the_ridge() -> None:
    views = gaussian(60, 8, 5)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2))).Q
    assert lidar(views @ rotation + 5) == pytest.approx(lidar(views), rel=1e-4)
    assert lidar(views * 100) == pytest.approx(lidar(views), rel=1e-3)


def test_embeddings_that_are_one_point_count_as_one() -> None:
    assert lidar(torch.ones(3, 20, 8)) == pytest.approx(1, rel=1e-4)
