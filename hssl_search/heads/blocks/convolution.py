"""Blocks that mix positions by convolution: the reach of a kernel, the same weights everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from timm.layers import DropPath
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from timm.models.convnext import ConvNeXtBlock
from timm.models.metaformer import LayerNorm2dNoBias, SepConv, StarReLU
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from hssl_search.heads.blocks.parts import (
    NoShortcut,
    Place,
    Shortcut,
    hidden_width,
    one_part,
    two_parts,
)


def convnext(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make a ConvNeXt block (arXiv 2201.03545)."""
    block: nn.Module = ConvNeXtBlock(
        place.width,
        kernel_size=parameters["kernel_size"],
        mlp_ratio=parameters["mlp_ratio"],
        ls_init_value=None,  # no layer scale: a head lives too short for it to grow
        drop_path=place.rate,
    )
    if not place.shortcut:
        block.shortcut = NoShortcut()  # timm's block cannot leave its shortcut out
    return block


def resnet(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make ResNet's basic block (arXiv 1512.03385), with kernels of any odd size."""
    block: nn.Module = BasicBlock(place.width, place.width, **_beside(place))
    if parameters["kernel_size"] != 3:
        block.conv1, block.conv2 = (
            _dense(place.width, place.width, parameters["kernel_size"]) for _ in range(2)
        )
    return block


def bottleneck(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make ResNet's bottleneck block (arXiv 1512.03385) at one width, with a kernel of any odd
    size.
    """
    inner = hidden_width(place.width, parameters["mlp_ratio"])
    block: nn.Module = Bottleneck(place.width, inner, **_beside(place))
    if parameters["kernel_size"] != 3:
        block.conv2 = _dense(inner, inner, parameters["kernel_size"])
    # timm's leads to four times `inner`, and the head keeps its width.
    block.conv3, block.bn3 = _dense(inner, place.width, 1), nn.BatchNorm2d(place.width)
    return block


def _beside(place: Place) -> dict[str, Any]:
    """Return timm's arguments for what lies beside a ResNet block's convolutions: stochastic depth,
    and what replaces a missing shortcut.
    """
    return {
        "drop_path": DropPath(place.rate) if place.rate > 0 else None,
        "downsample": None if place.shortcut else NoShortcut(),
    }


def _dense(channels: int, out: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, side, padding=side // 2, bias=False)


def mbconv(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make EfficientNet's inverted bottleneck (arXiv 1905.11946), with squeeze-and-excitation."""
    # A quarter of the head's width, as in EfficientNet; timm would take one of the hidden width.
    squeeze: Any = partial(SqueezeExcite, rd_channels=hidden_width(place.width, 0.25))
    return one_part(
        place,
        InvertedResidual(
            place.width,
            place.width,
            parameters["kernel_size"],
            exp_ratio=parameters["mlp_ratio"],
            act_layer=nn.SiLU,
            se_layer=squeeze,
            noskip=True,  # the shortcut is ours, so that it can be missing
        ),
    )


def sepconv(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make ConvFormer's block: inverted separable convolution, then MLP (arXiv 2210.13452)."""
    side = parameters["kernel_size"]
    return two_parts(
        place,
        SepConv(place.width, kernel_size=side, padding=side // 2),
        parameters["mlp_ratio"],
        LayerNorm2dNoBias,
        StarReLU,
        bias=False,
    )


def convmixer(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make a ConvMixer block (arXiv 2201.09792): a depthwise convolution beside a shortcut, then a
    1x1 convolution without one.
    """
    width, side = place.width, parameters["kernel_size"]
    depthwise = nn.Sequential(
        nn.Conv2d(width, width, side, padding=side // 2, groups=width),
        nn.GELU(),
        nn.BatchNorm2d(width),
    )
    return nn.Sequential(
        Shortcut(depthwise, place.drop_path, place.shortcut),
        nn.Conv2d(width, width, 1),
        nn.GELU(),
        nn.BatchNorm2d(width),
    )
