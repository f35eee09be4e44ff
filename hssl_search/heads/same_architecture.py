"""The same-architecture control: a head of the base's own kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from timm.layers import Attention, AttentionRope
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.halo_attn import HaloAttn
from timm.models._efficientnet_blocks import (
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    UniversalInvertedResidual,
)
from timm.models.byobnet import BottleneckBlock
from timm.models.convmixer import Residual
from timm.models.convnext import ConvNeXtBlock
from timm.models.efficientformer import Pooling as Pooling2d
from timm.models.focalnet import FocalModulation
from timm.models.gcvit import GlobalContextVitBlock
from timm.models.mambaout import GatedConvBlock
from timm.models.maxxvit import PartitionAttention2d, PartitionAttentionCl
from timm.models.metaformer import Pooling, SepConv
from timm.models.mlp_mixer import MixerBlock, ResBlock, SpatialGatingBlock
from timm.models.nfnet import NormFreeBlock
from timm.models.regnet import Bottleneck as RegNetBottleneck
from timm.models.regnet import PreBottleneck
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.resnetv2 import PreActBottleneck
from timm.models.swin_transformer import WindowAttention
from timm.models.swin_transformer_v2 import WindowAttention as WindowAttentionV2
from timm.models.swin_transformer_v2_cr import WindowMultiHeadAttention
from timm.models.xcit import XCA
from torch import nn

from hssl_search.heads.config import HeadConfig

KNOWN: Mapping[str, tuple[type[nn.Module], ...]] = {
    "convnext": (ConvNeXtBlock,),
    "resnet": (BasicBlock,),
    "bottleneck": (
        Bottleneck,
        RegNetBottleneck,
        PreBottleneck,
        ResNestBottleneck,
        PreActBottleneck,
        NormFreeBlock,
        BottleneckBlock,
    ),
    "mbconv": (InvertedResidual, UniversalInvertedResidual, DepthwiseSeparableConv, EdgeResidual),
    "sepconv": (SepConv,),
    "convmixer": (Residual,),
    "mambaout": (GatedConvBlock,),
    "focal": (FocalModulation,),
    "transformer": (Attention, AttentionRope, BottleneckAttn, HaloAttn, XCA),
    "swin": (
        WindowAttention,
        WindowAttentionV2,
        WindowMultiHeadAttention,
        PartitionAttention2d,
        PartitionAttentionCl,
        GlobalContextVitBlock,
    ),
    "mixer": (MixerBlock, nn.LSTM),
    "resmlp": (ResBlock,),
    "gmlp": (SpatialGatingBlock,),
    "poolformer": (Pooling, Pooling2d),
}
"""For each family, timm's blocks that are made like its own, or what mixes positions in them."""
ATTENTION = ("transformer", "swin")
"""Families that decide even where a block has convolutions too: many transformers have them in
their MLPs."""
ATTENTION_NAMES = ("attention", "attn", "mhsa", "gpsa")
"""Parts of the class names of attention modules that are not in `KNOWN`."""


def same_architecture_head(model: nn.Module) -> HeadConfig:
    """Return a head of the family whose blocks are closest to those of a timm model, with that
    family's defaults.

    What mixes positions in the model's last stage decides. Blocks in `KNOWN` give their family.
    Among others an attention module gives `transformer`, a depthwise convolution `convnext`, and
    any other convolution `resnet`. A model that nowhere mixes positions gives `mlp`.
    """
    stages = getattr(model, "feature_info", None)
    # timm says where the last features come from: the last stage or block, or a layer behind them.
    last = dict(model.named_modules()).get(stages[-1]["module"], model) if stages else model
    # Such a layer may mix no positions, and then the whole model is asked.
    families = [*_mixing(last)] or [*_mixing(model)] or ["mlp"]
    attention = [family for family in families if family in ATTENTION]
    return HeadConfig(family=(attention or families)[-1])


def _mixing(module: nn.Module) -> Iterator[str]:
    """Yield the families of what mixes positions in a module, first to last; what is inside of one
    is part of it.
    """
    known = (family for family, kinds in KNOWN.items() if isinstance(module, kinds))
    if family := next(known, None) or _by_structure(module):
        yield family
    else:
        for child in module.children():
            yield from _mixing(child)


def _by_structure(module: nn.Module) -> str | None:
    """Return the family of a module that mixes positions and is none of timm's known blocks."""
    name, origin = type(module).__name__.lower(), type(module).__module__
    # timm's own layers of such names that are not in KNOWN gate the channels of convolutional
    # networks, or pool.
    if (
        any(word in name for word in ATTENTION_NAMES)
        and "pool" not in name
        and not origin.startswith("timm.layers")
    ):
        return "transformer"
    if (
        not isinstance(module, nn.Conv2d)
        or max(module.kernel_size) == 1
        or module.stride == module.kernel_size
    ):
        return None  # a 1x1 convolution mixes channels alone, and a patch embedding is no block
    return "convnext" if module.groups == module.in_channels > 1 else "resnet"
