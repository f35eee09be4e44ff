"""MoCo v2 (arXiv 2003.04297): InfoNCE against a queue of earlier keys."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hssl_search.methods.base import Method, MethodConfig, mean_over_views, register

LOWEST = torch.finfo(torch.float32).min
"""Logit of an empty place. It has no share in a softmax, and unlike -inf it gives no NaN in the
gradients where all places are empty."""


class MoCoV2Config(MethodConfig):
    """Two layers and 128 outputs as in the paper. 512 hidden units instead of 2,048, which is as
    wide as a ResNet-50.
    """

    name: Literal["moco_v2"] = "moco_v2"
    temperature: float = Field(0.2, gt=0)
    """Of the softmax over similarities; the paper's."""
    queue: int = Field(4096, ge=1)
    """Number of keys K, one an image and view; a queue shorter than a step's keys holds the last K
    of them.

    65,536 in the paper, on ImageNet; in the authors' CIFAR-10 demo accuracy saturates at 4,096.
    Keep it well under the keys of an epoch: those of an image's earlier views count as
    negatives."""


class Queue(nn.Module):
    """A target branch's last K keys, a ring of K x D. Nothing here waits for the device."""

    keys: Tensor
    enqueued: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(length, width))
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.long))

    def enqueue(self, keys: Tensor) -> None:
        """Put N x D keys in the places of the oldest; of more than K, the last K."""
        length = len(self.keys)
        order = torch.arange(max(0, len(keys) - length), len(keys), device=keys.device)
        # A new tensor, since the losses still need the old keys for their gradients.
        self.keys = self.keys.index_copy(0, (self.enqueued + order) % length, keys[-length:])
        self.enqueued = self.enqueued + len(keys)

    def empty(self) -> Tensor:
        """Return K bools, true where no key has come yet."""
        return torch.arange(len(self.keys), device=self.keys.device) >= self.enqueued


@register
class MoCoV2(Method):
    """InfoNCE: each view finds the target branch's key of another view of its image among that
    branch's keys of earlier steps.

    Every view is a query and every other view its key: the symmetric loss of the authors' CIFAR-10
    demo (the paper has one direction), as a mean over directions instead of a sum. While the queue
    fills up, only the keys in it count; the first step has none, has a loss of 0, and teaches
    nothing. BatchNorm is not shuffled, which takes several devices.
    """

    name = "moco_v2"
    Config = MoCoV2Config
    needs_teacher = True
    # BatchNorm can mark the keys of a step, and so tell them from the queue's (arXiv 1911.05722,
    # 3.3)
    loss_shows_learning = False
    config: MoCoV2Config

    def projector(self, width: int) -> nn.Module:
        """Return linear layers with ReLU between them, and no BatchNorm (official code), B x width
        to B x projector_out.
        """
        widths = [width, *[self.config.projector_hidden] * (self.config.projector_layers - 1)]
        hidden = [
            module
            for fan_in, fan_out in pairwise(widths)
            for module in (nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True))
        ]
        return nn.Sequential(*hidden, nn.Linear(widths[-1], self.config.projector_out))

    def target_state(self) -> nn.Module:
        """Return an empty queue."""
        return Queue(self.config.queue, self.config.projector_out)

    def loss(self, student: Tensor, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """Return the mean over images and (view u of the key k, view v != u of the query q) of
        equation 1 of MoCo (arXiv 1911.05722):

            -log(e^(q k / T) / (e^(q k / T) + sum_n e^(q n / T)))

        n runs over the keys in the queue; all have length 1.
        """
        assert isinstance(state, Queue)
        queries, keys = (F.normalize(x.float(), dim=-1) for x in (student, target.detach()))
        queries = queries / self.config.temperature
        # u: view of the key, v: view of the query, b: image, d: dimension
        positive = torch.einsum("ubd,vbd->uvb", keys, queries)
        others = (queries @ state.keys.T).masked_fill(state.empty(), LOWEST).logsumexp(dim=-1)
        # u x v means of log(1 + e^(others - positive)), the loss in a form that cannot overflow
        terms = F.softplus(others - positive).mean(dim=-1)
        return mean_over_views(terms)

    @torch.no_grad()
    def update(self, state: nn.Module, target: Tensor) -> None:
        """Put the step's keys in the queue, all images of the first view, then of the next."""
        assert isinstance(state, Queue)
        state.enqueue(F.normalize(target.float(), dim=-1).flatten(0, 1))

    def chance(self, batch_size: int) -> float:
        """Return the loss by chance with a full queue."""
        return math.log(1 + self.config.queue)
