"""What an SSL method is, and the methods by name."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hssl_search.errors import UserError, advice


class MethodConfig(BaseModel):
    """What every method lets a recipe choose; a method adds its own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """The registered name of the method."""
    projector_layers: int = Field(2, ge=1, le=4)
    """Linear layers of each projector."""
    projector_hidden: int = Field(512, ge=1)
    """Width between the projector's layers."""
    projector_out: int = Field(128, ge=2)
    """Width of what the loss compares."""


class Method(ABC):
    """An objective l(student, target), plain and heterogeneous alike.

    A method knows nothing of bases and heads. `hssl_search.training.pair.Pair` calls it, in this
    order:

    1. `projector(width)` and `predictor()` once for each student branch, and `prototypes()` once
       for each base-head couple: the couple shares that layer. A branch's output is
       prototypes(projector(embedding)), and for the student predictor of that.
    2. `target_state()` once for each branch that serves as a target: buffers such as DINO's centre.
    3. each step, `loss(student, target, state, progress)` for every (student branch, target
       branch). The target has gradients only in a method without teacher, and there only in the
       head's own term.
    4. each step, after the losses, `update(state, target)`.

    A method with `masks` hides patches of the student's views and has a second term, the base's own
    in HSSL too: `patch_loss`, with a state of its own. A method with `local_views` takes more
    student views than target views: the first ones are the targets', the others small crops.

    With b, a the student's base and head outputs and b', a' the targets (the teacher's outputs, or
    the student's own in a method without teacher): plain SSL is l(b, b'), HSSL is 1/2 l(b, a') +
    1/2 l(a, a') (arXiv 2310.05108).
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    needs_teacher: ClassVar[bool]
    """Whether targets come from an exponential moving average of the student."""
    loss_shows_learning: ClassVar[bool] = True
    """Whether a low l(a, a') means that a head tells images apart. Where it does not, the health
    gate asks its embeddings instead."""

    local_views: ClassVar[bool] = False
    """Whether the student may be shown small local crops beside the two global views
    (multi-crop)."""
    assigns: ClassVar[bool] = False
    """Whether outputs are logits over prototypes, of which `assignments` and `log_assignments` make
    distributions."""
    masks: ClassVar[bool] = False
    """Whether patches of the student's global views are masked, which needs a base of patch
    tokens."""

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    def projector(self, width: int) -> nn.Module:
        """A new projector, B x width to B x projector_out."""
        return mlp(
            width,
            self.config.projector_hidden,
            self.config.projector_out,
            self.config.projector_layers,
        )

    def predictor(self) -> nn.Module:
        """A new predictor of a student branch, projector_out to projector_out; by default none. The
        teacher has none.
        """
        return nn.Identity()

    def prototypes(self) -> nn.Module:
        """A new layer after the projectors, shared by the two branches of a couple; by default
        none.

        It is linear and without bias: what it makes of a mean is the mean of what it makes.
        """
        return nn.Identity()

    def target_state(self) -> nn.Module:
        """New state of one target branch; by default empty."""
        return nn.Module()

    @abstractmethod
    def loss(self, student: Tensor, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """Scalar loss. `student` and `target` are V x B x D, one row a view and an image;
        `progress` runs from 0 to 1 over training.
        """

    def patch_loss(
        self, student: Tensor, target: Tensor, weights: Tensor, state: nn.Module, progress: float
    ) -> Tensor:
        """Scalar loss of the masked patches alone, in a method with `masks`.

        `student` and `target` are M x D, one row a masked patch of any image and view; `weights`,
        M, are their shares in the mean (`hssl_search.data.masks.patch_weights`).
        """
        raise NotImplementedError(f"{self.name} has no patch term")

    def assignments(self, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """The distributions over prototypes that a target sets, without gradients: ... x K to ... x
        K.
        """
        raise NotImplementedError(f"{self.name} has no prototypes")

    def log_assignments(self, student: Tensor) -> Tensor:
        """The logarithms of a student's distributions over prototypes: ... x K to ... x K."""
        raise NotImplementedError(f"{self.name} has no prototypes")

    def prototypes_frozen(self, progress: float) -> bool:
        """Whether the prototypes are held still at this point of the training."""
        return False

    def update(self, state: nn.Module, target: Tensor) -> None:  # noqa: B027 - most methods have no state to update
        """Bring the state up to date with this step's target, V x B x D, or with the mean over all
        patches, 1 x D; after the losses.
        """

    @abstractmethod
    def chance(self, batch_size: int) -> float:
        """The loss of a student whose outputs say nothing about the image."""


def mlp(width: int, hidden: int, out: int, layers: int, batch_norm: bool = True) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them (SimCLR, arXiv 2002.05709, appendix), or
    with GELU alone (DINO's code).
    """
    widths = [width, *[hidden] * (layers - 1)]
    between: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        between.append(nn.Linear(fan_in, fan_out, bias=not batch_norm))
        between += [nn.BatchNorm1d(fan_out), nn.ReLU(inplace=True)] if batch_norm else [nn.GELU()]
    return nn.Sequential(*between, nn.Linear(widths[-1], out))


MODULES = ("simclr", "moco_v2", "moco_v3", "byol", "dino", "ibot")
_methods: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    if method.name in _methods:
        raise ValueError(f"SSL method {method.name!r} is registered already")
    _methods[method.name] = method
    return method


def methods() -> dict[str, type[Method]]:
    """All SSL methods by name."""
    for module in MODULES:
        importlib.import_module(f"hssl_search.methods.{module}")
    return dict(_methods)


def method_class(name: str) -> type[Method]:
    known = methods()
    if name not in known:
        raise UserError(f"unknown SSL method {name!r}; {advice(name, known)}")
    return known[name]


def mean_over_views(terms: Tensor) -> Tensor:
    """The mean of U x V terms of (target view u, student view v) over different views, u != v.
    Nothing waits for the device.
    """
    different = 1 - torch.eye(*terms.shape, dtype=terms.dtype, device=terms.device)
    return (terms * different).sum() / different.sum()
