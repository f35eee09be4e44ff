"""DINO (arXiv 2104.14294): self-distillation over prototypes, with centering and sharpening."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from hssl_search.methods.base import Method, MethodConfig, mean_over_views, mlp, register


class DINOConfig(MethodConfig):
    """The paper's settings, with a narrower projector and fewer prototypes for short runs on small
    images.
    """

    name: Literal["dino"] = "dino"
    projector_layers: int = Field(3, ge=1, le=4)
    """As in the paper."""
    projector_hidden: int = Field(512, ge=1)
    """2,048 in the paper; a quarter of it serves short runs on small images."""
    projector_out: int = Field(256, ge=2)
    """Width of the bottleneck in front of the prototypes; the paper's."""
    batch_norm: bool = False
    """Whether BatchNorm and ReLU stand between the projector's layers, or GELU alone, as by default
    in the official code."""
    prototypes: int = Field(1024, ge=2)
    """Number of prototypes K; 65,536 in the paper and 8,192 in the official HSSL code, both for
    ImageNet."""
    student_temperature: float = Field(0.1, gt=0)
    """Of the student's softmax; the paper's."""
    teacher_temperature: float = Field(0.04, gt=0)
    """Of the teacher's softmax at the start; the paper's. It is lower than the student's, which
    sharpens the targets."""
    teacher_temperature_end: float = Field(0.07, gt=0)
    """Of the teacher's softmax after the warm-up; the paper's."""
    teacher_temperature_warmup: float = Field(0.3, ge=0, le=1)
    """Share of the training over which the teacher's temperature rises, linearly; the paper's 30
    epochs, of 100."""
    center_momentum: float = Field(0.9, ge=0, lt=1)
    """Of the centre's running mean; the paper's."""
    freeze_prototypes: float = Field(0.0, ge=0, lt=1)
    """Share of the training, from its start, over which the prototypes stay as they are; the first
    3 of 100 epochs in the HSSL code."""


class Bottleneck(nn.Module):
    """An MLP whose output has length 1."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.layers(x), dim=-1)


class Center(nn.Module):
    """The running mean of a target branch's outputs, 1 x K."""

    center: Tensor

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(1, prototypes))


@register
class DINO(Method):
    """The cross-entropy from the teacher's sharpened, centred assignment to the student's, over
    pairs of different views.
    """

    name = "dino"
    Config = DINOConfig
    needs_teacher = True
    local_views = True
    assigns = True
    # A cross-entropy is also low where all images share few prototypes, as a collapsing head's do
    loss_shows_learning = False
    config: DINOConfig

    def projector(self, width: int) -> nn.Module:
        """Return an MLP to a bottleneck, B x width to B x projector_out of length 1."""
        hidden, out = self.config.projector_hidden, self.config.projector_out
        layers, batch_norm = self.config.projector_layers, self.config.batch_norm
        return Bottleneck(mlp(width, hidden, out, layers, batch_norm))

    def prototypes(self) -> nn.Module:
        """Return a weight-normalised layer, projector_out to K, whose rows keep length 1
        (norm_last_layer of the official code).
        """
        layer = weight_norm(
            nn.Linear(self.config.projector_out, self.config.prototypes, bias=False)
        )
        # original0 holds the lengths of the rows, original1 their directions.
        layer.parametrizations.weight.original0.data.fill_(1)
        layer.parametrizations.weight.original0.requires_grad = False
        return layer

    def target_state(self) -> nn.Module:
        """Return a centre at 0."""
        return Center(self.config.prototypes)

    def teacher_temperature(self, progress: float) -> float:
        """Return the teacher's temperature at `progress`, 0 to 1, of the training."""
        warmup = self.config.teacher_temperature_warmup
        done = 1.0 if progress >= warmup else progress / warmup
        start, end = self.config.teacher_temperature, self.config.teacher_temperature_end
        return start + (end - start) * done

    def prototypes_frozen(self, progress: float) -> bool:
        return progress < self.config.freeze_prototypes

    def loss(self, student: Tensor, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """Return the mean over images and (target view u, student view v != u) of equation 1 of the
        paper:

            CE(softmax((t_u - c) / T_t), softmax(s_v / T_s))
        """
        targets = self.assignments(target, state, progress)
        log_predictions = self.log_assignments(student)
        # u: target view, v: student view, b: image, k: prototype
        entropy = -torch.einsum("ubk,vbk->uv", targets, log_predictions) / student.shape[1]
        return mean_over_views(entropy)

    def assignments(self, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """Return the centred and sharpened distributions softmax((t - c) / T_t), ... x K."""
        assert isinstance(state, Center)
        return F.softmax(
            (target.detach().float() - state.center) / self.teacher_temperature(progress), dim=-1
        )

    def log_assignments(self, student: Tensor) -> Tensor:
        return F.log_softmax(student.float() / self.config.student_temperature, dim=-1)

    @torch.no_grad()
    def update(self, state: nn.Module, target: Tensor) -> None:
        """Set c <- m c + (1 - m) mean of the target's outputs, equation 4 of the paper."""
        assert isinstance(state, Center)
        mean = target.detach().float().flatten(0, -2).mean(dim=0, keepdim=True)
        state.center.lerp_(mean, 1 - self.config.center_momentum)

    def chance(self, batch_size: int) -> float:
        # A student that says nothing spreads over all prototypes alike, whatever the target.
        return math.log(self.config.prototypes)
