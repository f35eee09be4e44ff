"""The interface of an SSL method, and the methods by name."""

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
    """The settings that every method lets a recipe choose; a method adds its own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """The registered name of the method."""
    projector_layers: int = Field(2, ge=1, le=4)
    """Linear layers of each projector; two as in SimCLR and BYOL."""
    projector_hidden: int = Field(512, ge=1)
    """Width between the projector's layers; 2,048 to 4,096 in the papers, and a quarter or less of
    it serves short runs on small images."""
    projector_out: int = Field(128, ge=2)
    """Width of what the loss compares; 128 as in SimCLR and MoCo v2."""


class Method(ABC):
    """An objective l(student, target), plain and heterogeneous alike.

    A method knows nothing of bases and heads. `hssl_search.training.pair.Pair` calls it, in this
    order:

    1. `projector(width)` and `predictor()` once for each student branch, and `prototypes()` once
       for each base-head couple, which shares that layer. A branch's output is
       prototypes(projector(embedding)), and for the student predictor of that.
    2. `target_state()` once for each branch that serves as a target: buffers such as DINO's centre.
    3. each step, `loss(student, target, state, progress)` for every (student branch, target
       branch). The target has gradients only in a method without teacher, and there only in the
       head's own term.
    4. each step, after the losses, `update(state, target)`.

    A method with `masks` hides patches of the student's views and has a second term, which is the
    base's own in HSSL too: `patch_loss`, with a state of its own. A method with `local_views` takes
    more student views than target views: the first ones show what the targets show, the others are
    small crops.

    Let b, a be the student's base and head outputs and b', a' the targets (the teacher's outputs,
    or the student's own in a method without teacher). Plain SSL is l(b, b'), HSSL is 1/2 l(b, a') +
    1/2 l(a, a') (arXiv 2310.05108).
    """

    name: ClassVar[str]
    """The name in recipes."""
    Config: ClassVar[type[MethodConfig]]
    """What a recipe's `method` section may hold."""
    needs_teacher: ClassVar[bool]
    """Whether targets come from an exponential moving average of the student."""
    loss_shows_learning: ClassVar[bool] = True
    """Whether a low l(a, a') means that a head tells images apart. Where it does not, the health
    gate asks the head's embeddings instead."""

    local_views: ClassVar[bool] = False
    """Whether the student may be shown small local crops beside the two global views
    (multi-crop)."""
    assigns: ClassVar[bool] = False
    """Whether outputs are logits over prototypes, which `assignments` and `log_assignments` turn
    into distributions."""
    masks: ClassVar[bool] = False
    """Whether patches of the student's global views are masked, which needs a base of patch
    tokens."""

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    def projector(self, width: int) -> nn.Module:
        """Return a new projector.

        Args:
            width: of the embeddings that it is fed.

        Returns:
            B x width to B x projector_out.
        """
        return mlp(
            width,
            self.config.projector_hidden,
            self.config.projector_out,
            self.config.projector_layers,
        )

    def predictor(self) -> nn.Module:
        """Return a new predictor of a student branch, projector_out to projector_out; by default
        none.

        The teacher has no predictor.
        """
        return nn.Identity()

    def prototypes(self) -> nn.Module:
        """Return a new layer after the projectors, shared by the two branches of a couple; by
        default none.

        It is linear and has no bias: its output for a mean is the mean of its outputs.
        """
        return nn.Identity()

    def target_state(self) -> nn.Module:
        """Return the new state of one target branch; by default empty."""
        return nn.Module()

    @abstractmethod
    def loss(self, student: Tensor, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """Return the loss of one student branch against one target branch.

        Args:
            student: V x B x D, one row a view and an image.
            target: U x B x D, U <= V, of the first U views.
            state: of the target branch, before this step's `update`.
            progress: 0 to 1 over the training.

        Returns:
            a scalar.
        """

    def patch_loss(
        self, student: Tensor, target: Tensor, weights: Tensor, state: nn.Module, progress: float
    ) -> Tensor:
        """Return the loss of the masked patches alone, in a method with `masks`.

        Args:
            student: M x D, one row a masked patch of any image and view.
            target: M x D, of the same patches.
            weights: M, their shares in the mean (`hssl_search.data.masks.patch_weights`).
            state: of the base's patches, before this step's `update`.
            progress: 0 to 1 over the training.

        Returns:
            a scalar.
        """
        raise NotImplementedError(f"{self.name} has no patch term")

    def assignments(self, target: Tensor, state: nn.Module, progress: float) -> Tensor:
        """Return the distributions over prototypes that a target sets, without gradients.

        Args:
            target: ... x K logits.
            state: of the target branch.
            progress: 0 to 1 over the training.

        Returns:
            ... x K, each row sums to 1.
        """
        raise NotImplementedError(f"{self.name} has no prototypes")

    def log_assignments(self, student: Tensor) -> Tensor:
        """Return the logarithms of a student's distributions over prototypes, ... x K logits to ...
        x K.
        """
        raise NotImplementedError(f"{self.name} has no prototypes")

    def prototypes_frozen(self, progress: float) -> bool:
        """Tell whether the prototypes are held still at this point of the training."""
        return False

    def update(self, state: nn.Module, target: Tensor) -> None:  # noqa: B027
        """Bring the state up to date after the losses of a step.

        Args:
            state: of the target branch.
            target: this step's outputs, U x B x D, or the mean over all patches, 1 x D.
        """

    @abstractmethod
    def chance(self, batch_size: int) -> float:
        """Return the loss of a student whose outputs say nothing about the image."""


def mlp(width: int, hidden: int, out: int, layers: int, batch_norm: bool = True) -> nn.Sequential:
    """Return linear layers with BatchNorm and ReLU between them (SimCLR, arXiv 2002.05709, appendix
    B), or with GELU alone (DINO's code).

    Args:
        width: of the input.
        hidden: width between the layers.
        out: of the output.
        layers: number of linear layers, at least 1.
        batch_norm: whether BatchNorm and ReLU stand between them, or GELU.
    """
    widths = [width, *[hidden] * (layers - 1)]
    between: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        # BatchNorm takes the mean away, and a bias with it.
        between.append(nn.Linear(fan_in, fan_out, bias=not batch_norm))
        between += [nn.BatchNorm1d(fan_out), nn.ReLU(inplace=True)] if batch_norm else [nn.GELU()]
    return nn.Sequential(*between, nn.Linear(widths[-1], out))


MODULES = ("simclr", "moco_v2", "moco_v3", "byol", "dino", "ibot")
_methods: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Add a method; decorates its class.

    Raises:
        ValueError: when the name is taken.
    """
    if method.name in _methods:
        raise ValueError(f"SSL method {method.name!r} is registered already")
    _methods[method.name] = method
    return method


def methods() -> dict[str, type[Method]]:
    """Return all SSL methods by name."""
    # Imported here and not above: method files import this one.
    for module in MODULES:
        importlib.import_module(f"hssl_search.methods.{module}")
    return dict(_methods)


def method_class(name: str) -> type[Method]:
    """Return the method of that name.

    Raises:
        UserError: when there is none, with the nearest names.
    """
    by_name = methods()
    if name not in by_name:
        raise UserError(f"unknown SSL method {name!r}; {advice(name, by_name)}")
    return by_name[name]


def mean_over_views(terms: Tensor) -> Tensor:
    """Return the mean of U x V terms of (target view u, student view v) over different views, u !=
    v.

    Nothing waits for the device.
    """
    # A factor, where picking the terms with a mask would wait for the device.
    different = 1 - torch.eye(*terms.shape, dtype=terms.dtype, device=terms.device)
    return (terms * different).sum() / different.sum()
