"""alpha-ReQ: how fast the spectrum of embeddings decays."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hssl_search.evaluation.spectrum import spectrum

FIRST, LAST = 4, 100
"""Ranks of the eigenvalues that are fitted: those of the authors' code (kumarkrishna/fastssl,
`stringer_get_powerlaw` with `np.arange(3, 100)`); the paper names none."""
FEWEST = 5
"""Eigenvalues that a fit takes at least."""
ROUNDING = 1e-12
"""Share of the largest eigenvalue below which one is the rounding of float32 embeddings."""


@torch.no_grad()
def alpha_req(embeddings: Tensor) -> float:
    """alpha of lambda_i ~ i^-alpha, the eigenvalues of the covariance of finite N x D embeddings
    (Agrawal et al., NeurIPS 2022).

    Least squares of log lambda_i on log i over the ranks i = 4 to 100, weighted by 1 / i. Where
    there are fewer eigenvalues that are more than rounding, the fit ends with the last of them; NaN
    where that leaves fewer than 5, as for embeddings of fewer than 8 dimensions or 9 images.

    0 for a flat spectrum, larger the fewer directions matter. The paper finds representations best
    near 1: of a smaller alpha too much is noise, of a larger one too much is lost. Rotating,
    scaling or shifting the embeddings changes nothing.
    """
    eigenvalues = spectrum(embeddings.double() - embeddings.double().mean(dim=0))
    kept = eigenvalues[eigenvalues > ROUNDING * eigenvalues[0]][FIRST - 1 : LAST]
    if len(kept) < FEWEST:
        return math.nan
    rank = torch.arange(FIRST, FIRST + len(kept), device=kept.device, dtype=kept.dtype)
    return -_slope(rank.log(), kept.log(), 1 / rank)


def _slope(x: Tensor, y: Tensor, weights: Tensor) -> float:
    """Slope of the weighted least-squares line through (x, y)."""
    weights = weights / weights.sum()
    x, y = x - weights @ x, y - weights @ y
    return float(weights @ (x * y) / (weights @ x.square()))
