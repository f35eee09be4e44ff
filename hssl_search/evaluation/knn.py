"""Weighted k-nearest-neighbour classification of embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1024
"""Queries whose similarities to the bank are in memory at a time."""


@torch.no_grad()
def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Return the per cent of queries whose label is voted right by their nearest neighbours
    (weighted k-NN, arXiv 1805.01978, section 3.4).

    Both sides are centred with the *bank's* mean and normalised to length 1; each of the k most
    similar bank embeddings votes for its label with weight exp(similarity / temperature). The
    centring matters: without it, embeddings that share a large mean score near chance.

    Args:
        bank: N x D embeddings with known labels.
        bank_labels: N class numbers, 0 to C-1.
        queries: M x D embeddings.
        query_labels: M class numbers.
        k: number of neighbours; N where that is less. 20 as in DINO (arXiv 2104.14294, appendix
            F.1).
        temperature: the paper's.
    """
    mean = bank.mean(dim=0, keepdim=True)
    keys = F.normalize(bank - mean, dim=1)
    classes = int(max(bank_labels.max(), query_labels.max())) + 1
    # Counted on the device: nothing waits before the end.
    right = torch.zeros((), device=bank.device)
    for part, labels in zip(
        F.normalize(queries - mean, dim=1).split(CHUNK), query_labels.split(CHUNK), strict=True
    ):
        similarity, place = (part @ keys.T).topk(min(k, len(keys)), dim=1)
        # Relative to the nearest neighbour, so that no exponential overflows; the vote is the same.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = torch.zeros(len(part), classes, device=bank.device).scatter_add_(
            1, bank_labels[place], weights
        )
        right += (votes.argmax(dim=1) == labels).sum()
    return 100.0 * float(right) / len(queries)
