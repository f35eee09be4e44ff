"""Discrepancy between the features of two networks for the same images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def debiased_cka(first: Tensor, second: Tensor) -> float:
    """Return the debiased linear CKA of two embeddings of the same n images: 1 for equal up to
    rotation and scale, about 0 for independent ones.

    CKA (arXiv 1905.00414, equation 5) with the unbiased HSIC estimator (Song et al., JMLR 2012,
    equation 5), as in arXiv 2010.15327: the biased estimator grows with width / n. Can be slightly
    negative.

    Args:
        first: n x D, n >= 4.
        second: n x E.
    """
    gram, other = (_gram(x.double()) for x in (first, second))
    scale = _hsic(gram, gram) * _hsic(other, other)
    # Unbiased estimates of small quantities can be negative: nothing in common is measured then.
    return 0.0 if scale <= 0 else float(_hsic(gram, other) / scale.sqrt())


def _gram(x: Tensor) -> Tensor:
    """Return the n x n inner products of centred features, zero on the diagonal."""
    centred = x - x.mean(dim=0, keepdim=True)
    return (centred @ centred.T).fill_diagonal_(0)


def _hsic(k: Tensor, m: Tensor) -> Tensor:
    """Return the unbiased HSIC of two n x n Gram matrices with zero diagonals."""
    n = len(k)
    total = (
        (k * m).sum()
        + k.sum() * m.sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (k.sum(dim=0) @ m.sum(dim=1))
    )
    return total / (n * (n - 3))


@torch.no_grad()
def neighbour_overlap(first: Tensor, second: Tensor, k: int = 10) -> float:
    """Return the share, 0 to 1, of the k nearest neighbours by cosine that two embeddings of the
    same n images have in common.

    Mutual k-NN, arXiv 2405.07987. Both are centred first. Independent embeddings share about k / (n
    - 1).

    Args:
        first: n x D, n > k.
        second: n x E.
        k: number of neighbours.
    """
    neighbours, others = (_neighbours(x.float(), k) for x in (first, second))
    # n x k x k comparisons: both lists are short.
    shared = (neighbours[:, :, None] == others[:, None, :]).any(dim=2)
    return float(shared.float().mean())


def _neighbours(x: Tensor, k: int) -> Tensor:
    normal = F.normalize(x - x.mean(dim=0, keepdim=True), dim=1)
    # No cosine is as low as -2: an image is no neighbour of its own.
    return (normal @ normal.T).fill_diagonal_(-2).topk(min(k, len(x) - 1), dim=1).indices


def feature_discrepancy(base: Tensor, head: Tensor) -> dict[str, float]:
    """Return `cka` = 1 - debiased linear CKA and `overlap` = 1 - neighbour overlap: 0 for equal
    features, about 1 for independent ones.

    Args:
        base: n x D embeddings, n > 10.
        head: n x E, of the same images.
    """
    return {"cka": 1 - debiased_cka(base, head), "overlap": 1 - neighbour_overlap(base, head)}
