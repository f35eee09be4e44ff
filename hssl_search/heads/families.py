"""The head families: what each reads, and where its block is. Importing this registers them; torch
is needed when a block is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hssl_search.heads.registry import Family, Place, register

if TYPE_CHECKING:
    from torch import nn

COMMON = {"depth": 3, "width_ratio": 1.0, "first_shortcut": False, "tap": 0}
"""What every family of blocks reads."""


def _blocks(module: str, name: str, defaults: Mapping[str, Any], summary: str) -> None:
    """Register the family whose block the function of its name makes, in that module of
    `hssl_search.heads.blocks`.
    """

    def make_block(given: Mapping[str, Any], place: Place) -> nn.Module:
        block: nn.Module = getattr(
            importlib.import_module(f"hssl_search.heads.blocks.{module}"), name
        )(given, place)
        return block

    register(Family(name, make_block, {**COMMON, **defaults}, summary, kind=module))


_blocks(
    "attention",
    "transformer",
    {"attention_heads": 4, "mlp_ratio": 4.0, "positions": False},
    "global self-attention and MLP, with or without position information",
)
_blocks(
    "attention",
    "swin",
    {"attention_heads": 4, "window_size": 7, "mlp_ratio": 4.0},
    "self-attention within windows, shifted in every second block, and MLP",
)

_blocks(
    "convolution",
    "convnext",
    {"kernel_size": 7, "mlp_ratio": 4.0},
    "depthwise convolution and MLP (the paper's head on a ViT)",
)
_blocks(
    "convolution",
    "resnet",
    {"kernel_size": 3},
    "basic blocks: two dense convolutions with BatchNorm",
)
_blocks(
    "convolution",
    "bottleneck",
    {"kernel_size": 3, "mlp_ratio": 0.25},
    "ResNet-50's blocks: a dense convolution between 1x1 convolutions, with BatchNorm",
)
_blocks(
    "convolution",
    "mbconv",
    {"kernel_size": 5, "mlp_ratio": 6.0},
    "EfficientNet's inverted bottleneck: depthwise convolution, squeeze-and-excitation, BatchNorm",
)
_blocks(
    "convolution",
    "sepconv",
    {"kernel_size": 7, "mlp_ratio": 4.0},
    "ConvFormer's blocks: inverted separable convolution and MLP (MetaFormer)",
)
_blocks(
    "convolution",
    "convmixer",
    {"kernel_size": 9},
    "depthwise convolution beside a shortcut, then a 1x1 convolution without one, with BatchNorm "
    "(arXiv 2201.09792)",
)

_blocks(
    "gating",
    "mambaout",
    {"kernel_size": 7, "mlp_ratio": 8 / 3},
    "MambaOut's gated convolution: depthwise convolution times a gate (arXiv 2405.07992)",
)
_blocks(
    "gating",
    "focal",
    {"kernel_size": 3, "mlp_ratio": 4.0},
    "focal modulation and MLP: context of growing size, up to the whole map, gated (arXiv "
    "2203.11926)",
)

_blocks("mlps", "mlp", {"mlp_ratio": 4.0}, "1x1 MLP: mixes channels, never positions")
_blocks(
    "mlps",
    "mixer",
    {"grid_size": 7, "mlp_ratio": 4.0},
    "MLP over the positions of a grid, then over channels (arXiv 2105.01601)",
)
_blocks(
    "mlps",
    "resmlp",
    {"grid_size": 7, "mlp_ratio": 4.0},
    "a linear layer over the positions of a grid and MLP, scaled instead of normed (arXiv "
    "2105.03404)",
)
_blocks(
    "mlps",
    "gmlp",
    {"grid_size": 7, "mlp_ratio": 6.0},
    "one MLP, half of it gated by a linear layer over the positions of a grid (arXiv 2105.08050)",
)

_blocks(
    "pooling",
    "poolformer",
    {"kernel_size": 3, "mlp_ratio": 4.0},
    "average pooling and MLP: mixes positions without weights (MetaFormer)",
)

register(
    Family(
        "hybrid",
        None,
        {"blocks": "convnext+transformer+convnext"},
        "blocks of several families one after another; it reads what these read, but no depth",
    )
)

register(Family("identity", None, {}, "no block at all: own norm and projector only", control=True))
register(
    Family(
        "noise", None, {}, "random numbers in place of the map: nothing to learn from", control=True
    )
)
