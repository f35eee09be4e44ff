"""iBOT (arXiv 2111.07832): DINO, and the same objective for masked patches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hssl_search.methods.base import register
from hssl_search.methods.dino import DINO, DINOConfig


class IBOTConfig(DINOConfig):
    """DINO's settings; BatchNorm is not offered."""

    # mypy holds a subclass to DINO's own name.
    name: Literal["ibot"] = "ibot"  # type: ignore[assignment]
    batch_norm: Literal[False] = False
    """Class tokens and patches go through the same projector, and their statistics differ."""


@register
class IBOT(DINO):
    """DINO whose student sees masked global views, and must also predict the teacher's assignment
    of every patch that is hidden from it.

    Projector and prototypes serve class token and patches alike (`shared_head` of the official
    code); the two have a centre each.
    """

    name = "ibot"
    Config = IBOTConfig
    masks = True
    config: IBOTConfig

    def patch_loss(
        self, student: Tensor, target: Tensor, weights: Tensor, state: nn.Module, progress: float
    ) -> Tensor:
        """Return the weighted sum over masked patches p of CE(t_p, s_p) in the same view, equation
        2 of the paper.
        """
        targets = self.assignments(target, state, progress)
        log_predictions = self.log_assignments(student)
        # m: masked patch, k: prototype
        return -(weights * torch.einsum("mk,mk->m", targets, log_predictions)).sum()
