"""The spectrum of embeddings, and how many directions it amounts to."""

from __future__ import annotations

import torch
from torch import Tensor


def spectrum(x: Tensor) -> Tensor:
    """Return the squared singular values of a matrix, largest first.

    Computed from the smaller Gram matrix: cheaper than a singular value decomposition, and exact to
    about 1e-8 of the largest singular value.

    Args:
        x: N x D, finite.

    Returns:
        min(N, D) numbers >= 0 in float64.
    """
    x = x.double()
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    # Rounding can leave an eigenvalue of 0 slightly negative.
    return torch.linalg.eigvalsh(gram).clamp_min(0).flip(0)


def effective_count(sizes: Tensor, epsilon: float = 0.0) -> float:
    """Return exp of the entropy of p_k = sizes_k / sum of sizes + epsilon: k for k equal sizes, 1
    for a single one or none (Roy and Vetterli, EUSIPCO 2007, without epsilon).

    Args:
        sizes: K numbers >= 0.
        epsilon: added to each share.
    """
    # At least the smallest number there is, so that all sizes of 0 give shares of 0.
    shares = sizes / sizes.sum().clamp_min(torch.finfo(sizes.dtype).tiny) + epsilon
    return float(torch.special.entr(shares).sum().exp())
