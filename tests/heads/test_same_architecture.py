"""The same-architecture control follows what the base is made of."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from hssl_search.heads.families import families
from hssl_search.heads.same_architecture import KNOWN, same_architecture_head


def model(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0)


@pytest.mark.parametrize(
    ("base", "family"),
    [
        ("test_resnet", "resnet"),
        ("test_convnext", "convnext"),
        ("test_efficientnet", "mbconv"),
        ("test_byobnet", "bottleneck"),
        ("test_nfnet", "bottleneck"),
        ("test_mambaout", "mambaout"),
        ("test_vit", "transformer"),
        ("test_vit_relpos", "transformer"),
        ("test_coatnet", "transformer"),
        ("test_maxvit", "swin"),
    ],
)
def test_family_is_that_of_the_base(base: str, family: str) -> None:
    assert same_architecture_head(model(base)).family == family


@pytest.mark.parametrize(
    ("base", "family"),
    [
        ("resnet50", "bottleneck"),
        ("regnety_002", "bottleneck"),
        ("mobilenetv3_small_050", "mbconv"),
        ("convformer_s18", "sepconv"),
        ("convmixer_768_32", "convmixer"),
        ("focalnet_tiny_srf", "focal"),
        ("swin_tiny_patch4_window7_224", "swin"),
        ("swinv2_tiny_window8_256", "swin"),
        ("mixer_s32_224", "mixer"),
        ("resmlp_12_224", "resmlp"),
        ("gmlp_ti16_224", "gmlp"),
        ("poolformer_s12", "poolformer"),
    ],
)
def test_every_family_of_blocks_is_known_by_its_own_models(base: str, family: str) -> None:
    assert same_architecture_head(model(base)).family == family


@pytest.mark.parametrize(
    "base",
    [
        "caformer_s18",
        "pvt_v2_b0",
        "xcit_nano_12_p16_224",
        "mobilevit_xxs",
        "davit_tiny",
        "samvit_base_patch16",
    ],
)
def test_attention_decides_where_there_are_convolutions_too(base: str) -> None:
    assert same_architecture_head(model(base)).family == "transformer"


@pytest.mark.parametrize(
    ("base", "family"),
    [
        ("densenet121", "resnet"),
        ("vgg11", "resnet"),
        ("inception_next_atto", "convnext"),
        ("mvitv2_tiny", "transformer"),
    ],
)
def test_blocks_that_no_family_has_are_judged_by_their_layers(base: str, family: str) -> None:
    assert same_architecture_head(model(base)).family == family


def test_the_last_stage_decides() -> None:
    attends = nn.MultiheadAttention(8, 2)
    assert same_architecture_head(nn.Sequential(attends)).family == "transformer"
    staged = nn.Sequential(attends, nn.Conv2d(8, 8, 3))
    assert same_architecture_head(staged).family == "transformer"
    staged.feature_info = [{"module": "0"}, {"module": "1"}]
    assert same_architecture_head(staged).family == "resnet"


def test_patches_and_channel_mixing_alone_are_an_mlp() -> None:
    made = nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=4), nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 16, 1)
    )
    assert same_architecture_head(made).family == "mlp"


def test_all_families_of_blocks_can_be_found() -> None:
    assert set(KNOWN) | {"mlp"} == {name for name, family in families().items() if family.kind}
