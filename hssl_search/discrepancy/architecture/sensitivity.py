"""What an operator's output feels of its input: rows of the Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]
"""B x c x h x w to B x C x h x w."""


def pulled_back(operator: Operator, x: Tensor, cotangent: Callable[[Tensor], Tensor]) -> Tensor:
    """J^T v of each input, B x c x h x w, for v = cotangent(output); 0 where the output does not
    depend on the input.
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
