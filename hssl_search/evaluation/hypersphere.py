"""Alignment and uniformity: how embeddings of length 1 lie on their sphere (arXiv 2005.10242)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1024
"""Images whose distances to all others are in memory at a time."""
TEMPERATURE = 2.0
"""t of the uniformity, the paper's choice."""


@torch.no_grad()
def alignment(views: Tensor) -> float:
    """Return the mean of ||f(x) - f(y)||^2 over the pairs of views x, y of an image (arXiv
    2005.10242, section 4.1, alpha = 2), f of length 1.

    From 0 for equal views of each image to 4; 2 for unrelated ones. Smaller is better, but a single
    point has 0 as well. Rotating the embeddings or scaling any of them changes nothing.

    Args:
        views: q x N x D, finite, q >= 2.
    """
    points = F.normalize(views.double(), dim=2)
    # Half the mean squared distance of a pair, without visiting the pairs.
    variance = (points - points.mean(dim=0)).square().sum(dim=(0, 2)) / (len(points) - 1)
    return float(2 * variance.mean())


@torch.no_grad()
def uniformity(embeddings: Tensor, t: float = TEMPERATURE) -> float:
    """Return the log of the mean of exp(-t ||f(x) - f(y)||^2) over the pairs of images x, y (arXiv
    2005.10242, section 4.1), f of length 1.

    From 0 for a single point to about -2 t for many images spread evenly over a sphere of many
    dimensions, 4 below zero with the paper's t = 2; a few images may lie farther apart, two of them
    -4 t. Smaller is better. Rotating the embeddings or scaling any of them changes nothing; a shift
    does, and a mean that all images share brings it near 0.

    Args:
        embeddings: N x D, finite, N >= 2.
        t: sharpness of the kernel.
    """
    points = F.normalize(embeddings.double(), dim=1)
    count = len(points)
    total = sum(
        float(torch.cdist(part, points).square_().mul_(-t).exp_().sum())
        for part in points.split(CHUNK)
    )
    # Less the count: a point and itself make no pair, and have added exp(0) each.
    return math.log((total - count) / (count * (count - 1)))
