"""Shift equivariance: whether an operator treats all places alike."""

from __future__ import annotations

import torch
from torch import Tensor

from hssl_search.discrepancy.architecture.sensitivity import Operator


@torch.no_grad()
def equivariance_error(operator: Operator, x: Tensor) -> float:
    """Share of the output's energy that does not move along when the input is shifted, 0 to 1; 0
    for a constant output.

    With S the circular shift by one position along both axes, |f(S x) - S f(x)|^2 / (|f(S x)|^2 +
    |S f(x)|^2), each channel centred over images and positions: the shift equivariance of arXiv
    1904.11486, normalised. An output that is the sum of a part that moves along and a part tied to
    its place has the energy share of the latter; unrelated outputs have 1.

    Args:
        operator: B x c x h x w to B x C x h x w, without borders: a zero-padded convolution would
            tell the border by its zeros.
        x: B x c x h x w inputs.
    """
    moved_before, moved_after = (
        _centred(y) for y in (operator(_shifted(x)), _shifted(operator(x)))
    )
    energy = moved_before.square().sum() + moved_after.square().sum()
    return (
        min(float((moved_before - moved_after).square().sum() / energy), 1.0)
        if energy != 0
        else 0.0
    )


def _shifted(x: Tensor) -> Tensor:
    return x.roll((1, 1), (2, 3))


def _centred(y: Tensor) -> Tensor:
    return y.double() - y.double().mean(dim=(0, 2, 3), keepdim=True)
