"""Bases and heads as the same kind of thing: functions from maps to maps of as many positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hssl_search.backbones import Base
from hssl_search.discrepancy.architecture.torus import Torus
from hssl_search.heads.head import Head


class MapOperator(nn.Module, ABC):
    """B x c x h x w to B x C x h x w, on a torus.

    Attributes:
        input_shape: (c, h, w).
    """

    input_shape: tuple[int, int, int]

    def forward(self, x: Tensor) -> Tensor:
        with Torus():
            return self.map(x)

    @abstractmethod
    def map(self, x: Tensor) -> Tensor:
        """Return the network's map."""

    @abstractmethod
    def uniform(self, count: int) -> Tensor:
        """Return count x c x h x w inputs, each of one random colour all over."""

    def noise(self, count: int) -> Tensor:
        """Return count x c x h x w inputs of standard normal noise."""
        return torch.randn(count, *self.input_shape)


class HeadOperator(MapOperator):
    """A head that is fed with h x w maps."""

    def __init__(self, head: Head, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.head, self.input_shape = head, (head.channels, *map_size)

    def map(self, x: Tensor) -> Tensor:
        return self.head(x).map

    def uniform(self, count: int) -> Tensor:
        colours = torch.randn(count, self.input_shape[0], 1, 1)
        return colours.expand(count, *self.input_shape).contiguous()


class BaseOperator(MapOperator):
    """A base that is fed with images laid out as maps of its own h x w positions: the s x s pixels
    of a position are its channels, 3 s^2 of them.

    So a base and a head answer the same questions in the same unit, the position. A base without
    mixing, such as a ViT without its blocks, is as pointwise as a head without blocks.

    Images are h s pixels high: more than the base's image size where that is no whole number of
    positions, unless its weights depend on the size. Then, as where it is less, they are cut or
    continued periodically, and the seam blurs the result.
    """

    def __init__(self, base: Base) -> None:
        super().__init__()
        stages: Any = base.model.feature_info
        last = (stages if isinstance(stages, list) else stages.get_dicts())[-1]
        # Pixels from one position of the last map to the next.
        self.base, self.stride = base, int(last["reduction"])
        self.input_shape = (3 * self.stride**2, *base.map_shape[1:])

    def map(self, x: Tensor) -> Tensor:
        return self.base(self._images(x)).map

    def uniform(self, count: int) -> Tensor:
        height, width = (positions * self.stride for positions in self.input_shape[1:])
        # Uniform as images; their pixels then are the channels of uniform maps.
        images = torch.randn(count, 3, 1, 1).expand(count, 3, height, width)
        return F.pixel_unshuffle(images, self.stride)

    def _images(self, x: Tensor) -> Tensor:
        images, side = F.pixel_shuffle(x, self.stride), self.base.image_size
        lacking = [max(0, side - length) for length in images.shape[2:]]
        # On a torus: the padding repeats the image.
        images = F.pad(images, (0, lacking[1], 0, lacking[0]))
        return images[:, :, :side, :side] if "img_size" in self.base.timm_args else images
