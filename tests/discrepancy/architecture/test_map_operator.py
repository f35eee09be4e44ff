"""Bases and heads as functions from maps to maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hssl_search.backbones import Base
from hssl_search.discrepancy.architecture.equivariance import equivariance_error
from hssl_search.discrepancy.architecture.map_operator import BaseOperator, HeadOperator
from hssl_search.discrepancy.architecture.receptive_field import receptive_field
from hssl_search.discrepancy.architecture.structure import calibrate, redrawn
from hssl_search.heads.head import build_head

torch.set_num_threads(1)


def operator(name: str, size: int = 32, **args: Any) -> BaseOperator:
    torch.manual_seed(0)
    return BaseOperator(Base(name, size, args).eval())


def test_the_pixels_of_a_position_are_its_channels() -> None:
    found = operator("test_vit", patch_size=8)
    assert found.input_shape == (3 * 8 * 8, 4, 4)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found(F.pixel_unshuffle(images, 8)), found.base(images).map)


def test_maps_in_are_as_large_as_maps_out() -> None:
    head = HeadOperator(build_head({"family": "mlp", "width_ratio": 0.5}, 8), (3, 5))
    for found in (operator("test_resnet", output_stride=8), operator("test_convnext", 64), head):
        assert found(found.noise(2)).shape[2:] == found.noise(2).shape[2:] == found.input_shape[1:]


def test_uniform_inputs_are_of_one_colour_each() -> None:
    head = HeadOperator(build_head({"family": "mlp"}, 8), (3, 5))
    base = operator("test_vit", patch_size=4)
    images = F.pixel_shuffle(base.uniform(2), 4)
    assert images.shape == (2, 3, 32, 32) and head.uniform(2).shape == (2, 8, 3, 5)
    for maps in (images, head.uniform(2)):
        assert torch.equal(maps, maps[:, :, :1, :1].expand_as(maps))
        assert not torch.equal(maps[0], maps[1])


@pytest.mark.parametrize(
    ("name", "size", "args"),
    [
        ("test_resnet", 32, {"output_stride": 8}),
        ("test_resnet", 33, {"output_stride": 8}),
        ("test_convnext", 96, {}),
        ("test_nfnet", 64, {}),
    ],
)
def test_a_convolutional_base_moves_along_with_its_images(
    name: str, size: int, args: dict[str, Any]
) -> None:
    found = redrawn(operator(name, size, **args))
    x = found.noise(2)
    calibrate(found, x)
    assert equivariance_error(found, x) == pytest.approx(0, abs=1e-6)


def test_a_base_without_mixing_sees_its_own_patch_alone() -> None:
    found = operator("test_vit", patch_size=4)
    for block in found.base.model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
        torch.nn.init.zeros_(block.attn.proj.bias)
    assert receptive_field(found, found.noise(4)) == 0.0
