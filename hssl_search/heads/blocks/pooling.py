"""Blocks that mix positions by averaging: a window's reach, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.metaformer import Pooling
from torch import nn

from hssl_search.heads.blocks.parts import two_parts
from hssl_search.heads.registry import Place


def poolformer(given: Mapping[str, Any], place: Place) -> nn.Module:
    pooling = Pooling(given["kernel_size"])
    # The mean of a window less its middle, because the shortcut adds the middle (arXiv 2111.11418,
    # eq. 4): both go together.
    return two_parts(place, pooling if place.shortcut else pooling.pool, given["mlp_ratio"])
