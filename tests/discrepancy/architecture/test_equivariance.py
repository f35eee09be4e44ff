"""Shift equivariance, where it is known."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from hssl_search.discrepancy.architecture.equivariance import equivariance_error
from hssl_search.discrepancy.architecture.torus import Torus

torch.set_num_threads(1)

C, SIDE = 8, 6


def noise(count: int = 4, side: int = SIDE) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(count, C, side, side)


class Attending(nn.Module):
    def __init__(self, positions: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.block = Block(C, num_heads=2)
        self.positions = positions * torch.randn(1, SIDE * SIDE, C)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2) + self.positions
        return self.block(tokens).transpose(1, 2).reshape(x.shape)


def test_a_convolution_without_borders_moves_along() -> None:
    convolution = nn.Sequential(
        nn.Conv2d(C, C, 3, padding=1), nn.ReLU(), nn.Conv2d(C, C, 5, padding=2)
    )
    with Torus():
        assert equivariance_error(convolution, noise()) == pytest.approx(0, abs=1e-10)
    assert equivariance_error(convolution, noise()) > 0.01


def test_attention_moves_along_unless_it_is_told_positions() -> None:
    assert equivariance_error(Attending(0), noise()) == pytest.approx(0, abs=1e-10)
    errors = [equivariance_error(Attending(positions), noise()) for positions in (0.1, 0.5, 2.0)]
    assert errors[0] > 1e-3 and errors == sorted(errors)


def test_the_error_is_the_energy_share_of_what_is_tied_to_its_place() -> None:
    torch.manual_seed(1)
    tied = torch.randn(1, C, 32, 32)
    for weight in (0.5, 1.0, 2.0):
        error = equivariance_error(lambda x, weight=weight: x + weight * tied + 7, noise(2, 32))
        assert error == pytest.approx(weight**2 / (1 + weight**2), rel=0.05)


def test_scale_does_not_matter() -> None:
    attending = Attending(0.5)
    assert equivariance_error(lambda x: 1e4 * attending(x), noise()) == pytest.approx(
        equivariance_error(attending, noise()), rel=1e-4
    )


def test_unrelated_outputs_have_the_whole_error_and_constant_ones_none() -> None:
    assert equivariance_error(torch.randn_like, noise(side=16)) == pytest.approx(1, abs=0.05)
    assert equivariance_error(torch.ones_like, noise()) == 0.0


def test_the_error_is_at_most_one() -> None:
    sign = (-1.0) ** torch.arange(SIDE)[:, None].expand(SIDE, SIDE)
    assert equivariance_error(lambda x: x * sign, noise()) == 1.0
