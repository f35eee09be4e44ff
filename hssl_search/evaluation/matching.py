"""Matching: whether an image's other view is nearer than other images are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def matching_error(first: Tensor, second: Tensor) -> float:
    """Return the share of other images that are more similar (cosine) to an image's first view than
    its second view is; ties count half.

    Label-free, and the same for every SSL method: 0.5 for embeddings that say nothing of the image,
    0 for perfect ones (1 - AUC of telling matching from other pairs, image by image). Ranks, unlike
    a cross-entropy, need no temperature. NaN for embeddings that are not finite.

    Args:
        first: N x D embeddings of one random view of each image, N >= 2.
        second: N x D, of another.
    """
    mean = torch.cat([first, second]).mean(dim=0, keepdim=True)
    # Centred, since a mean that all images share would make all cosines nearly alike.
    queries, keys = (F.normalize((x - mean).float(), dim=1) for x in (first, second))
    similarity = queries @ keys.T
    if not bool(torch.isfinite(similarity).all()):
        return float("nan")
    own = similarity.diagonal()[:, None]
    nearer = (similarity > own).float() + 0.5 * (similarity == own).float()
    # Every image ties with itself, which counted one half.
    count = len(queries)
    return float((nearer.sum() - 0.5 * count) / (count * (count - 1)))
