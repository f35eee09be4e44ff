"""Parts that blocks are put together from, beside timm's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.layers import DropPath, LayerNorm2d, Mlp
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Where in its head a block stands."""

    width: int
    """Channels in and out."""
    drop_path: float = 0.0
    """Stochastic-depth rate of what lies beside a shortcut."""
    shortcut: bool = True
    """Whether the block has its shortcut; of two, that of the part that mixes positions."""
    repeat: int = 0
    """How many blocks of the same family come before it."""

    @property
    def rate(self) -> float:
        """Stochastic-depth rate of the part whose shortcut can be missing; 0 without the shortcut,
        as in the official HSSL code.
        """
        return self.drop_path if self.shortcut else 0.0


class NoShortcut(nn.Module):
    """A layer of zeros, where a timm block would keep its input: it then adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Shortcut(nn.Module):
    """x + drop(part(x)), with stochastic depth; or `part(x)` alone where the shortcut is not kept.

    A part without shortcut is never dropped: nothing of the image would be left.
    """

    def __init__(self, part: nn.Module, drop_path: float, kept: bool = True) -> None:
        super().__init__()
        self.part, self.kept = part, kept
        # Only what a shortcut leads past may be dropped.
        self.drop_path = DropPath(drop_path) if kept and drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.part(x)) if self.kept else self.part(x)


class ChannelsLast(nn.Module):
    """A part for B x H x W x C, applied to B x C x H x W."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.part(x.permute(0, 2, 3, 1))
        return changed.permute(0, 3, 1, 2)


def hidden_width(width: int, ratio: float) -> int:
    """Return the channels of a share of the head's width, whole and at least one."""
    return max(1, int(width * ratio))


def one_part(place: Place, part: nn.Module) -> Shortcut:
    """Make a block of one part, beside the block's shortcut."""
    return Shortcut(part, place.drop_path, place.shortcut)


def two_parts(
    place: Place,
    mixer: nn.Module,
    mlp_ratio: float,
    norm: Callable[[int], nn.Module] = LayerNorm2d,
    act: type[nn.Module] = nn.GELU,
    bias: bool = True,
) -> nn.Sequential:
    """Make a block that mixes positions and then channels (MetaFormer, arXiv 2111.11418, equations
    1 and 2).

    Each of the two stands behind a norm and beside a shortcut. The shortcut that a block can lack
    is that of its mixing part; the MLP keeps its own.

    Args:
        place: where in its head the block stands.
        mixer: mixes positions, B x width x H x W in and out.
        mlp_ratio: hidden width of the MLP, as a share of the width.
        norm: makes a norm for a number of channels.
        act: the MLP's nonlinearity.
        bias: whether the MLP's layers have biases.
    """
    mlp = Mlp(
        place.width, hidden_width(place.width, mlp_ratio), act_layer=act, bias=bias, use_conv=True
    )
    return nn.Sequential(
        Shortcut(nn.Sequential(norm(place.width), mixer), place.drop_path, place.shortcut),
        Shortcut(nn.Sequential(norm(place.width), mlp), place.drop_path),
    )
