"""MoCo v3 (arXiv 2104.02057): InfoNCE within the batch, with a predictor."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hssl_search.methods.base import Method, MethodConfig, mean_over_views, mlp, register


class MoCoV3Config(MethodConfig):
    """Layers and outputs are the paper's for ViTs. 512 hidden units instead of 4,096, for short
    runs on small images.
    """

    name: Literal["moco_v3"] = "moco_v3"
    projector_layers: int = Field(3, ge=1, le=4)
    """3 in the paper; the official code has 2 for ResNets."""
    projector_out: int = Field(256, ge=2)
    temperature: float = Field(0.2, gt=0)
    """Of the softmax over similarities; the paper's for ViTs. The official code has 1.0 for
    ResNets, with batches of 4,096."""


def normalised_mlp(width: int, hidden: int, out: int, layers: int) -> nn.Sequential:
    """Return an `mlp` that ends with a BatchNorm without scale and shift (official code)."""
    projector = mlp(width, hidden, out, layers)
    projector[-1].register_parameter("bias", None)  # the BatchNorm would take it away again
    return projector.append(nn.BatchNorm1d(out, affine=False))


@register
class MoCoV3(Method):
    """InfoNCE: each view's prediction finds the target branch's key of another view of its image
    among those of the batch.
    """

    name = "moco_v3"
    Config = MoCoV3Config
    needs_teacher = True
    config: MoCoV3Config

    def projector(self, width: int) -> nn.Module:
        """Return a `normalised_mlp`, B x width to B x projector_out."""
        hidden, out = self.config.projector_hidden, self.config.projector_out
        return normalised_mlp(width, hidden, out, self.config.projector_layers)

    def predictor(self) -> nn.Module:
        """Return two layers, as wide inside as the projector."""
        hidden, out = self.config.projector_hidden, self.config.projector_out
        return normalised_mlp(out, hidden, out, layers=2)

    def loss(self, student: Tensor, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """Return the mean over images i and (view u of the keys k, view v != u of the queries q) of
        equation 1 and algorithm 1 of the paper:

            -2 T log softmax_j(q_i k_j / T) at j = i

        All have length 1. The paper adds up the two directions of two views: twice this.
        """
        queries, keys = (F.normalize(x.float(), dim=-1) for x in (student, target.detach()))
        # u: view of the keys, v: of the queries, i: image of the query, j: of the key
        logits = torch.einsum("ujd,vid->uvij", keys, queries) / self.config.temperature
        own = F.log_softmax(logits, dim=-1).diagonal(dim1=-2, dim2=-1)
        # The factor 2 T, from the paper's code, keeps gradients alike over temperatures.
        return mean_over_views(-2 * self.config.temperature * own.mean(dim=-1))

    def chance(self, batch_size: int) -> float:
        return 2 * self.config.temperature * math.log(batch_size)
