"""iBOT (arXiv 2111.07832): DINO, and the same of masked patches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hssl_search.methods.base import register
from hssl_search.methods.dino import DINO, DINOConfig


class IBOTConfig(DINOConfig):
    name: Literal["ibot"] = "ibot"  # type: ignore[assignment]
    batch_norm: Literal[False] = False
    """Class tokens and patches go through the same projector, and their statistics differ."""


@register
class IBOT(DINO):
    """DINO whose student sees masked global views, and must also tell the teacher's assignment of
    every patch that is hidden from it.

    Projector and prototypes serve class token and patches alike (`shared_head` of the official
    code); their centres are two.
    """

    name = "ibot"
    Config = IBOTConfig
    masks = True
    config: IBOTConfig

    def patch_loss(
        self, student: Tensor, target: Tensor, weights: Tensor, state: nn.Module, progress: float
    ) -> Tensor:
        """Weighted sum over masked patches of CE(t_p, s_p) in the same view, equation 2 of the
        paper.
        """
        wanted, given = self.assignments(target, state, progress), self.log_assignments(student)
        return -(weights * torch.einsum("mk,mk->m", wanted, given)).sum()
