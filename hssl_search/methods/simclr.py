"""SimCLR (arXiv 2002.05709): the NT-Xent loss."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hssl_search.methods.base import Method, MethodConfig, register


class SimCLRConfig(MethodConfig):
    """Two layers and 128 outputs as in the paper. 512 hidden units instead of 2,048, for short runs
    on small images.
    """

    name: Literal["simclr"] = "simclr"
    temperature: float = Field(0.2, gt=0)
    """Of the softmax over similarities; 0.2 suits batches of a few hundred better than the 0.1 of
    the paper's batches of 4,096."""


@register
class SimCLR(Method):
    """NT-Xent: each view finds the other view of its image among all views of the batch.

    A method without teacher: the target of a plain pair, and of a head's own term, is the student's
    own output, with gradients. The base's term in HSSL takes the head's output without gradients,
    so that the head is not pulled towards the base.
    """

    name = "simclr"
    Config = SimCLRConfig
    needs_teacher = False
    config: SimCLRConfig

    def loss(self, student: Tensor, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """Return the mean over V x B anchors of -log softmax of the positives; keys are all target
        outputs except the anchor's own image in its own view.

        With V = 2 and student = target this is NT-Xent, equation 1 of the paper. With V > 2 an
        anchor's V - 1 positives are averaged.
        """
        views, batch = student.shape[:2]
        anchors, keys = (F.normalize(x.float(), dim=-1).flatten(0, 1) for x in (student, target))
        logits = anchors @ keys.T / self.config.temperature
        image = torch.arange(views * batch, device=logits.device) % batch
        # The view itself is no key: an anchor would find it whatever was learned.
        own = torch.eye(views * batch, dtype=torch.bool, device=logits.device)
        positive = (image[:, None] == image[None, :]) & ~own
        log_probability = logits - logits.masked_fill(own, -math.inf).logsumexp(dim=1, keepdim=True)
        # Indexing with a mask would wait for the device.
        return -(log_probability * positive).sum() / positive.sum()

    def chance(self, batch_size: int) -> float:
        return math.log(2 * batch_size - 1)  # all keys of two views but the anchor are alike
