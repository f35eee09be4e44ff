"""Networks on a torus: convolutions and pooling find at a border what is at the opposite one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Torus(TorchFunctionMode):
    """A mode in which the padding of two-dimensional convolutions and pooling, and of the last two
    sides of B x C x H x W maps, wraps around.

    A strided convolution then commutes exactly with circular shifts by its stride, wherever the
    stride divides the sides.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return _WRAPPING.get(func, func)(*args, **(kwargs or {}))


def wrapped(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Return B x C x H x W with its own opposite sides around it, more than once around where the
    padding is wider than the map.
    """
    for axis, before, after in ((2, top, bottom), (3, left, right)):
        if before or after:
            places = torch.arange(-before, x.shape[axis] + after, device=x.device) % x.shape[axis]
            x = x.index_select(axis, places)
    return x


def _pair(sides: int | Sequence[int]) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[-1])


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    # torch names its paddings too: "same" puts the larger half behind, "valid" is none.
    if padding == "same":
        rows, columns = (
            reach * (side - 1)
            for reach, side in zip(_pair(dilation), weight.shape[2:], strict=True)
        )
        x = wrapped(x, columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    elif padding != "valid":
        x = _around(x, padding)
    return F.conv2d(x, weight, bias, stride, 0, dilation, groups)


def _avg_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *rest: Any,
    **named: Any,
) -> Tensor:
    missing = _missing(x, kernel_size, stride or kernel_size, padding, 1) if ceil_mode else (0, 0)
    return F.avg_pool2d(_around(x, padding, missing), kernel_size, stride, 0, False, *rest, **named)


def _max_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *rest: Any,
    **named: Any,
) -> Any:
    missing = (
        _missing(x, kernel_size, stride or kernel_size, padding, dilation) if ceil_mode else (0, 0)
    )
    return F.max_pool2d(
        _around(x, padding, missing), kernel_size, stride, 0, dilation, False, *rest, **named
    )


def _pad(x: Tensor, pad: Sequence[int], *rest: Any, **named: Any) -> Tensor:
    # Anything but borders around maps, such as a crop by negative padding, is torch's own.
    if x.ndim != 4 or len(pad) != 4 or min(pad) < 0:
        return F.pad(x, pad, *rest, **named)
    return wrapped(x, *pad)


def _around(x: Tensor, padding: int | Sequence[int], missing: tuple[int, int] = (0, 0)) -> Tensor:
    rows, columns = _pair(padding)
    return wrapped(x, columns, columns + missing[1], rows, rows + missing[0])


def _missing(x: Tensor, *window: int | Sequence[int]) -> tuple[int, int]:
    """Return the (rows, columns) that the last windows of `ceil_mode` lack: those that begin on the
    map and end beyond its padding.
    """
    lacking = []
    for size, side, step, padding, dilation in zip(x.shape[2:], *map(_pair, window), strict=True):
        reach = dilation * (side - 1) + 1
        beyond = -(size + 2 * padding - reach) % step
        lacking.append(beyond if padding + beyond < reach else 0)
    return lacking[0], lacking[1]


_WRAPPING: dict[Callable[..., Any], Callable[..., Any]] = {
    F.conv2d: _conv2d,
    F.avg_pool2d: _avg_pool2d,
    F.max_pool2d: _max_pool2d,
    F.pad: _pad,
}
