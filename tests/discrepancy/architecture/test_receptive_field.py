"""The effective receptive field, against the closed forms of linear stacks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hssl_search.discrepancy.architecture.receptive_field import field_energy, receptive_field
from hssl_search.discrepancy.architecture.torus import Torus

torch.set_num_threads(1)


def noise(channels: int, side: int, count: int = 4) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(count, channels, side, side)


class Stack(nn.Module):
    """k x k convolutions on a torus, nothing between them."""

    def __init__(
        self, depth: int, channels: int, side: int = 3, weight: float | None = None
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(
            *(
                nn.Conv2d(channels, channels, side, padding=side // 2, bias=False)
                for _ in range(depth)
            )
        )
        for layer in self.layers:
            nn.init.normal_(layer.weight) if weight is None else nn.init.constant_(
                layer.weight, weight
            )

    def forward(self, x: Tensor) -> Tensor:
        with Torus():
            return self.layers(x)


def uniform_deviation(side: int) -> float:
    """Return the root mean square distance on a ring of `side` places, along both axes."""
    return math.sqrt(2 * np.mean([min(i, side - i) ** 2 for i in range(side)]))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_gradients_of_a_stack_of_ones_are_products_of_trinomial_coefficients(depth: int) -> None:
    coefficients = np.array([1.0])
    for _ in range(depth):
        coefficients = np.convolve(coefficients, [1, 1, 1])
    squared = coefficients**2 / (coefficients**2).sum()
    expected = np.zeros(15)
    expected[: 2 * depth + 1] = squared
    expected = np.roll(expected, -depth)
    found = field_energy(Stack(depth, 1, weight=1.0), noise(1, 15))
    np.testing.assert_allclose(found.numpy(), np.outer(expected, expected), atol=1e-6)

    places = np.arange(-depth, depth + 1)
    deviation = math.sqrt(2 * (squared * places**2).sum())
    assert receptive_field(Stack(depth, 1, weight=1.0), noise(1, 15)) == pytest.approx(
        deviation / uniform_deviation(15), rel=1e-4
    )


@pytest.mark.parametrize(("depth", "side"), [(1, 3), (3, 3), (5, 3), (2, 5), (1, 7)])
def test_the_field_of_random_kernels_grows_with_the_root_of_depth(depth: int, side: int) -> None:
    # a box of k places has variance (k^2 - 1) / 12, and variances add
    deviation = math.sqrt(2 * depth * (side**2 - 1) / 12)
    found = receptive_field(Stack(depth, 24, side), noise(24, 19))
    assert found == pytest.approx(deviation / uniform_deviation(19), rel=0.05)


def test_a_pointwise_operator_sees_its_own_position_alone() -> None:
    assert receptive_field(nn.Conv2d(3, 5, 1), noise(3, 6)) == 0.0
    assert receptive_field(lambda x: x.sigmoid(), noise(3, 6)) == 0.0


def test_an_operator_that_sees_all_positions_alike_has_the_largest_field() -> None:
    def mean(x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True).expand_as(x)

    np.testing.assert_allclose(
        field_energy(mean, noise(3, 6)).numpy(), np.full((6, 6), 1 / 36), rtol=1e-6
    )
    assert receptive_field(mean, noise(3, 6)) == pytest.approx(1.0)


def test_a_shift_is_as_far_as_it_goes_the_shorter_way_around() -> None:
    found = field_energy(lambda x: x.roll((2, -1), (2, 3)), noise(2, 8))
    assert found[-2, 1] == pytest.approx(1.0)
    assert receptive_field(lambda x: x.roll((2, -1), (2, 3)), noise(2, 8)) == pytest.approx(
        math.sqrt(5) / uniform_deviation(8)
    )
    assert receptive_field(lambda x: x.roll((6, -1), (2, 3)), noise(2, 8)) == pytest.approx(
        math.sqrt(5) / uniform_deviation(8)
    )


def test_an_operator_that_ignores_its_input_sees_nothing() -> None:
    assert receptive_field(torch.randn_like, noise(3, 6)) == 0.0
    assert receptive_field(torch.zeros_like, noise(3, 6)) == 0.0


def test_a_map_of_one_position_has_nowhere_to_look() -> None:
    assert receptive_field(nn.Conv2d(3, 3, 3, padding=1), noise(3, 1)) == 0.0


def test_gradients_are_found_where_they_are_switched_off() -> None:
    with torch.no_grad():
        assert receptive_field(Stack(2, 3), noise(3, 9)) > 0
