"""Embeddings of images, in float32: the rounding of bf16 would lose neighbours."""

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
"""Images embedded at a time."""
Make = Callable[[Tensor], Tensor]
"""Makes what is embedded of a B x 3 x S x S uint8 batch: `Views.plain`, or a random view."""
RAW_SIDE = 32
"""Side of the pixels that stand in for an embedding; larger images would need gigabytes and gain
nothing."""


@torch.no_grad()
def embed_base(base: Base, images: Images, make: Make) -> dict[str, Tensor]:
    """Embed images by a base.

    Args:
        base: stays in its mode.
        images: N x 3 x S x S uint8.
        make: makes the base's input of a batch.

    Returns:
        N x D float32 each: `embedding`, and `mean` for a model with a class token.
    """
    with _evaluating(base):
        parts = [base.embeddings(make(batch)) for batch in _batches(images)]
    return {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}


def embed_heads(
    base: Base, heads: Sequence[Head], images: Images, make: Make
) -> tuple[Tensor, list[Tensor]]:
    """Embed images by a base and its heads.

    Returns:
        (base embedding, embedding of each head), N x D float32 each.
    """
    of_base, of_heads = embed_pair(base, heads, images, make)
    return of_base["embedding"], of_heads


@torch.no_grad()
def embed_pair(
    base: Base, heads: Sequence[Head], images: Images, make: Make
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Embed images by a base and its heads, in one pass.

    Args:
        base, heads: stay in their modes.
        images: N x 3 x S x S uint8.
        make: makes the base's input of a batch.

    Returns:
        (embeddings of the base as of `embed_base`, N x D float32 embedding of each head).
    """
    base_parts: list[dict[str, Tensor]] = []
    head_parts: list[list[Tensor]] = [[] for _ in heads]
    with _evaluating(base, *heads):
        for batch in _batches(images):
            features = base(make(batch))
            base_parts.append(base.embeddings_of(features))
            for head, parts in zip(heads, head_parts, strict=True):
                # A head is fed with the map that its config taps, counted from the last stage.
                parts.append(head(features.tapped[head.config.tap or 0]).embedding.float())
    of_base = {
        name: torch.cat([part[name].float() for part in base_parts]) for name in base_parts[0]
    }
    return of_base, [torch.cat(parts) for parts in head_parts]


def raw_pixels(images: Images) -> Tensor:
    """Return the pixels of the images as embeddings, shrunk to at most 32 x 32 by averaging.

    Args:
        images: N x 3 x S x S uint8.

    Returns:
        N x D float32.
    """
    # One image tells the size: what is indexed like a tensor need not have a shape.
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
