"""The sensitivity of an operator's output to its input: rows of the Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]
"""B x c x h x w to B x C x h x w."""


def pulled_back(operator: Operator, x: Tensor, cotangent: Callable[[Tensor], Tensor]) -> Tensor:
    """Return J^T v of each input for v = cotangent(output); 0 where the output does not depend on
    the input.

    Args:
        operator: B x c x h x w to B x C x h x w.
        x: B x c x h x w inputs.
        cotangent: makes v, B x C x h x w, of the output.

    Returns:
        B x c x h x w.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        output = operator(x)
        if not output.requires_grad:
            return torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(
            output, x, cotangent(output.detach()), materialize_grads=True
        )
    return gradient
