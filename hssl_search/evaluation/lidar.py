"""LiDAR: how many directions tell images apart, measured in what augmentation leaves of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hssl_search.evaluation.spectrum import effective_count, spectrum

EPSILON = 1e-7
"""Added to each share of the spectrum, as to RankMe's."""
RIDGE = 1e-4
"""delta, which keeps the covariance within images invertible. The paper gives no value."""


@torch.no_grad()
def lidar(views: Tensor, ridge: float = RIDGE) -> float:
    """Return the linear discriminant analysis rank of embeddings of several views of each image
    (arXiv 2312.04000, section 3).

    With an image as a class and its views as samples, m_n the mean of image n and m the mean of
    all:

        S_b = covariance of the m_n,  S_w = mean of (e - m_n)(e - m_n)^T + delta I,
        LiDAR = exp(-sum p_k log p_k),  p_k = lambda_k / sum lambda + 1e-7,
        lambda = eigenvalues of S_w^-1/2 S_b S_w^-1/2.

    From 1 to min(N - 1, D); larger is better. Unlike RankMe it does not count directions of the
    augmentation's own: they keep an eigenvalue of only about 1 / q, so values are comparable for
    equal q and N alone. Rotating or shifting the embeddings changes nothing; scaling them does
    nothing either, as long as delta is small beside their variance within images.

    Args:
        views: q x N x D, finite, q >= 2, N >= 2. The paper takes q = 50 and N = 1,000, and prefers
            N > D.
        ridge: delta.

    Returns:
        the rank; NaN where (q - 1) N <= D: the covariance within images is singular there, and
        delta alone would decide.
    """
    means = views.double().mean(dim=0)
    width, degrees = views.shape[2], (len(views) - 1) * views.shape[1]
    if degrees <= width:
        return math.nan
    within = ridge * torch.eye(width, device=views.device, dtype=means.dtype)
    # View by view: the residuals of all would take as much memory as the embeddings again.
    for view in views:
        residual = view - means
        within += residual.T @ residual / degrees
    # L^-1 S_b L^-T with S_w = L L^T has the eigenvalues of S_w^-1/2 S_b S_w^-1/2.
    whitened = torch.linalg.solve_triangular(
        torch.linalg.cholesky(within), (means - means.mean(dim=0)).T, upper=False
    )
    return effective_count(spectrum(whitened), EPSILON)
