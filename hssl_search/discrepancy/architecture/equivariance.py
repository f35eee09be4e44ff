"""Shift equivariance: whether an operator treats all places alike."""

from __future__ import annotations

import torch
from torch import Tensor

from hssl_search.discrepancy.architecture.sensitivity import Operator


@torch.no_grad()
def equivariance_error(operator: Operator, x: Tensor) -> float:
    """Return the share of the output's energy that does not move along when the input is shifted, 0
    to 1; 0 for a constant output.

    With S the circular shift by one position along both axes, |f(S x) - S f(x)|^2 / (|f(S x)|^2 +
    |S f(x)|^2), each channel centred over images and positions: the shift equivariance of arXiv
    1904.11486, normalised. An output that is the sum of a part that moves along and a part tied to
    its place has the energy share of the latter; unrelated outputs have 1.

    Args:
        operator: B x c x h x w to B x C x h x w, without borders: a zero-padded convolution would
            tell the border by its zeros.
        x: B x c x h x w inputs.
    """
    shifted_before = operator(x.roll((1, 1), (2, 3))).double()
    shifted_after = operator(x).roll((1, 1), (2, 3)).double()
    # A channel's mean is alike everywhere, and would count as moving along.
    shifted_before = shifted_before - shifted_before.mean(dim=(0, 2, 3), keepdim=True)
    shifted_after = shifted_after - shifted_after.mean(dim=(0, 2, 3), keepdim=True)
    energy = shifted_before.square().sum() + shifted_after.square().sum()
    if energy == 0:
        return 0.0
    # Outputs that are opposites of each other would have 2.
    return min(float((shifted_before - shifted_after).square().sum() / energy), 1.0)
