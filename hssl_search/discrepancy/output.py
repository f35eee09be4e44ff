"""Discrepancy between the outputs of base and head, which the loss compares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def prototype_divergence(head: Tensor, base: Tensor) -> float:
    """Return the KL divergence in nats, 0 to infinity, from the base's distribution over shared
    prototypes to the head's, as a mean over views and images.

    Of the same image in the same view: 0 where the base assigns every image as the head's teacher
    does. The base's term of HSSL with prototypes (arXiv 2310.05108), the cross-entropy of DINO
    (arXiv 2104.14294, equation 1), is the head's own entropy plus this: it can still be lowered by
    this much.

    Args:
        head: ... x K distributions of the head's teacher, as they serve as targets.
        base: ... x K logarithms of the base's distributions, as they are compared with targets.
    """
    return float(F.kl_div(base.double(), head.double(), reduction="none").sum(dim=-1).mean())


@torch.no_grad()
def key_distance(base: Tensor, key: Tensor) -> float:
    """Return 1 - the mean cosine between the base's output and the head's key of the same image and
    view: 0 equal, 1 unrelated, 2 opposite.

    With outputs of length 1 it is half their mean squared distance, the loss of BYOL (arXiv
    2006.07733, equation 2) divided by 2. It says something only of a base projector, and predictor
    where the method has one, that was trained against this head alone.

    Args:
        base: V x B x D outputs of the base's projector or predictor.
        key: V x B x D outputs of the head's projector, from the teacher where there is one.
    """
    return 1 - float(F.cosine_similarity(base.double(), key.double(), dim=-1).mean())
