"""All measures of a representation that need no labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hssl_search.evaluation.alpha_req import alpha_req
from hssl_search.evaluation.hypersphere import alignment, uniformity
from hssl_search.evaluation.lidar import lidar
from hssl_search.evaluation.rankme import rankme

OF_PLAIN: dict[str, Callable[[Tensor], float]] = {
    "rankme": rankme,
    "alpha_req": alpha_req,
    "uniformity": uniformity,
}
"""Measures of the images as they are, by name."""
OF_VIEWS: dict[str, Callable[[Tensor], float]] = {"lidar": lidar, "alignment": alignment}
"""Measures of random views, by name."""


def labelfree_quality(views: Tensor, plain: Tensor) -> dict[str, float]:
    """Return `rankme`, `alpha_req`, `uniformity`, `lidar` and `alignment`; NaN for those of
    embeddings that are not finite.

    Args:
        views: q x N x D embeddings of q >= 2 random views of each image.
        plain: N x D embeddings of the images as they are, N >= 2.
    """
    return _measured(OF_PLAIN, plain) | _measured(OF_VIEWS, views)


def _measured(
    measures: dict[str, Callable[[Tensor], float]], embeddings: Tensor
) -> dict[str, float]:
    # The measures' eigenvalue solvers raise on what is not finite.
    finite = bool(torch.isfinite(embeddings).all())
    return {name: measure(embeddings) if finite else math.nan for name, measure in measures.items()}
