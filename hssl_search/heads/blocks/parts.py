"""What blocks are put together from, beside timm's own parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import DropPath, LayerNorm2d, Mlp
from torch import Tensor, nn

from hssl_search.heads.registry import Place


class NoShortcut(nn.Module):
    """Stands where a timm block would keep its input, and adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Shortcut(nn.Module):
    """x + drop(part(x)), with stochastic depth; or `part(x)` alone, which is never dropped: nothing
    of the image would be left.
    """

    def __init__(self, part: nn.Module, drop_path: float, kept: bool = True) -> None:
        super().__init__()
        self.part, self.kept = part, kept
        self.drop_path = DropPath(drop_path) if kept and drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.part(x)) if self.kept else self.part(x)


class ChannelsLast(nn.Module):
    """A part for B x H x W x C, on B x C x H x W."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.part(x.permute(0, 2, 3, 1))
        return changed.permute(0, 3, 1, 2)


def hidden_width(width: int, ratio: float) -> int:
    """Whole channels of a share of the head's width, at least one."""
    return max(1, int(width * ratio))


def one_part(place: Place, part: nn.Module) -> Shortcut:
    """A block of one part, beside the block's shortcut."""
    return Shortcut(part, place.drop_path, place.shortcut)


def two_parts(
    place: Place,
    mixer: nn.Module,
    mlp_ratio: float,
    norm: Callable[[int], nn.Module] = LayerNorm2d,
    act: type[nn.Module] = nn.GELU,
    bias: bool = True,
) -> nn.Sequential:
    """What mixes positions and then an MLP, each behind a norm and beside a shortcut (MetaFormer,
    arXiv 2111.11418, eq. 1 and 2).

    The shortcut that a block can lack is that of its mixing part; the MLP keeps its own.
    """
    mlp = Mlp(
        place.width, hidden_width(place.width, mlp_ratio), act_layer=act, bias=bias, use_conv=True
    )
    return nn.Sequential(
        Shortcut(nn.Sequential(norm(place.width), mixer), place.drop_path, place.shortcut),
        Shortcut(nn.Sequential(norm(place.width), mlp), place.drop_path),
    )
