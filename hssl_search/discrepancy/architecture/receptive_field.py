"""The effective receptive field: how far around a position an output looks."""

from __future__ import annotations

import torch
from torch import Tensor

from hssl_search.discrepancy.architecture.sensitivity import Operator, pulled_back


def field_energy(operator: Operator, x: Tensor) -> Tensor:
    """Return the h x w energies, sum 1, of the gradient of one position's output with respect to
    the input; the position itself is at (0, 0).

    arXiv 1701.04128, section 2, with squared gradients: those of a linear stack of random k x k
    convolutions are in the mean the n-fold convolution of a k x k box (section 2.2). Signs drawn at
    random over the output's channels sum over all of them in one backward pass. Averaged over the
    inputs, each asked at another position. All 0 for an operator that ignores its input.

    Args:
        operator: B x c x h x w to B x C x h x w; periodic, so that (h - 1, w - 1) is next to (0,
            0).
        x: B x c x h x w inputs.
    """
    count, height, width = len(x), *x.shape[2:]
    # Each image is asked at a place of its own, along the diagonal.
    places = [(image * height // count, image * width // count) for image in range(count)]

    def signs_at_places(output: Tensor) -> Tensor:
        asked = torch.zeros(output.shape)
        for image, (row, column) in enumerate(places):
            asked[image, :, row, column] = torch.randn(output.shape[1]).sign()
        return asked.to(output)

    energy = pulled_back(operator, x, signs_at_places).double().square().sum(dim=1)
    total = torch.zeros_like(energy[0])
    for of_image, (row, column) in zip(energy, places, strict=True):
        total = total + of_image.roll((-row, -column), (0, 1))
    return total / total.sum() if total.any() else total


def receptive_field(operator: Operator, x: Tensor) -> float:
    """Return the radius of the effective receptive field, 0 to 1: 0 looks at its own position
    alone, 1 at all positions alike.

    The root mean square distance of `field_energy`, divided by that of a uniform field: the
    standard deviation by which arXiv 1701.04128 measures the field (it grows with the square root
    of the depth), in units of the map. Arguments as of `field_energy`.
    """
    energy = field_energy(operator, x)
    places = (torch.arange(side).to(energy) for side in energy.shape)
    # Squared distances from place 0 of a ring to each of its places.
    rows, columns = (torch.minimum(place, len(place) - place).square() for place in places)
    squared = rows[:, None] + columns[None, :]
    if not squared.any():
        return 0.0  # a map of one position
    # A field that is denser at the far side than nearby would be beyond a uniform one.
    return min(float(((energy * squared).sum() / squared.mean()).sqrt()), 1.0)
