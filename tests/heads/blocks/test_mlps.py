"""Maps on a grid of another size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hssl_search.heads.blocks.mlps import OnGrid, resample
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import build_head


@pytest.mark.parametrize("size", [(14, 10), (4, 5), (7, 3), (1, 1), (9, 20)])
def test_maps_are_resampled_as_pillow_resizes_images(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=size).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((7, 7), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(
        resample(torch.from_numpy(image), (7, 7)).numpy(), expected, atol=1e-5
    )


def test_a_map_as_large_as_the_grid_is_not_touched() -> None:
    x = torch.randn(2, 3, 7, 7)
    assert resample(x, (7, 7)) is x
    assert torch.equal(OnGrid(nn.Identity(), 7)(x), x)


def test_a_part_sees_the_coarse_map_alone() -> None:
    x = torch.randn(2, 3, 14, 14)
    coarse = resample(x, (7, 7))
    torch.testing.assert_close(
        coarse, nn.functional.interpolate(x, (7, 7), mode="bilinear", antialias=True)
    )
    torch.testing.assert_close(OnGrid(nn.Identity(), 7)(x), resample(coarse, (14, 14)))


@pytest.mark.parametrize("family", ["mixer", "resmlp", "gmlp"])
def test_positions_have_weights_of_their_own_as_many_as_the_grid_has(family: str) -> None:
    torch.manual_seed(0)
    head = build_head(HeadConfig(family=family, grid_size=3), 8)
    x = torch.randn(2, 8, 3, 3)
    assert not torch.allclose(head(x.flip(3)).embedding, head(x).embedding, atol=1e-3)
    sides = {side for parameter in head.parameters() for side in parameter.shape}
    assert 9 in sides and 49 not in sides


def test_the_gate_of_gmlp_mixes_positions_from_the_start() -> None:
    torch.manual_seed(0)
    [gate] = [
        module.gate
        for module in build_head(HeadConfig(family="gmlp", depth=1), 8).modules()
        if hasattr(module, "gate")
    ]
    assert bool((gate.proj.bias == 1).all()) and gate.proj.weight.std() > 0.05
