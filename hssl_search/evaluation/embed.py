"""Embeddings of images, in float32: neighbours are lost to the rounding of bf16."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hssl_search.backbones import Base
from hssl_search.data.resident import Images
from hssl_search.heads.head import Head

BATCH = 256
Make = Callable[[Tensor], Tensor]
"""What is embedded of a B x 3 x S x S uint8 batch: `Views.plain`, or a random view."""
RAW_SIDE = 32
"""Side of the pixels that stand in for an embedding; larger images would need gigabytes and gain
nothing."""


@torch.no_grad()
def embed_base(base: Base, images: Images, make: Make) -> dict[str, Tensor]:
    """Embeddings of N x 3 x S x S uint8 images, N x D float32 each: `embedding`, and `mean` for a
    model with a class token.
    """
    with _evaluating(base):
        parts = [base.embeddings(make(batch)) for batch in _batches(images)]
    return {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}


def embed_heads(
    base: Base, heads: Sequence[Head], images: Images, make: Make
) -> tuple[Tensor, list[Tensor]]:
    """(base embedding, embedding of each head) of N x 3 x S x S uint8 images, N x D float32
    each."""
    of_base, of_heads = embed_pair(base, heads, images, make)
    return of_base["embedding"], of_heads


@torch.no_grad()
def embed_pair(
    base: Base, heads: Sequence[Head], images: Images, make: Make
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """(embeddings of the base as of `embed_base`, embedding of each head), in one pass."""
    parts: list[tuple[dict[str, Tensor], list[Tensor]]] = []
    with _evaluating(base, *heads):
        for batch in _batches(images):
            features = base(make(batch))
            parts.append(
                (
                    base.embeddings_of(features),
                    [head(features.tapped[head.config.tap or 0]).embedding for head in heads],
                )
            )
    return (
        {name: torch.cat([of_base[name].float() for of_base, _ in parts]) for name in parts[0][0]},
        [
            torch.cat([of_heads[place].float() for _, of_heads in parts])
            for place in range(len(heads))
        ],
    )


def raw_pixels(images: Images) -> Tensor:
    """N x D float32 pixels of N x 3 x S x S uint8 images, shrunk to at most 32 x 32 by
    averaging."""
    side = min(RAW_SIDE, images[torch.arange(1, device=images.device)].shape[-1])
    return torch.cat(
        [F.adaptive_avg_pool2d(batch.float(), side).flatten(1) for batch in _batches(images)]
    )


def _batches(images: Images) -> Iterator[Tensor]:
    for indices in torch.arange(len(images), device=images.device).split(BATCH):
        yield images[indices]


@contextlib.contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    were_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, training in zip(modules, were_training, strict=True):
            module.train(training)
