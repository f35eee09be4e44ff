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
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.registry import Place, family


class Head(nn.Module):
    """An auxiliary head: B x C x h x w to Features, for any map size.

    Blocks of the configured family, or of a hybrid's families, at the configured width (a 1x1
    convolution leads into it where it differs from C), then the mean over positions and the head's
    own LayerNorm (official HSSL code, see docs/method.md). Which of the base's maps it is fed,
    `config.tap`, is its caller's business.

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
        mixed = self.blocks(self.entry(x))
        return Features(mixed, self.norm(mixed.mean(dim=(2, 3))))


class Noise(nn.Module):
    """Standard normal numbers in the shape of the input, new ones each time: the head from which
    nothing can be learned.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)


def head_width(config: HeadConfig, channels: int) -> int:
    """Channels inside the head: width_ratio x channels, at least 1, rounded up to a multiple of the
    attention heads.
    """
    wanted = max(1, round(channels * (config.width_ratio or 1.0)))
    step = config.attention_heads or 1
    return -(-wanted // step) * step


def _blocks(config: HeadConfig, width: int, drop_path: Sequence[float]) -> nn.Sequential:
    if config.family == "noise":
        return nn.Sequential(Noise())
    if drop_path and len(drop_path) != config.block_count:
        raise ValueError(f"{len(drop_path)} stochastic-depth rates for {config.block_count} blocks")
    return nn.Sequential(
        *(
            _block(config, width, index, drop_path[index] if drop_path else 0.0)
            for index in range(config.block_count)
        )
    )


def _block(config: HeadConfig, width: int, index: int, drop_path: float) -> nn.Module:
    name = config.block_families[index]
    make = family(name).make_block
    assert make is not None  # a HeadConfig has no other blocks
    place = Place(
        width,
        drop_path,
        shortcut=index > 0 or bool(config.first_shortcut),
        repeat=config.block_families[:index].count(name),
    )
    return make(config.parameters(), place)


def build_head(
    config: HeadConfig | dict[str, Any], channels: int, drop_path: Sequence[float] = ()
) -> Head:
    """A new, randomly initialised head for a map with that many channels."""
    return Head(HeadConfig.model_validate(config), channels, drop_path)


@torch.no_grad()
def head_cost(config: HeadConfig, map_shape: tuple[int, int, int]) -> tuple[int, int]:
    """(parameters, multiply-adds an image) of the head on a C x h x w map; matrix products and
    convolutions are counted.

    Nothing is computed or allocated: the head is built on torch's meta device.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        head = build_head(config, map_shape[0]).eval()
        head(torch.zeros(1, *map_shape))
    return sum(parameter.numel() for parameter in head.parameters()), counter.get_total_flops() // 2


def load_head(path: str | Path, channels: int | None = None) -> Head:
    """The head that a `head.yaml` describes, as a module ready to be trained.

    Args:
        path: a `head.yaml` as a search writes it, or one that holds a HeadConfig alone.
        channels: C of the map it will be fed; by default that of the base it was found with.

    Raises:
        UserError: when the file is missing, is not YAML, or describes no valid head.
    """
    from hssl_search.heads.files import read_head

    described = read_head(Path(path))
    return build_head(described.head, described.channels_for(channels))
