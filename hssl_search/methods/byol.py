"""BYOL (arXiv 2006.07733): predict the teacher's output for another view, without negatives."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hssl_search.methods.base import Method, MethodConfig, mean_over_views, mlp, register


class BYOLConfig(MethodConfig):
    """Layers and outputs are the paper's. 512 hidden units instead of 4,096, for short runs on
    small images.
    """

    name: Literal["byol"] = "byol"
    projector_out: int = Field(256, ge=2)


@register
class BYOL(Method):
    """The squared distance between a view's prediction and the target branch's output for another
    view of its image, both of length 1.
    """

    name = "byol"
    Config = BYOLConfig
    needs_teacher = True
    loss_shows_learning = False  # it is 0 where all outputs are one point: no negatives push apart
    config: BYOLConfig

    def predictor(self) -> nn.Module:
        """Return two layers, as wide inside as the projector."""
        hidden, out = self.config.projector_hidden, self.config.projector_out
        return mlp(out, hidden, out, layers=2)

    def loss(self, student: Tensor, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """Return the mean over images and (view u of the target z, view v != u of the prediction q)
        of equation 2 of the paper:

            2 - 2 cos(q_v, z_u)

        The paper adds up the two directions of two views: twice this.
        """
        predictions, targets = (F.normalize(x.float(), dim=-1) for x in (student, target.detach()))
        # u: view of the target, v: view of the prediction, b: image, d: dimension
        terms = 2 - 2 * torch.einsum("ubd,vbd->uv", targets, predictions) / student.shape[1]
        return mean_over_views(terms)

    def chance(self, batch_size: int) -> float:
        return 2.0  # unrelated directions have a cosine of 0
