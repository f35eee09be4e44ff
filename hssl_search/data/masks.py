"""Random blockwise masks of patches, drawn on the CPU in batches (BEiT, arXiv 2106.08254, algorithm
1; iBOT, arXiv 2111.07832).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hssl_search.data.viewsconfig import MasksConfig

TRIES = 24
"""Blocks drawn for each mask. Up to a ratio of one half, fewer than 1 in 1,000 masks then miss the
wanted number; larger ratios are missed more often, since most blocks overlap."""


@torch.no_grad()
def block_masks(
    count: int, grid: tuple[int, int], config: MasksConfig, generator: torch.Generator
) -> Tensor:
    """Draw masks made of blocks: one block after the other until the wanted number of patches is
    masked, never more.

    Each mask wants 0 patches or, with probability `config.share`, a share of the grid drawn for it
    alone, rounded down. As in the official iBOT code, a block's area is drawn between the smallest
    one and what is still missing, and no block is as long as the grid. That code mostly stops short
    once less is missing than the smallest block. Here the last block is as small as need be, and
    where it would mask too much, its last patches, in reading order, are left out.

    Args:
        count: number of masks.
        grid: h and w, in patches.
        config: what is drawn.
        generator: of the CPU; all randomness comes from it.

    Returns:
        count x h x w bool, true where masked.
    """
    # All numbers are drawn at once, so that masks do not depend on how many tries others need.
    draws = torch.rand(count, 2 + 4 * TRIES, generator=generator)
    share = config.ratio + config.ratio_spread * (2 * draws[:, 1] - 1)
    # Whole numbers of patches that are still to be masked.
    missing = torch.where(draws[:, 0] < config.share, (share * math.prod(grid)).floor(), 0.0)
    masks = torch.zeros(count, *grid, dtype=torch.bool)
    for draw in draws[:, 2:].split(4, dim=1):
        if not len(growing := missing.nonzero().squeeze(1)):
            break
        room = missing[growing]
        fresh = _blocks(draw[growing], room, grid, config) & ~masks[growing]
        # The n-th fresh patch in reading order has the number n: beyond the room they are left out.
        order = fresh.flatten(1).cumsum(1, dtype=torch.int32)
        masks[growing] |= fresh & (order.view_as(fresh) <= room[:, None, None])
        missing[growing] = (room - order[:, -1]).clamp(min=0)
    return masks


def masked_places(masks: Tensor) -> Tensor:
    """Return the M places of the masked patches in V x B x h x w masks laid out in a row.

    For masks on the CPU, which know how many patches are masked.
    """
    return masks.flatten().nonzero().squeeze(1)


def patch_weights(masks: Tensor) -> Tensor:
    """Return the share of each masked patch in the mean over images and views of the mean over an
    image's masked patches.

    As in the official iBOT code, an image without a masked patch counts as 0 in the mean.

    Args:
        masks: V x B x h x w bool.

    Returns:
        M weights, the patches in the order of `masked_places`.
    """
    masked = masks.sum(dim=(2, 3), keepdim=True)
    # A patch's share of its image, divided by the number of images and views.
    return (1 / (masked * masked.numel())).expand(masks.shape)[masks]


def _blocks(draws: Tensor, missing: Tensor, grid: tuple[int, int], config: MasksConfig) -> Tensor:
    """Return one random block each, B x h x w bool, from B x 4 uniform numbers; empty where it does
    not fit into the grid.
    """
    area, aspect, row, column = draws.unbind(1)
    # Up to the smallest block while that much is missing, then only what is.
    least = missing.clamp(max=int(min(grid) * config.smallest) ** 2)
    area = (least + (missing - least) * area).clamp(min=1)
    aspect = (math.log(config.aspect) * (2 * aspect - 1)).exp()
    rows = _stretches((area * aspect).sqrt().round(), row, grid[0])
    columns = _stretches((area / aspect).sqrt().round(), column, grid[1])
    return rows[:, :, None] & columns[:, None]


def _stretches(length: Tensor, place: Tensor, side: int) -> Tensor:
    """Return B x side bools: `length` positions in a row, at least 1, at a random place; none where
    they would leave no position free.
    """
    length = length.clamp(min=1)
    start = (place * (side - length + 1)).floor()[:, None]
    position = torch.arange(side)
    return (
        (position >= start)
        & (position < start + length[:, None])
        & (length <= max(1, side - 1))[:, None]
    )
