"""RankMe: how many directions embeddings fill."""

from __future__ import annotations

import torch
from torch import Tensor

from hssl_search.evaluation.spectrum import effective_count, spectrum

EPSILON = 1e-7
"""Added to each share of the spectrum, as in the paper."""


@torch.no_grad()
def rankme(embeddings: Tensor) -> float:
    """Return RankMe (arXiv 2210.02885): exp(-sum p_k log p_k), p_k = sigma_k / sum sigma + 1e-7.

    sigma_k are the singular values of the embeddings, not centred: a mean that all images share
    counts as a direction, and lowers RankMe the more it outweighs the others. From 1 for a single
    direction to min(N, D) for equal ones; larger is better. Rotating or scaling the embeddings
    changes nothing. Values are comparable for equal N alone.

    Args:
        embeddings: N x D, finite.
    """
    # Singular values, which are the roots of what `spectrum` gives.
    return effective_count(spectrum(embeddings).sqrt(), EPSILON)
