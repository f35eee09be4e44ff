"""The head module: a map of the base in, a map and an embedding of another architecture out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm.layers import LayerNorm
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hssl_search.backbones import Features
from hssl_search.heads.blocks.parts import Place
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.families import family
from hssl_search.heads.files import read_head


class Head(nn.Module):
    """An auxiliary head, from B x C x h x w maps of any size to Features.

    Blocks of the configured family, or of a hybrid's families, at the configured width (a 1x1
    convolution leads into it where it differs from C), then the mean over positions and the head's
    own LayerNorm (official HSSL code, see docs/method.md). The caller picks the map of the base
    that `config.tap` names.

    Args:
        config: what to build.
        channels: C of the map that the head is fed.
        drop_path: stochastic-depth rate of each block; empty for none.
    """

    def __init__(self, config: HeadConfig, channels: int, drop_path: Sequence[float] = ()) -> None:
        super().__init__()
        self.config, self.channels = config, channels
        self.width = head_width(config, channels)
        self.entry = nn.Conv2d(channels, self.width, 1) if self.width != channels else nn.Identity()
        self.blocks = _blocks(config, self.width, drop_path)
        self.norm = LayerNorm(self.width)

    def forward(self, x: Tensor) -> Features:
        """Return the last map, B x width x h x w, and the embedding, B x width."""
        mixed = self.blocks(self.entry(x))
        return Features(mixed, self.norm(mixed.mean(dim=(2, 3))))


class Noise(nn.Module):
    """The head from which nothing can be learned: new standard normal numbers in the shape of its
    input.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)


def head_width(config: HeadConfig, channels: int) -> int:
    """Return the channels inside the head: width_ratio x channels, at least 1, rounded up to a
    multiple of the attention heads.
    """
    # A control has no ratio, and keeps the channels of its map.
    wanted = max(1, round(channels * (config.width_ratio or 1.0)))
    step = config.attention_heads or 1
    return -(-wanted // step) * step  # rounded up


def _blocks(config: HeadConfig, width: int, drop_path: Sequence[float]) -> nn.Sequential:
    if config.family == "noise":
        return nn.Sequential(Noise())
    if drop_path and len(drop_path) != config.block_count:
        raise ValueError(f"{len(drop_path)} stochastic-depth rates for {config.block_count} blocks")
    # The first block may lack its shortcut, which enlarges the discrepancy (official HSSL code).
    blocks = []
    for index, name in enumerate(config.block_families):
        place = Place(
            width,
            drop_path[index] if drop_path else 0.0,
            shortcut=index > 0 or bool(config.first_shortcut),
            repeat=config.block_families[:index].count(name),
        )
        blocks.append(family(name).make_block(config.parameters(), place))
    return nn.Sequential(*blocks)


def build_head(
    config: HeadConfig | dict[str, Any], channels: int, drop_path: Sequence[float] = ()
) -> Head:
    """Build a new, randomly initialised head.

    Args:
        config: a HeadConfig, or its keys and values.
        channels: C of the map that the head is fed.
        drop_path: stochastic-depth rate of each block; empty for none.

    Raises:
        ValueError: for values that no head may have, or another number of rates than of blocks.
    """
    return Head(HeadConfig.model_validate(config), channels, drop_path)


@torch.no_grad()
def head_cost(config: HeadConfig, map_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Count what a head costs: its parameters, and its multiply-adds an image in matrix products
    and convolutions.

    Nothing is computed or allocated: the head is built on torch's meta device.

    Args:
        config: the head.
        map_shape: C, h and w of the map that it is fed.

    Returns:
        (parameters, multiply-adds an image).
    """
    # One image in evaluation mode, since BatchNorm would need two in training.
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        head = build_head(config, map_shape[0]).eval()
        head(torch.zeros(1, *map_shape))
    return sum(parameter.numel() for parameter in head.parameters()), counter.get_total_flops() // 2


def load_head(path: str | Path, channels: int | None = None) -> Head:
    """Build the head that a `head.yaml` describes, as a module ready to be trained.

    Args:
        path: a `head.yaml` as a search writes it, or one that holds a HeadConfig alone.
        channels: C of the map that it will be fed; by default that of the base it was found with.

    Raises:
        UserError: when the file is missing, is not YAML, or describes no valid head.
    """
    file = read_head(Path(path))
    return build_head(file.head, file.channels_for(channels))
