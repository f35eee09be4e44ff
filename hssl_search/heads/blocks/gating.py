"""Blocks whose convolutions gate what passes: the weights of a position depend on its own
content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.focalnet import FocalModulation
from timm.models.mambaout import GatedConvBlock
from torch import Tensor, nn

from hssl_search.heads.blocks.parts import ChannelsLast, hidden_width, one_part, two_parts
from hssl_search.heads.registry import Place


class GatedConv(GatedConvBlock):
    """timm's gated convolution block without its shortcut: B x H x W x C in and out."""

    def forward(self, x: Tensor) -> Tensor:
        gate, passed, convolved = torch.split(
            self.fc1(self.norm(x)), list(self.split_indices), dim=-1
        )
        convolved = self.conv(convolved.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        gated: Tensor = self.fc2(self.act(gate) * torch.cat((passed, convolved), dim=-1))
        return gated


def mambaout(given: Mapping[str, Any], place: Place) -> nn.Module:
    inner = hidden_width(place.width, given["mlp_ratio"])
    convolved = min(inner, place.width)
    # timm multiplies and cuts off: half a channel more keeps rounding from taking one away.
    ratios: dict[str, Any] = {
        "expansion_ratio": (inner + 0.5) / place.width,
        "conv_ratio": (convolved + 0.5) / place.width,
    }
    return one_part(
        place, ChannelsLast(GatedConv(place.width, kernel_size=given["kernel_size"], **ratios))
    )


FOCAL_LEVELS = 2
"""Depthwise convolutions one after another, of side `kernel_size` and `kernel_size` + 2; the mean
of the map follows them."""


def focal(given: Mapping[str, Any], place: Place) -> nn.Module:
    return two_parts(
        place, FocalModulation(place.width, given["kernel_size"], FOCAL_LEVELS), given["mlp_ratio"]
    )
