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

from hssl_search.heads.blocks.parts import ChannelsLast, Place, hidden_width, one_part, two_parts


def mlp(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make an MLP over channels, which never mixes positions."""
    layers = Mlp(place.width, hidden_width(place.width, parameters["mlp_ratio"]), use_conv=True)
    return one_part(place, nn.Sequential(LayerNorm2d(place.width), layers))


class OnGrid(nn.Module):
    """A part with weights for each position, on maps of any size: B x C x H x W in and out.

    The map is resampled to `grid` x `grid` positions, mixed there as B x C x N, and resampled back;
    a map of that size is not resampled. On a larger map the part therefore sees and changes what is
    coarse, and what is fine passes by the shortcut alone.
    """

    def __init__(self, part: nn.Module, grid: int) -> None:
        super().__init__()
        self.part, self.grid = part, (grid, grid)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.part(resample(x, self.grid).flatten(2))
        return resample(mixed.unflatten(2, self.grid), x.shape[2:])


def resample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resample ... x H x W to ... x size, bilinear; where it shrinks, every position counts
    (antialiased). A tensor of that size is returned as it is.

    Computed as products with two matrices, which are deterministic on every device and run in every
    precision.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    rows, columns = (_weights(old, new, x) for old, new in zip(x.shape[-2:], size, strict=True))
    return ((x @ columns.mT).mT @ rows.mT).mT


def _weights(old: int, new: int, like: Tensor) -> Tensor:
    """Return new x old numbers: how much each old position counts in each new one."""
    # Each row is an image with one bright position: interpolating it gives that position's weights.
    positions = torch.eye(old, device=like.device)[None, None]
    weights = F.interpolate(positions, (new, old), mode="bilinear", antialias=True)[0, 0]
    return weights.to(like.dtype)


def mixer(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make an MLP-Mixer block (arXiv 2105.01601), whose token MLP is half as wide as the head, as
    in the paper.
    """
    tokens = Mlp(parameters["grid_size"] ** 2, hidden_width(place.width, 0.5))
    return two_parts(place, OnGrid(tokens, parameters["grid_size"]), parameters["mlp_ratio"])


def resmlp(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make a ResMLP block (arXiv 2105.03404), with affine layers in place of norms."""
    linear = nn.Linear(parameters["grid_size"] ** 2, parameters["grid_size"] ** 2)
    return two_parts(
        place,
        OnGrid(linear, parameters["grid_size"]),
        parameters["mlp_ratio"],
        norm=lambda width: ChannelsLast(Affine(width)),
    )


class Transposed(nn.Module):
    """A part for B x N x C, applied to B x C x N."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.part(x.mT)
        return changed.mT


def gmlp(parameters: Mapping[str, Any], place: Place) -> nn.Module:
    """Make a gMLP block (arXiv 2105.08050): one MLP, half of which is gated by a linear layer over
    positions.
    """
    # Two equal halves, the second of which gates the first.
    inner = 2 * hidden_width(place.width, parameters["mlp_ratio"] / 2)
    gate: Any = partial(SpatialGatingUnit, seq_len=parameters["grid_size"] ** 2)
    gated: Any = GatedMlp(place.width, inner, gate_layer=gate)
    # The gate begins at 1, as in the paper. Its weights stay as torch draws them: near zero, as in
    # the paper, they would mix no positions for most of a head's life.
    nn.init.ones_(gated.gate.proj.bias)
    return one_part(
        place,
        nn.Sequential(LayerNorm2d(place.width), OnGrid(Transposed(gated), parameters["grid_size"])),
    )
