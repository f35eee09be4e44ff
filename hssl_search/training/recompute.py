"""Training in less memory: activations inside a block are computed again when its gradient is,
instead of kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hssl_search.training.pair import Network

Precision = Callable[[], contextlib.AbstractContextManager[Any]]
"""Makes the autocast context in which the network runs."""


def recompute_blocks(network: Network, precision: Precision) -> None:
    """Make every block of base and heads keep its input alone (activation checkpointing, arXiv
    1604.06174).

    Losses, gradients, BatchNorm's statistics and random numbers stay as they are, at the cost of
    one more forward pass. Smaller micro-batches would not do that: BatchNorm, of which nearly every
    base and projector is made, would see other statistics, and a contrastive loss fewer negatives
    (caching gradients, arXiv 2101.06983, mends only the latter).

    Args:
        network: whose blocks change in place.
        precision: the autocast context in which the network is called.
    """
    for part in (network.base.model, *network.heads):
        # A model without lists of layers is recomputed child by child.
        for block in list(blocks(part)) or filter(_composed, part.children()):
            block.forward = partial(_recomputed, block, block.forward, precision)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the elements of the innermost lists of layers, a residual or a transformer block
    each.
    """
    for child in module.children():
        if inner := list(blocks(child)):
            yield from inner
        elif isinstance(module, nn.Sequential | nn.ModuleList) and _composed(child):
            yield child


def _composed(module: nn.Module) -> bool:
    """Tell whether a module holds more than one layer with parameters."""
    return sum(any(True for _ in layer.parameters(recurse=False)) for layer in module.modules()) > 1


def _recomputed(
    block: nn.Module, forward: Callable[..., Any], precision: Precision, *args: Any, **kwargs: Any
) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)

    def contexts() -> tuple[contextlib.AbstractContextManager[Any], Any]:
        """Return those of the first and of the second forward pass."""
        return contextlib.nullcontext(), _again(block, precision)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextlib.contextmanager
def _again(block: nn.Module, precision: Precision) -> Iterator[None]:
    """Make the second forward pass use the kernels of the first, and not count for BatchNorm's
    running statistics.
    """
    # A momentum of 0 keeps the running statistics, and None stops the count of batches.
    counting = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in counting]
    for layer in counting:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        with precision():
            yield
    finally:
        for layer, (momentum, tracked) in zip(counting, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, tracked
