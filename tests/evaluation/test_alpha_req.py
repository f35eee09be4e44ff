"""alpha-ReQ against spectra of known exponent, and against scikit-learn's PCA with NumPy's weighted
line.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from hssl_search.evaluation.alpha_req import alpha_req

torch.set_num_threads(1)


def embeddings_of(eigenvalues: Tensor, count: int = 300) -> Tensor:
    """Return centred embeddings, rotated at random, whose covariance has these eigenvalues up to a
    factor.
    """
    generator = torch.Generator().manual_seed(0)
    width = len(eigenvalues)
    scores = torch.randn(count, width, generator=generator, dtype=torch.float64)
    scores = torch.linalg.qr(scores - scores.mean(dim=0)).Q
    rotation = torch.linalg.qr(
        torch.randn(width, width, generator=generator, dtype=torch.float64)
    ).Q
    return ((scores * eigenvalues.double().sqrt()) @ rotation.T).float()


def power_law(alpha: float, width: int) -> Tensor:
    return torch.arange(1, width + 1, dtype=torch.float64) ** -alpha


def second_library(embeddings: Tensor, first: int, last: int) -> float:
    eigenvalues = (
        PCA(svd_solver="full")
        .fit(embeddings.double().numpy())
        .explained_variance_[first - 1 : last]
    )
    rank = np.arange(first, first + len(eigenvalues))
    return -np.polyfit(np.log(rank), np.log(eigenvalues), 1, w=rank**-0.5)[0]


@pytest.mark.parametrize("width", [8, 20, 150])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_exponent_of_a_power_law_is_recovered(alpha: float, width: int) -> None:
    assert alpha_req(embeddings_of(power_law(alpha, width))) == pytest.approx(alpha, abs=1e-4)


def test_other_spectra_get_the_weighted_line_through_ranks_4_to_100() -> None:
    eigenvalues = power_law(1.0, 150) * torch.linspace(0, 6, 150).sin().exp()
    embeddings = embeddings_of(eigenvalues)
    assert alpha_req(embeddings) == pytest.approx(second_library(embeddings, 4, 100), rel=1e-4)
    assert alpha_req(embeddings) != pytest.approx(second_library(embeddings, 1, 150), rel=0.02)


def test_eigenvalues_of_other_ranks_do_not_matter() -> None:
    eigenvalues = power_law(1.0, 150)
    eigenvalues[:3], eigenvalues[100:] = 50.0, 1e-4
    assert alpha_req(embeddings_of(eigenvalues)) == pytest.approx(1.0, abs=1e-4)


def test_fit_ends_where_only_rounding_is_left() -> None:
    eigenvalues = power_law(1.0, 60)
    eigenvalues[40:] = 0
    assert alpha_req(embeddings_of(eigenvalues)) == pytest.approx(1.0, abs=1e-4)
    few_images = torch.randn(30, 100, generator=torch.Generator().manual_seed(1))
    assert alpha_req(few_images) == pytest.approx(second_library(few_images, 4, 29), rel=1e-4)


@pytest.mark.parametrize("embeddings", [torch.randn(50, 7), torch.randn(8, 50), torch.ones(50, 50)])
def test_too_few_eigenvalues_have_no_exponent(embeddings: Tensor) -> None:
    assert math.isnan(alpha_req(embeddings))


@pytest.mark.parametrize("size", [(50, 8), (9, 50)])
def test_least_that_can_be_fitted(size: tuple[int, int]) -> None:
    assert math.isfinite(alpha_req(torch.randn(*size, generator=torch.Generator().manual_seed(0))))


def test_rotation_scale_and_shift_change_nothing() -> None:
    embeddings = embeddings_of(power_law(1.3, 40))
    rotation = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(2))).Q
    assert alpha_req((embeddings @ rotation) * 100 + 3) == pytest.approx(
        alpha_req(embeddings), abs=1e-3
    )
