"""The windows of convolution and pooling, read from a call of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
POOLING = (F.avg_pool2d, F.max_pool2d)


@dataclass(frozen=True)
class Window:
    """The window of a convolution or pooling; one value for each axis."""

    sides: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Return the number of elements in the window."""
        return math.prod(self.sides)

    @property
    def overlaps(self) -> bool:
        """Tell whether neighbouring windows share elements, or would but for their dilation."""
        axes = zip(self.sides, self.strides, self.dilations, strict=True)
        return any(dilation * (side - 1) >= stride for side, stride, dilation in axes)

    @property
    def keeps_size(self) -> bool:
        """Tell whether the output has as many positions as the input."""
        return max(self.strides) == 1


def window_of(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Window | None:
    """Return the window of a call of torch's convolutions and pooling; None for any other
    function.
    """
    if func in CONVOLUTIONS:
        named = {**dict(zip(_CONVOLUTION, args, strict=False)), **kwargs}
        sides = tuple(named["weight"].shape[2:])
        return Window(
            sides,
            _each(named.get("stride", 1), len(sides)),
            _each(named.get("dilation", 1), len(sides)),
        )
    if func in POOLING:
        named = {**dict(zip(_POOLING, args, strict=False)), **kwargs}
        return Window(
            _each(named["kernel_size"], 2),
            # Without a stride, or with one of None, pooling windows lie side by side.
            _each(named.get("stride") or named["kernel_size"], 2),
            (1, 1),
        )
    return None


def _each(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * (axes if len(value) == 1 else 1)


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_POOLING = ("input", "kernel_size", "stride", "padding")
