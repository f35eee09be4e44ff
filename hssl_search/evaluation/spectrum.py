"""The spectrum of embeddings, and how many directions it amounts to."""

from __future__ import annotations

import torch
from torch import Tensor


def spectrum(x: Tensor) -> Tensor:
    """Squared singular values of a finite N x D matrix, largest first: min(N, D) numbers >= 0 in
    float64.

    Those of the smaller Gram matrix: cheaper than a singular value decomposition, and exact to
    about 1e-8 of the largest singular value.
    """
    x = x.double()
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    return torch.linalg.eigvalsh(gram).clamp_min(0).flip(0)


def effective_count(sizes: Tensor, epsilon: float = 0.0) -> float:
    """exp of the entropy of p_k = sizes_k / sum of sizes + epsilon: k for k equal sizes, 1 for a
    single one or none (Roy and Vetterli, EUSIPCO 2007, without epsilon).
    """
    shares = sizes / sizes.sum().clamp_min(torch.finfo(sizes.dtype).tiny) + epsilon
    return float(torch.special.entr(shares).sum().exp())
