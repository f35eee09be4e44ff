"""Networks on a torus, against maps that are tiled so that there is no border to see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BlurPool2d, create_conv2d
from torch import Tensor, nn

from hssl_search.discrepancy.architecture.torus import Torus

torch.set_num_threads(1)

C = 4
LAYERS = {
    "convolution": nn.Conv2d(C, 5, 3, padding=1),
    "strided": nn.Conv2d(C, 5, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(C, 5, 3, padding=(2, 4), dilation=(2, 4)),
    "flat": nn.Conv2d(C, 5, (1, 5), padding=(0, 2)),
    "same": nn.Conv2d(C, 5, (3, 5), padding="same"),
    "valid": nn.Conv2d(C, 5, 2, stride=2, padding="valid"),
    "wider than the map": nn.Conv2d(C, C, 21, padding=10, groups=C),
    "padded by timm": create_conv2d(C, 5, 3, stride=2, padding="same"),
    "maximum": nn.MaxPool2d(3, 2, 1),
    "maximum to the end": nn.MaxPool2d(3, 2, ceil_mode=True),
    "average": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "average to the end": nn.AvgPool2d(2, 2, ceil_mode=True),
    "blur": BlurPool2d(C, filt_size=3, stride=2),
    "padding": nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(C, 5, 4)),
}


def image(side: int = 8) -> Tensor:
    return torch.randn(2, C, side, side, generator=torch.Generator().manual_seed(0))


def on_torus(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with Torus(), torch.no_grad():
        return layer(x)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_sees_the_map_tiled_without_end(name: str) -> None:
    x = image()
    found = on_torus(LAYERS[name], x)
    with torch.no_grad():
        tiled = LAYERS[name](x.repeat(1, 1, 7, 7))
    side = found.shape[2]
    torch.testing.assert_close(found, tiled[:, :, 3 * side : 4 * side, 3 * side : 4 * side])


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_commutes_with_shifts_by_its_stride(name: str) -> None:
    x = image()
    after = on_torus(LAYERS[name], x)
    stride = 8 // after.shape[2]
    torch.testing.assert_close(
        on_torus(LAYERS[name], x.roll((stride, -stride), (2, 3))), after.roll((1, -1), (2, 3))
    )


@pytest.mark.parametrize("side", [5, 6, 7, 8, 9])
@pytest.mark.parametrize("window", [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 3, 1), (1, 2, 0)])
def test_maps_get_the_size_that_they_have_elsewhere(
    side: int, window: tuple[int, int, int]
) -> None:
    for layer in (
        nn.MaxPool2d(*window, ceil_mode=True) if 2 * window[2] <= window[0] else nn.Identity(),
        nn.AvgPool2d(*window, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(C, 5, *window),
    ):
        assert on_torus(layer, image(side)).shape == layer(image(side)).shape


def test_other_padding_is_left_alone() -> None:
    x = image()
    for pad in ((-1, -1, -1, -1), (0, 0, 1, 1, 2, 2)):
        assert torch.equal(on_torus(lambda y, pad=pad: F.pad(y, pad), x), F.pad(x, pad))


def test_outside_of_it_borders_are_borders() -> None:
    x = image()
    before = LAYERS["convolution"](x)
    on_torus(LAYERS["convolution"], x)
    assert torch.equal(LAYERS["convolution"](x), before)
    assert not torch.allclose(on_torus(LAYERS["convolution"], x), before)
