"""A network's structure without its initialisation: the same layers with weights drawn by one
rule.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def redrawn(network: Network) -> Network:
    """Return a float32 copy in evaluation mode, its parameters without gradients and drawn anew
    from torch's random state.

    Initialisations hide structure, each library's in its own way: residual branches that end in
    zeros, layer scales of 1e-6, position embeddings of 0.02. In the copy every weight is normal
    with variance 1 / fan-in, so that it keeps the variance of what it is fed (LeCun et al.,
    Efficient BackProp, 1998), every scale is 1, every shift is 0, and every free table, such as a
    position embedding, and every token is standard normal. The network itself stays as it is.
    """
    drawn = copy.deepcopy(network).float().eval().requires_grad_(False)
    # In the order of the parameters: two networks of one structure get the same weights.
    for name, parameter in drawn.named_parameters():
        parameter.copy_(_value(name, parameter))
    return drawn


def _value(name: str, parameter: Tensor) -> Tensor:
    last = name.rpartition(".")[2]
    if is_table(name, parameter):
        return torch.randn(parameter.shape)
    if "weight" in last and parameter.ndim > 1:
        return torch.randn(parameter.shape) / parameter[0].numel() ** 0.5
    is_shift = last == "beta" or last.startswith("bias") or last.endswith("bias")
    return torch.zeros(parameter.shape) if is_shift else torch.ones(parameter.shape)


def is_table(name: str, parameter: Tensor) -> bool:
    """Tell whether a parameter is no layer's weight and no scale or shift: a position embedding, a
    table of relative biases, a class token.
    """
    last = name.rpartition(".")[2]
    # A scale or shift has one side, apart from sides of 1.
    table = "token" in last or sum(side > 1 for side in parameter.shape) > 1
    return table and "weight" not in last


@torch.no_grad()
def forget_tables(network: nn.Module) -> None:
    """Set every free table to 0, in place: positions can no longer be told apart by their
    embeddings.
    """
    for name, parameter in network.named_parameters():
        if is_table(name, parameter):
            parameter.zero_()


@torch.no_grad()
def calibrate(network: nn.Module, x: Tensor) -> None:
    """Set BatchNorm statistics to those of one batch, in place: in training each BatchNorm would
    normalise by them.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0  # the running statistics become the batch's
        norm.train()
    network(x)
    for norm in norms:
        norm.eval()
