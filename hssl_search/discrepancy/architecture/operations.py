"""The operations of a network: their multiply-adds, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from hssl_search.discrepancy.architecture.windows import CONVOLUTIONS, POOLING, window_of

KINDS = ("convolution", "attention", "pointwise", "other")
"""Kinds of operations; `operations` describes them."""


@dataclass(frozen=True)
class Operation:
    """One operation of a pass that has multiply-adds."""

    kind: str
    """One of `KINDS`."""
    multiply_adds: int
    keeps_size: bool
    """Whether its output has as many positions as its input: it has no window with strides."""
    modules: tuple[nn.Module, ...]
    """The modules that were running, outermost first."""


def operations(network: nn.Module, x: Tensor) -> list[Operation]:
    """Return all operations with multiply-adds of one pass, each of one of four kinds.

    * `convolution`: windows that overlap. A convolution whose stride is at least its kernel, such
      as a patch embedding, is pointwise.
    * `attention`: products of two activations, as of queries and keys, and the projections beside
      them: every pointwise layer below a module that computes such a product itself.
    * `pointwise`: weights that mix channels at a position.
    * `other`: other mixing of positions: weights that multiply positions (token MLPs, spatial
      gates), recurrent layers, and pooling windows, one for each element. Sums over all positions
      are not counted.

    Nothing is told by names. Activations are the tensors that require gradients, since the input
    does and weights do not; what does not depend on the input is not counted. Positions are the
    axis along which a spatially uniform input makes no difference: weights that multiply along it
    mix positions.

    Args:
        network: parameters without gradients; nothing in it, such as a border or a position
            embedding, may tell positions apart.
        x: B x c x h x w, each input uniform over its positions; B >= 2, and not all inputs alike.
    """
    observer = _Observer()
    with torch.enable_grad(), observer.flops, _modules_of(network, observer.running), observer:
        network(x.detach().requires_grad_())
    # The modules that attend are known only now, and queries come before their product.
    seen = observer.seen
    attending = {operation.modules[-1] for operation in seen if operation.kind == "attention"}
    return [
        replace(operation, kind="attention")
        if operation.kind == "pointwise" and not attending.isdisjoint(operation.modules)
        else operation
        for operation in seen
    ]


class _Observer(TorchFunctionMode):
    """A mode that notes every operation with multiply-adds, and keeps positions alike behind those
    that would tell them apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = FlopCounterMode(display=False)
        self.running: list[nn.Module] = []
        self.seen: list[Operation] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        # Torch counts two operations for a multiply-add.
        before = self.flops.get_total_flops()
        output = func(*args, **named)
        count = (self.flops.get_total_flops() - before) // 2 or _unknown_to_torch(
            func, args, named, output
        )
        operands = list(_activations([*args, *named.values()])) if count else []
        if not operands:
            return output
        window, axis = window_of(func, args, named), _mixed_positions(func, args, operands)
        kind = "other" if axis is not None else _kind(func, args, named, operands)
        self.seen.append(
            Operation(kind, count, window is None or window.keeps_size, tuple(self.running))
        )
        if axis is None:
            return output
        # Weights of their own tell positions apart; their mean keeps them alike for what follows.
        return torch.zeros_like(output) + output.mean(dim=axis, keepdim=True)


def _kind(
    func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], operands: list[Tensor]
) -> str:
    """Return the kind of an operation that is known not to multiply positions by weights as if they
    were channels.
    """
    window = window_of(func, args, kwargs)
    if func in POOLING or func == torch.lstm:
        return "other"
    if window is None:
        return "attention" if len(operands) > 1 else "pointwise"
    # A one-dimensional convolution over channels, as in efficient channel attention, gates them.
    over_channels = func == F.conv1d and not _alike(operands[0], 2)
    return "convolution" if window.overlaps and not over_channels else "pointwise"


def _mixed_positions(
    func: Callable[..., Any], args: Sequence[Any], operands: list[Tensor]
) -> int | None:
    """Return the axis of positions along which weights multiply the one activation; None where they
    do not.
    """
    if func in CONVOLUTIONS:
        axis = 1  # a map whose positions lie where channels do, as in a token MLP of 1x1 kernels
    elif func in _PRODUCTS and len(operands) == 1:
        axis = -1 if operands[0] is args[0] else -2
    else:
        return None
    return axis if _alike(operands[0], axis) else None


def _alike(x: Tensor, axis: int) -> bool:
    """Tell whether x is the same all along an axis, though not everywhere."""
    # Relative to the variation over all, since activations have any scale.
    x = x.detach()
    variation = x.std()
    # More than rounding, as attention that is uniform over uniform tokens leaves it.
    differs = variation > 1e-4 * x.abs().max()
    return x.shape[axis] > 1 and bool(
        differs & ((x - x.narrow(axis, 0, 1)).abs().max() < 1e-3 * variation)
    )


def _activations(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor) and value.requires_grad:
            yield value
        elif isinstance(value, list | tuple):
            yield from _activations(value)


def _unknown_to_torch(
    func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], output: Any
) -> int:
    """Return the multiply-adds that FlopCounterMode leaves out: pooling windows, and the weights of
    recurrent layers at each step.
    """
    if func in POOLING and (window := window_of(func, args, kwargs)):
        return int(output.numel()) * window.elements
    if func == torch.lstm:
        steps = args[0].numel() // args[0].shape[-1]
        return steps * sum(weight.numel() for weight in args[2] if weight.ndim > 1)
    return 0


@contextmanager
def _modules_of(network: nn.Module, running: list[nn.Module]) -> Iterator[None]:
    """Keep `running` up to date: the modules of the network that are running, outermost first."""

    def enter(module: nn.Module, _: Any) -> None:
        running.append(module)

    def leave(*_: Any) -> None:
        running.pop()

    hooks = [
        hook
        for module in network.modules()
        for hook in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


_PRODUCTS = (F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)
