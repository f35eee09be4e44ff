"""Blocks that mix positions by averaging: the reach of a window, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.metaformer import Pooling
from torch import nn

from hssl_search.heads.blocks.parts import Place, two_parts


def poolformer(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make a PoolFormer block (arXiv 2111.11418): average pooling, then MLP."""
    pooling = Pooling(parameters["kernel_size"])
    # timm's gives the mean of a window less its middle, because the shortcut adds the middle (arXiv
    # 2111.11418, equation 4): both go together.
    return two_parts(place, pooling if place.shortcut else pooling.pool, parameters["mlp_ratio"])
