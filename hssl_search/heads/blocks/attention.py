"""Blocks that mix positions by self-attention: the reach of the whole map or of a window, with
weights that depend on the content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import build_sincos2d_pos_embed
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from hssl_search.heads.blocks.parts import ChannelsLast, Place, two_parts


class TokenBlock(nn.Module):
    """timm's transformer block on maps: every position of B x C x H x W is a token, without its
    position.

    Without the shortcut the attention's output replaces the tokens instead of being added to them;
    the MLP after it keeps its own shortcut.
    """

    def __init__(
        self, width: int, attention_heads: int, mlp_ratio: float, drop_path: float, shortcut: bool
    ) -> None:
        super().__init__()
        self.block = Block(
            width, attention_heads, mlp_ratio=mlp_ratio, qkv_bias=True, drop_path=drop_path
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        attended = self.block.attn(self.block.norm1(tokens))
        tokens = tokens + self.block.drop_path1(attended) if self.shortcut else attended
        tokens = tokens + self.block.drop_path2(self.block.mlp(self.block.norm2(tokens)))
        return tokens.transpose(1, 2).reshape(x.shape)


class Positions(nn.Module):
    """A layer that adds to B x C x H x W where each position lies: fixed sines and cosines of its
    row and column (arXiv 2104.02057), no parameters.
    """

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        # Sine and cosine of row and column: timm makes the codes in fours.
        codes = build_sincos2d_pos_embed(
            [height, width], -(-channels // 4) * 4, device=x.device, dtype=x.dtype
        )
        return x + codes[:, :channels].T.reshape(channels, height, width)


def transformer(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make a transformer block (arXiv 2010.11929); the first one of a head adds positions where
    asked.
    """
    heads, ratio = parameters["attention_heads"], parameters["mlp_ratio"]
    block = TokenBlock(place.width, heads, ratio, place.drop_path, place.shortcut)
    # Once: the shortcuts of the blocks that follow carry the positions on.
    with_positions = parameters["positions"] and place.repeat == 0
    return nn.Sequential(Positions(), block) if with_positions else block


class WindowMixing(nn.Module):
    """Self-attention within square windows (arXiv 2103.14030; timm's, with relative position bias),
    B x H x W x C in and out, for any H and W.

    Shifted windows lie half a window further on, along each side of the map that is longer than one
    window. Windows at the border are padded. Neither padding nor what the cyclic shift brings next
    to each other is attended to.
    """

    def __init__(self, width: int, attention_heads: int, window_size: int, shifted: bool) -> None:
        super().__init__()
        self.attention = WindowAttention(width, attention_heads, window_size=window_size)
        self.window, self.shifted = window_size, shifted

    def forward(self, x: Tensor) -> Tensor:
        height, width = sides = x.shape[1:3]
        padded = [-(-side // self.window) * self.window for side in sides]
        # A side of one window alone has nothing to shift: every position sees all others there.
        shifts = [self.window // 2 if self.shifted and side > self.window else 0 for side in sides]
        x = F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height)).roll(
            [-shift for shift in shifts], (1, 2)
        )
        window = (self.window, self.window)
        attended = self.attention(
            window_partition(x, window).flatten(1, 2), self._mask(x, sides, shifts)
        )
        whole = window_reverse(attended.unflatten(1, window), window, *padded).roll(shifts, (1, 2))
        return whole[:, :height, :width]

    def _mask(self, x: Tensor, sides: Sequence[int], shifts: Sequence[int]) -> Tensor | None:
        """Return which positions of a window may attend to each other.

        Args:
            x: the padded map, B x H x W x C.
            sides: height and width before the padding.
            shifts: how far the map was rolled along each.

        Returns:
            windows x N x N for the N positions of a window: 0 where one attends to another, -inf
            where not. None where all attend to all.
        """
        padded = x.shape[1:3]
        if not any(shifts) and tuple(sides) == tuple(padded):
            return None
        rows, columns = (
            self._regions(*axis, x.device) for axis in zip(sides, padded, shifts, strict=True)
        )
        # One number for each pair of row and column region; a region is less than padded + 2.
        regions = rows[:, None] * (padded[1] + 2) + columns
        windows = window_partition(regions[None, :, :, None], (self.window, self.window)).flatten(1)
        apart = windows[:, :, None] != windows[:, None, :]
        return torch.zeros(apart.shape, dtype=x.dtype, device=x.device).masked_fill(
            apart, float("-inf")
        )

    def _regions(self, side: int, padded: int, shift: int, device: torch.device) -> Tensor:
        """Return, for each position along one side after the cyclic shift, the number of its
        window; -1 for padding.
        """
        position = torch.arange(padded, device=device)
        return torch.where(
            position < side, (position + self.window - shift) // self.window, -1
        ).roll(-shift)


def swin(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make a Swin block (arXiv 2103.14030); every second one of a head shifts its windows."""
    mixer = WindowMixing(
        place.width,
        parameters["attention_heads"],
        parameters["window_size"],
        shifted=place.repeat % 2 == 1,
    )
    return two_parts(place, ChannelsLast(mixer), parameters["mlp_ratio"])
