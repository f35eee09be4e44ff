"""The pair: one base, N >= 0 heads, and what a method adds to them; student and EMA teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from hssl_search.backbones import Base, Masking
from hssl_search.data.masks import masked_places, patch_weights
from hssl_search.data.resident import send
from hssl_search.data.views import Batch
from hssl_search.errors import UserError
from hssl_search.heads.head import Head
from hssl_search.methods.base import Method


class Couple(nn.Module):
    """The layers between features and loss: a projector and a predictor of the base, the same of
    the head, and the layer that the two share.

    Every head has a base projector of its own: one shared by all heads would serve none of them.
    """

    def __init__(self, method: Method, base_width: int, head_width: int | None) -> None:
        super().__init__()
        self.base_projector, self.base_predictor = method.projector(base_width), method.predictor()
        self.head_projector: Any = None
        self.head_predictor: Any = None
        if head_width is not None:
            self.head_projector = method.projector(head_width)
            self.head_predictor = method.predictor()
        self.prototypes = method.prototypes()

    def base_output(self, embedding: Tensor) -> Tensor:
        """Return the base's output, ... x D embeddings to ... x K."""
        return _flat(lambda x: self.prototypes(self.base_projector(x)), embedding)

    def head_output(self, embedding: Tensor) -> Tensor:
        """Return the head's output, ... x E embeddings to ... x K."""
        return _flat(lambda x: self.prototypes(self.head_projector(x)), embedding)

    def patch_target(self, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the base's patch tokens.

        The mean goes through the prototypes, which are linear, as one row: P x K outputs, of which
        few are targets, would take gigabytes.

        Args:
            tokens: P x D, of all images and views.
            places: M of the P places.

        Returns:
            (M x K outputs at the places, 1 x K mean output of all).
        """
        projected = self.base_projector(tokens)
        # In float32: bf16 would round a mean over thousands of tokens.
        with torch.autocast(tokens.device.type, enabled=False):
            mean = self.prototypes(projected.float().mean(dim=0, keepdim=True))
        return self.prototypes(projected[places]), mean

    def base_prediction(self, output: Tensor) -> Tensor:
        """Return the base's prediction of its target, ... x K to ... x K."""
        return _flat(self.base_predictor, output)

    def head_prediction(self, output: Tensor) -> Tensor:
        """Return the head's prediction of its target, ... x K to ... x K."""
        return _flat(self.head_predictor, output)


class Outputs(NamedTuple):
    """A network's outputs for a batch; one entry a couple in each list. V views, the local crops
    after the global views.
    """

    base: list[Tensor]
    """V x B x K."""
    head: list[Tensor]
    """V x B x K; empty without heads."""
    patches: list[Tensor]
    """M x K, the base's masked patch tokens; empty for a method without masks."""


class Targets(NamedTuple):
    """The targets that a network sets as a teacher, of whole global views; one entry a couple in
    each list.
    """

    outputs: list[Tensor]
    """V x B x K, of the heads, or without heads of the base."""
    patches: list[Tensor]
    """M x K, the base's patch tokens that are hidden from the student; empty for a method without
    masks."""
    patch_means: list[Tensor]
    """1 x K, the mean over all patch tokens."""


class Network(nn.Module):
    """A base with its heads and couples: the student, or the teacher."""

    def __init__(self, base: Base, heads: Sequence[Head], method: Method) -> None:
        super().__init__()
        self.base = base
        self.heads: Any = nn.ModuleList(heads)
        widths: list[int | None] = [head.width for head in heads] or [None]
        self.couples: Any = nn.ModuleList(
            Couple(method, base.embedding_width, width) for width in widths
        )
        self.mask_token = nn.Parameter(torch.zeros(base.token_width)) if method.masks else None

    def outputs(self, batch: Batch) -> Outputs:
        """Return the outputs of the student: masked where the batch says so, local crops included.

        The base makes one pass for each size of image.
        """
        # Local crops come last, and are never masked.
        parts = [self._embed(batch.globals, batch.masks)]
        if batch.locals is not None:
            parts.append(self._embed(batch.locals, None))
        base = torch.cat([part[0] for part in parts])
        heads = [torch.cat(of_head) for of_head in zip(*(part[1] for part in parts), strict=True)]
        return Outputs(
            [couple.base_output(base) for couple in self.couples],
            self._head_outputs(heads),
            self._patches(batch, parts[0][2]),
        )

    def _head_outputs(self, embeddings: list[Tensor]) -> list[Tensor]:
        # Not strict: without heads there is one couple all the same.
        pairs = zip(self.couples, embeddings, strict=False)
        return [couple.head_output(embedding) for couple, embedding in pairs]

    def _patches(self, batch: Batch, tokens: Tensor | None) -> list[Tensor]:
        if self.mask_token is None:
            return []
        tokens, places = _hidden(batch, tokens)
        return [couple.base_output(tokens[places]) for couple in self.couples]

    def targets(self, batch: Batch) -> Targets:
        """Return the targets of the teacher, which sees whole global views alone."""
        base, heads, tokens = self._embed(batch.globals, None)
        # The base's own teacher is a target only in plain SSL: with heads, theirs replace it.
        outputs = self._head_outputs(heads) or [self.couples[0].base_output(base)]
        if self.mask_token is None:
            return Targets(outputs, [], [])
        tokens, places = _hidden(batch, tokens)
        patches = [couple.patch_target(tokens, places) for couple in self.couples]
        return Targets(outputs, [hidden for hidden, _ in patches], [mean for _, mean in patches])

    def _embed(
        self, views: Tensor, masks: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Embed V x B x 3 x H x W views.

        Returns:
            (base embedding V x B x D, embedding of each head V x B x E, patch tokens V x B x N x D
            or None).
        """
        shape = views.shape[:2]
        # All views in one forward pass, so that BatchNorm sees them together.
        masking = None
        if masks is not None and self.mask_token is not None:
            masking = Masking(send(masks.flatten(0, 1), views.device), self.mask_token)
        features = self.base(views.flatten(0, 1), masking)
        heads = [
            head(features.tapped[head.config.tap or 0]).embedding.unflatten(0, shape)
            for head in self.heads
        ]
        tokens = None if features.tokens is None else features.tokens.unflatten(0, shape)
        return features.embedding.unflatten(0, shape), heads, tokens


@dataclass(frozen=True)
class Losses:
    """The loss terms of one step."""

    total: Tensor
    """The scalar to minimise."""
    base: Tensor
    """l(b, b') of a plain pair, else l(b_i, a'_i) of each head; detached."""
    head: Tensor
    """l(a_i, a'_i) of each head; detached, empty without heads."""
    patch: Tensor
    """The base's own patch term with each couple; detached, empty for a method without masks."""


class Pair(nn.Module):
    """A base and N >= 0 heads under one SSL method.

    N = 0 is plain SSL, l(b, b'). N >= 1 is HSSL, the mean over heads i of 1/2 l(b, a'_i) + 1/2
    l(a_i, a'_i) (arXiv 2310.05108; official code): N = 1 a proxy or full run, N > 1 the joint
    screening. All heads share one forward pass of the base. A method with masks adds the base's
    patch term, with its own teacher, with and without heads; a head has none.

    Args:
        base: the network that is pretrained.
        heads: that it learns from.
        method: the objective.

    Raises:
        UserError: for a method with masks on a base without patch tokens.
    """

    def __init__(self, base: Base, heads: Sequence[Head], method: Method) -> None:
        super().__init__()
        require_patches(base, method)
        self.method = method
        self.student = Network(base, heads, method)
        self.teacher = _teacher_of(self.student) if method.needs_teacher else None
        self.states = nn.ModuleList(method.target_state() for _ in self.student.couples)
        self.patch_states = nn.ModuleList(
            method.target_state() for _ in self.student.couples if method.masks
        )

    @property
    def kept(self) -> Network:
        """Return the network that is evaluated and exported: the teacher where there is one, as in
        DINO and iBOT.
        """
        return self.teacher if self.teacher is not None else self.student

    def losses(self, batch: Batch, progress: float) -> Losses:
        """Return the losses of a batch of views, and update the targets' states.

        Args:
            batch: the views.
            progress: 0 to 1 over the training.
        """
        outputs = self.student.outputs(batch)
        teacher = self._targets(batch)
        # Without a teacher the student's own outputs are the targets, with their gradients.
        targets = teacher.outputs or outputs.head or outputs.base
        couples = self.student.couples
        base_pairs = zip(couples, outputs.base, strict=True)
        base_predictions = [couple.base_prediction(output) for couple, output in base_pairs]
        if outputs.head:
            base = self._terms(base_predictions, self.targets_of_the_base(targets), progress)
            head_pairs = zip(couples, outputs.head, strict=True)
            head_predictions = [couple.head_prediction(output) for couple, output in head_pairs]
            head = self._terms(head_predictions, targets, progress)
            # The mean over heads: with more of them, the base's gradient does not grow.
            total = (0.5 * base + 0.5 * head).mean()
        else:
            base = self._terms(base_predictions, targets, progress)
            head = outputs.base[0].new_empty(0)
            total = base.mean()
        patch = self._patch_terms(batch, outputs.patches, teacher.patches, progress)
        if len(patch):
            total = total + patch.mean()
        # After the losses, so that a step's targets do not change what they are compared by.
        states = [*self.states, *self.patch_states]
        for state, target in zip(states, [*targets, *teacher.patch_means], strict=True):
            self.method.update(state, target)
        return Losses(total, base.detach(), head.detach(), patch.detach())

    def targets_of_the_base(self, targets: list[Tensor]) -> list[Tensor]:
        """Return head targets as the base's terms take them: without gradients (docs/method.md says
        what this choice rests on).
        """
        return [target.detach() for target in targets]

    def _terms(self, students: list[Tensor], targets: list[Tensor], progress: float) -> Tensor:
        # In float32: bf16 rounds a loss by more than the health gate asks of a head
        with torch.autocast(students[0].device.type, enabled=False):
            return torch.stack(
                [
                    self.method.loss(student, target, state, progress)
                    for student, target, state in zip(students, targets, self.states, strict=True)
                ]
            )

    def _patch_terms(
        self, batch: Batch, students: list[Tensor], targets: list[Tensor], progress: float
    ) -> Tensor:
        if not students:
            return batch.globals.new_empty(0)
        assert batch.masks is not None
        weights = send(patch_weights(batch.masks), students[0].device)
        with torch.autocast(students[0].device.type, enabled=False):
            return torch.stack(
                [
                    self.method.patch_loss(student, target, weights, state, progress)
                    for student, target, state in zip(
                        students, targets, self.patch_states, strict=True
                    )
                ]
            )

    @torch.no_grad()
    def _targets(self, batch: Batch) -> Targets:
        return Targets([], [], []) if self.teacher is None else self.teacher.targets(batch)

    def drop_frozen_gradients(self, progress: float) -> None:
        """Drop the gradients of prototypes while the method holds them still."""
        if self.method.prototypes_frozen(progress):
            for couple in self.student.couples:
                for parameter in couple.prototypes.parameters():
                    parameter.grad = None  # not zero: the optimizer would still decay the weights

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Set theta' <- m theta' + (1 - m) theta for every parameter; BatchNorm statistics are the
        teacher's own.
        """
        if self.teacher is not None:
            torch._foreach_lerp_(
                list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum
            )


def require_patches(base: Base, method: Method | type[Method]) -> None:
    """Check that a base has patch tokens, where a method masks them.

    Raises:
        UserError: where it has none.
    """
    if method.masks and base.mask_grid is None:
        raise UserError(
            f"SSL method {method.name!r} masks patch tokens, and base {base.name!r} has none that "
            "go through it one by one; choose a plain vision transformer such as "
            "vit_small_patch16_224, or another --trainer."
        )


def _flat(layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply layers for N x D to ... x D."""
    return layers(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


def _hidden(batch: Batch, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (P x D patch tokens of all images and views, M places of those that are hidden from
    the student), for V x B x N x D tokens.
    """
    assert tokens is not None and batch.masks is not None
    return tokens.flatten(0, 2), send(masked_places(batch.masks), tokens.device)


def _teacher_of(student: Network) -> Network:
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # targets come from the whole network, as in the official code
    return teacher
