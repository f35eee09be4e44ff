"""With its shortcut, a block computes what timm's own block does with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from timm.models.convmixer import ConvMixer
from timm.models.convnext import ConvNeXtBlock
from timm.models.focalnet import FocalNetBlock
from timm.models.mambaout import GatedConvBlock
from timm.models.metaformer import LayerNorm2dNoBias, MetaFormerBlock, Pooling, SepConv
from timm.models.mlp_mixer import MixerBlock, ResBlock, SpatialGatingBlock
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import build_head

C, SIDE = 24, 7
Layout = Callable[[nn.Module, Tensor], Tensor]


def as_maps(block: nn.Module, x: Tensor) -> Tensor:
    return block(x)


def as_channels_last(block: nn.Module, x: Tensor) -> Tensor:
    return block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def as_tokens(block: nn.Module, x: Tensor) -> Tensor:
    return block(x.flatten(2).mT).mT.unflatten(2, x.shape[2:])


def _without_layer_scale() -> nn.Module:
    """Return timm's ResMLP block with scales of one, which are no parameters here."""
    block = ResBlock(C, SIDE**2, init_values=1.0)
    del block.ls1, block.ls2
    block.ls1 = block.ls2 = 1.0
    return block


TIMM: dict[str, tuple[Layout, Callable[[], nn.Module]]] = {
    "convnext": (as_maps, lambda: ConvNeXtBlock(C, ls_init_value=None)),
    "resnet": (as_maps, lambda: BasicBlock(C, C)),
    "bottleneck": (as_maps, lambda: Bottleneck(C, C // 4)),
    "mbconv": (
        as_maps,
        lambda: InvertedResidual(
            C,
            C,
            5,
            exp_ratio=6.0,
            act_layer=nn.SiLU,
            se_layer=partial(SqueezeExcite, rd_ratio=0.25 / 6),
        ),
    ),
    "sepconv": (
        as_maps,
        lambda: MetaFormerBlock(C, token_mixer=SepConv, norm_layer=LayerNorm2dNoBias),
    ),
    "convmixer": (as_maps, lambda: ConvMixer(C, 1).blocks[0]),
    "mambaout": (as_channels_last, lambda: GatedConvBlock(C)),
    "focal": (
        as_maps,
        lambda: FocalNetBlock(C, focal_level=2, focal_window=3, layerscale_value=None),
    ),
    "transformer": (as_tokens, lambda: Block(C, 4, qkv_bias=True)),
    "swin": (
        as_channels_last,
        lambda: SwinTransformerBlock(
            C, (SIDE, SIDE), 4, norm_layer=partial(nn.LayerNorm, eps=1e-6)
        ),
    ),
    "poolformer": (
        as_maps,
        lambda: MetaFormerBlock(C, token_mixer=Pooling, mlp_act=nn.GELU, mlp_bias=True),
    ),
    "mixer": (as_tokens, lambda: MixerBlock(C, SIDE**2)),
    "resmlp": (as_tokens, _without_layer_scale),
    "gmlp": (as_tokens, lambda: SpatialGatingBlock(C, SIDE**2, mlp_ratio=6.0)),
}


def copy_weights(into: nn.Module, source: nn.Module) -> None:
    """Copy weights; linear layers and 1x1 convolutions take each other's."""
    pairs = zip(into.parameters(), source.parameters(), strict=True)
    with torch.no_grad():
        for here, there in pairs:
            here.copy_(there.view_as(here))


@pytest.mark.parametrize("family", TIMM)
@pytest.mark.parametrize("training", [True, False])
def test_block_is_timms(family: str, training: bool) -> None:
    torch.manual_seed(1)
    layout, make = TIMM[family]
    oracle, x = make().train(training), torch.randn(2, C, SIDE, SIDE)
    for parameter in oracle.parameters():
        nn.init.normal_(parameter, std=0.2)
    head = build_head(HeadConfig(family=family, depth=1, first_shortcut=True), C).train(training)
    copy_weights(head.blocks, oracle)
    torch.testing.assert_close(head(x).map, layout(oracle, x), atol=1e-4, rtol=1e-4)


def test_shifted_windows_are_timms_where_they_divide_the_map() -> None:
    torch.manual_seed(1)
    norm = partial(nn.LayerNorm, eps=1e-6)
    first, second = (
        SwinTransformerBlock(C, (14, 14), 4, shift_size=shift, norm_layer=norm) for shift in (0, 3)
    )
    oracle, x = nn.Sequential(first, second), torch.randn(2, C, 14, 14)
    for parameter in oracle.parameters():
        nn.init.normal_(parameter, std=0.2)
    head = build_head(HeadConfig(family="swin", depth=2, first_shortcut=True), C)
    copy_weights(head.blocks, oracle)
    torch.testing.assert_close(head(x).map, as_channels_last(oracle, x), atol=1e-4, rtol=1e-4)
