"""Small pairs and trainers, real in every part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hssl_search.backbones import Base
from hssl_search.data.views import Batch, Views, ViewsConfig
from hssl_search.data.viewsconfig import MasksConfig
from hssl_search.heads.families import families
from hssl_search.heads.head import build_head
from hssl_search.methods.base import methods
from hssl_search.training.pair import Pair
from hssl_search.training.recipe import Stage
from hssl_search.training.trainer import Trainer

torch.set_num_threads(1)

SMALL = {
    name: {"projector_hidden": 32, "projector_out": 16}
    | ({"prototypes": 24} if "prototypes" in method.Config.model_fields else {})
    for name, method in methods().items()
}
BASE_ARGS = {
    "test_resnet": {"output_stride": 8},
    "test_vit": {"patch_size": 4},
    "test_convnext": {"output_stride": 8},
}

MakePair = Callable[..., Pair]
MakeTrainer = Callable[..., Trainer]


def make_pair(
    method: str,
    *heads: str | dict[str, Any],
    base: str | None = None,
    drop_path: float = 0.0,
    taps: int = 1,
    any_size: bool = False,
    settings: dict[str, Any] | None = None,
    **base_args: Any,
) -> Pair:
    """Make a pair whose weights depend on the arguments alone; a method with masks gets a ViT as
    its base.
    """
    torch.manual_seed(11)
    kind = methods()[method]
    base = base or ("test_vit" if kind.masks else "test_resnet")
    built = Base(base, 32, {**BASE_ARGS[base], **base_args}, taps, any_size)
    configs = [
        head
        if isinstance(head, dict)
        else {"family": head} | ({} if families()[head].control else {"depth": 1})
        for head in heads
    ]
    modules = [
        build_head(
            config, built.tap_shapes[config.get("tap", 0)][0], [drop_path] * config.get("depth", 0)
        )
        for config in configs
    ]
    return Pair(
        built, modules, kind(kind.Config(name=method, **{**SMALL[method], **(settings or {})}))
    )


def make_images(count: int = 20) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )


def make_patterns(count: int = 32) -> Tensor:
    """Make images with something to learn: each its own coarse colours, and a little noise."""
    generator = torch.Generator().manual_seed(3)
    coarse = (
        torch.rand(count, 3, 4, 4, generator=generator)
        .repeat_interleave(8, dim=2)
        .repeat_interleave(8, dim=3)
    )
    return (coarse * 200 + 50 * torch.rand(count, 3, 32, 32, generator=generator)).to(torch.uint8)


def make_trainer(
    pair: Pair,
    images: Tensor | None = None,
    steps: int = 6,
    seed: int = 5,
    views: Any = None,
    **stage: Any,
) -> Trainer:
    masked = pair.student.base.mask_grid if pair.method.masks else None
    plain = Views(
        ViewsConfig(masks=MasksConfig() if masked else None),
        32,
        *pair.student.base.mean_std,
        mask_grid=masked,
    )
    given = make_images() if images is None else images
    return Trainer(
        pair,
        Stage(**{"batch_size": 8, "precision": "fp32", **stage}),
        views or plain,
        given,
        steps,
        seed,
    )


@pytest.fixture
def pair() -> MakePair:
    return make_pair


@pytest.fixture
def trainer() -> MakeTrainer:
    """Return a function `trainer(pair, images, steps, seed, views, **stage)`."""
    return make_trainer


@pytest.fixture
def images() -> Callable[..., Tensor]:
    return make_images


@pytest.fixture
def patterns() -> Callable[..., Tensor]:
    return make_patterns


@pytest.fixture
def batch() -> Batch:
    """Return two views of four images, with masks for a method that reads them; one image has
    none.
    """
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(2, 4, 8, 8, generator=generator) < 0.3
    masks[0, 0] = False
    return Batch(torch.randn(2, 4, 3, 32, 32, generator=generator), None, masks)
