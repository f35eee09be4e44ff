"""Blocks that mix positions by convolution: a kernel's reach, the same weights everywhere."""

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

from hssl_search.heads.blocks.parts import NoShortcut, Shortcut, hidden_width, one_part, two_parts
from hssl_search.heads.registry import Place


def convnext(given: Mapping[str, Any], place: Place) -> nn.Module:
    block: nn.Module = ConvNeXtBlock(
        place.width,
        kernel_size=given["kernel_size"],
        mlp_ratio=given["mlp_ratio"],
        ls_init_value=None,
        drop_path=place.rate,
    )
    if not place.shortcut:
        block.shortcut = NoShortcut()
    return block


def resnet(given: Mapping[str, Any], place: Place) -> nn.Module:
    block: nn.Module = BasicBlock(place.width, place.width, **_beside(place))
    if given["kernel_size"] != 3:
        block.conv1, block.conv2 = (
            _dense(place.width, place.width, given["kernel_size"]) for _ in range(2)
        )
    return block


def bottleneck(given: Mapping[str, Any], place: Place) -> nn.Module:
    inner = hidden_width(place.width, given["mlp_ratio"])
    block: nn.Module = Bottleneck(place.width, inner, **_beside(place))
    if given["kernel_size"] != 3:
        block.conv2 = _dense(inner, inner, given["kernel_size"])
    # timm's leads to four times `inner`
    block.conv3, block.bn3 = (
        _dense(inner, place.width, 1),
        nn.BatchNorm2d(place.width),
    )
    return block


def _beside(place: Place) -> dict[str, Any]:
    """What lies beside a ResNet block's convolutions: stochastic depth, and what stands in for a
    missing shortcut.
    """
    return {
        "drop_path": DropPath(place.rate) if place.rate > 0 else None,
        "downsample": None if place.shortcut else NoShortcut(),
    }


def _dense(channels: int, out: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, side, padding=side // 2, bias=False)


def mbconv(given: Mapping[str, Any], place: Place) -> nn.Module:
    squeeze: Any = partial(SqueezeExcite, rd_channels=hidden_width(place.width, 0.25))
    return one_part(
        place,
        InvertedResidual(
            place.width,
            place.width,
            given["kernel_size"],
            exp_ratio=given["mlp_ratio"],
            act_layer=nn.SiLU,
            se_layer=squeeze,
            noskip=True,
        ),
    )


def sepconv(given: Mapping[str, Any], place: Place) -> nn.Module:
    side = given["kernel_size"]
    return two_parts(
        place,
        SepConv(place.width, kernel_size=side, padding=side // 2),
        given["mlp_ratio"],
        LayerNorm2dNoBias,
        StarReLU,
        bias=False,
    )


def convmixer(given: Mapping[str, Any], place: Place) -> nn.Module:
    width, side = place.width, given["kernel_size"]
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
