"""Blocks of fully connected layers: over channels, and over the positions of a fixed grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import GatedMlp, LayerNorm2d, Mlp
from timm.models.mlp_mixer import Affine, SpatialGatingUnit
from torch import Tensor, nn

from hssl_search.heads.blocks.parts import ChannelsLast, hidden_width, one_part, two_parts
from hssl_search.heads.registry import Place


def mlp(given: Mapping[str, Any], place: Place) -> nn.Module:
    layers = Mlp(place.width, hidden_width(place.width, given["mlp_ratio"]), use_conv=True)
    return one_part(place, nn.Sequential(LayerNorm2d(place.width), layers))


class OnGrid(nn.Module):
    """A part with weights for each position, on maps of any size: B x C x H x W in and out.

    The map is resampled to `grid` x `grid` positions, mixed there as B x C x N, and resampled back;
    one of that size is not resampled. So on a larger map the part sees and changes what is coarse,
    and what is fine passes by the shortcut alone.
    """

    def __init__(self, part: nn.Module, grid: int) -> None:
        super().__init__()
        self.part, self.grid = part, (grid, grid)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.part(resample(x, self.grid).flatten(2))
        return resample(mixed.unflatten(2, self.grid), x.shape[2:])


def resample(x: Tensor, size: Sequence[int]) -> Tensor:
    """... x H x W to ... x size, bilinear; where it shrinks every position counts (antialiased).
    The same tensor when it has that size.

    As products with two matrices, which are deterministic on every device and run in every
    precision.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    rows, columns = (
        _weights(have, wanted, x) for have, wanted in zip(x.shape[-2:], size, strict=True)
    )
    return ((x @ columns.mT).mT @ rows.mT).mT


def _weights(have: int, wanted: int, like: Tensor) -> Tensor:
    """wanted x have: how much each position counts in each new one."""
    positions = torch.eye(have, device=like.device)[None, None]
    return F.interpolate(positions, (wanted, have), mode="bilinear", antialias=True)[0, 0].to(
        like.dtype
    )


def mixer(given: Mapping[str, Any], place: Place) -> nn.Module:
    tokens = Mlp(given["grid_size"] ** 2, hidden_width(place.width, 0.5))
    return two_parts(place, OnGrid(tokens, given["grid_size"]), given["mlp_ratio"])


def resmlp(given: Mapping[str, Any], place: Place) -> nn.Module:
    linear = nn.Linear(given["grid_size"] ** 2, given["grid_size"] ** 2)
    return two_parts(
        place,
        OnGrid(linear, given["grid_size"]),
        given["mlp_ratio"],
        norm=lambda width: ChannelsLast(Affine(width)),
    )


class Transposed(nn.Module):
    """A part for B x N x C, on B x C x N."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.part(x.mT)
        return changed.mT


def gmlp(given: Mapping[str, Any], place: Place) -> nn.Module:
    inner = 2 * hidden_width(place.width, given["mlp_ratio"] / 2)
    gate: Any = partial(SpatialGatingUnit, seq_len=given["grid_size"] ** 2)
    gated: Any = GatedMlp(place.width, inner, gate_layer=gate)
    # as in the paper; its weights near zero would mix no positions for most of a head's life
    nn.init.ones_(gated.gate.proj.bias)
    return one_part(
        place,
        nn.Sequential(LayerNorm2d(place.width), OnGrid(Transposed(gated), given["grid_size"])),
    )
