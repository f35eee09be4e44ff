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
"""Share of the largest eigenvalue below which an eigenvalue is the rounding of float32
embeddings."""


@torch.no_grad()
def alpha_req(embeddings: Tensor) -> float:
    """Return alpha of lambda_i ~ i^-alpha, the eigenvalues of the covariance of the embeddings
    (Agrawal et al., NeurIPS 2022).

    Least squares of log lambda_i on log i over the ranks i = 4 to 100, weighted by 1 / i. Where
    there are fewer eigenvalues that are more than rounding, the fit ends with the last of them.

    0 for a flat spectrum, larger the fewer directions matter. The paper finds representations best
    near 1: of a smaller alpha too much is noise, of a larger one too much is lost. Rotating,
    scaling or shifting the embeddings changes nothing.

    Args:
        embeddings: N x D, finite.

    Returns:
        alpha; NaN where fewer than 5 eigenvalues are left, as for fewer than 8 dimensions or 9
        images.
    """
    # Those of the covariance up to 1 / N, which changes no slope.
    eigenvalues = spectrum(embeddings.double() - embeddings.double().mean(dim=0))
    kept = eigenvalues[eigenvalues > ROUNDING * eigenvalues[0]][FIRST - 1 : LAST]
    if len(kept) < FEWEST:
        return math.nan
    rank = torch.arange(FIRST, FIRST + len(kept), device=kept.device, dtype=kept.dtype)
    # The weighted least-squares line; 1 / rank weighs every stretch of the logarithm alike.
    weights = 1 / rank / (1 / rank).sum()
    x, y = rank.log(), kept.log()
    x, y = x - weights @ x, y - weights @ y
    return -float(weights @ (x * y) / (weights @ x.square()))
