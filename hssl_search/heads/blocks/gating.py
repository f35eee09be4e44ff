"""Blocks whose convolutions gate what passes: a position's weights depend on its own content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.focalnet import FocalModulation
from timm.models.mambaout import GatedConvBlock
from torch import Tensor, nn

from hssl_search.heads.blocks.parts import ChannelsLast, Place, hidden_width, one_part, two_parts


class GatedConv(GatedConvBlock):
    """timm's gated convolution block without its shortcut: B x H x W x C in and out."""

    # As timm's forward, up to the line that adds the input.
    def forward(self, x: Tensor) -> Tensor:
        gate, passed, convolved = torch.split(
            self.fc1(self.norm(x)), list(self.split_indices), dim=-1
        )
        convolved = self.conv(convolved.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        gated: Tensor = self.fc2(self.act(gate) * torch.cat((passed, convolved), dim=-1))
        return gated


def mambaout(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make a MambaOut block (arXiv 2405.07992), whose convolution covers as many channels as the
    head is wide.
    """
    inner = hidden_width(place.width, parameters["mlp_ratio"])
    # A narrow MLP has fewer channels than the head: then all of them are convolved.
    convolved = min(inner, place.width)
    # timm multiplies and cuts off: half a channel more keeps rounding from taking one away.
    ratios: dict[str, Any] = {
        "expansion_ratio": (inner + 0.5) / place.width,
        "conv_ratio": (convolved + 0.5) / place.width,
    }
    return one_part(
        place, ChannelsLast(GatedConv(place.width, kernel_size=parameters["kernel_size"], **ratios))
    )


FOCAL_LEVELS = 2
"""Depthwise convolutions one after another, of side `kernel_size` and `kernel_size` + 2, as in the
paper's classifiers; the mean of the map follows them."""


def focal(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make a FocalNet block (arXiv 2203.11926): focal modulation, then MLP."""
    return two_parts(
        place,
        FocalModulation(place.width, parameters["kernel_size"], FOCAL_LEVELS),
        parameters["mlp_ratio"],
    )
