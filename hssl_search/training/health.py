"""The health gate: a head that learns nothing is out, however discrepant it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hssl_search.evaluation.assignment import Assignment
from hssl_search.evaluation.spectrum import effective_count, spectrum

LEARNED_SHARE = 0.25
"""Share of the way from the noise head's loss to the best head's, which a healthy head must have
gone. A head that squeezes the features through a narrow bottleneck goes about 0.6 of it, ordinary
heads 0.9 and more."""
COLLAPSED_SPREAD = 0.02
"""Spread under which embeddings count as one point, and a dimension as constant."""
COLLAPSED_RANK = 1.5
"""Effective rank under which embeddings count as one direction."""
COLLAPSED_VARYING = 0.1
"""Share of varying dimensions under which embeddings count as collapsed."""
COLLAPSED_ASSIGNMENT = 0.25
"""Entropy of the mean assignment, as a share of log K, under which images count as assigned to too
few of K prototypes: two in equal use have 0.22 with K = 24, 0.13 with K = 256."""
COLLAPSED_INFORMATION = 0.01
"""Mutual information of image and prototype, as a share of log K, under which targets say the same
of all images."""
SHARPENED = 1.1
"""How many times as much information as before sharpening targets may have and still drive images
apart: they are young. A head grows out of this state while targets are sharper than what is
compared with them, and never where they are not (docs/method.md)."""


@dataclass(frozen=True)
class LearningSign:
    """A quantity that is smaller the more a head has learned."""

    name: str
    smallest_progress: float
    """Share of the noise head's value below which a lead over it is taken for chance."""


HEAD_LOSS = LearningSign("head-to-head loss", 0.005)
MATCHING_ERROR = LearningSign("error in finding an image's other view", 0.1)


@dataclass(frozen=True)
class GateResult:
    """What the health gate says of one head."""

    gate: str
    """`healthy`, `not learning`, `collapsed` or `non-finite`."""
    reason: str
    """A sentence with the figures that it rests on."""

    @property
    def healthy(self) -> bool:
        """Tell whether the head passed."""
        return self.gate == "healthy"


class Shape(NamedTuple):
    """How embeddings lie in their space: `spread`, `effective_rank` and share of `varying`
    dimensions.
    """

    spread: float
    rank: float
    varying: float


def shape(embeddings: Tensor) -> Shape:
    """Return the shape of N x D embeddings; NaN when they are not finite."""
    if not bool(torch.isfinite(embeddings).all()):
        return Shape(math.nan, math.nan, math.nan)
    return Shape(spread(embeddings), effective_rank(embeddings), varying(embeddings))


@torch.no_grad()
def spread(embeddings: Tensor) -> float:
    """Return sqrt(D) x the mean standard deviation of each dimension of the length-1 embeddings
    (arXiv 2011.10566, section 4.1).

    About 1 for embeddings spread over the sphere, 0 for one point.

    Args:
        embeddings: N x D.
    """
    return float(_spreads(embeddings).mean())


@torch.no_grad()
def varying(embeddings: Tensor) -> float:
    """Return the share of the D dimensions whose own part of `spread` is that of more than one
    point: 0 to 1.

    Tells embeddings that have kept only a few dimensions (dimensional collapse, arXiv 2110.09348)
    from those that vary a little in all.

    Args:
        embeddings: N x D.
    """
    return float((_spreads(embeddings) >= COLLAPSED_SPREAD).double().mean())


def _spreads(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings.float(), dim=1).std(dim=0) * math.sqrt(embeddings.shape[1])


@torch.no_grad()
def effective_rank(embeddings: Tensor) -> float:
    """Return exp of the entropy of the normalised singular values of the centred embeddings (Roy
    and Vetterli, EUSIPCO 2007).

    Args:
        embeddings: N x D.
    """
    return effective_count(spectrum(embeddings.double() - embeddings.double().mean(dim=0)).sqrt())


def judge(
    head_loss: float,
    noise_loss: float,
    best_loss: float,
    head_shape: Shape,
    measure: LearningSign = HEAD_LOSS,
    assignment: Assignment | None = None,
) -> GateResult:
    """Judge one head of a joint screening.

    Args:
        head_loss: how far it is from having learned: its head-to-head loss l(a, a') over the last
            steps, or its matching error.
        noise_loss: the same of the noise head in the same screening: what a head that learns
            nothing gets.
        best_loss: the smallest of all heads in the same screening.
        head_shape: the `shape` of its embeddings of held-out images.
        measure: what the losses are.
        assignment: of the same images to prototypes by its targets, in a method with prototypes.
    """
    alone = judge_alone(head_loss, head_shape, assignment)
    if not alone.healthy:
        return alone
    # Where all heads are as bad as noise, the best one leads by chance: hence a smallest progress.
    needed = max(
        LEARNED_SHARE * (noise_loss - best_loss), measure.smallest_progress * abs(noise_loss)
    )
    lead = noise_loss - head_loss
    figures = f"{measure.name} {head_loss:.3f}; noise {noise_loss:.3f}, best head {best_loss:.3f}"
    if not lead >= needed:  # not `<`: the noise head's loss may be NaN
        return GateResult("not learning", f"it learned no more than noise does ({figures}).")
    return GateResult("healthy", figures)


def judge_alone(
    head_loss: float, head_shape: Shape, assignment: Assignment | None = None
) -> GateResult:
    """Judge a head that trains without others to compare it with; arguments as of `judge`."""
    figures = (
        f"spread {head_shape.spread:.3f}, effective rank {head_shape.rank:.1f}, "
        f"{head_shape.varying:.0%} of its dimensions vary"
    )
    if assignment is not None:
        figures += (
            f", mean assignment {assignment.entropy:.0%} of the entropy of all prototypes, an "
            f"assignment tells {assignment.information:.2g} of what it could about its image"
        )
    measured = (head_loss, *head_shape, *(assignment or ()))
    if not all(map(math.isfinite, measured)):
        return GateResult(
            "non-finite",
            f"its loss or its embeddings are not finite (loss {head_loss:.3f}, {figures}).",
        )
    if (
        head_shape.spread < COLLAPSED_SPREAD
        or head_shape.rank < COLLAPSED_RANK
        or head_shape.varying < COLLAPSED_VARYING
    ):
        return GateResult(
            "collapsed", f"its embeddings are nearly one point or direction ({figures})."
        )
    if assignment is not None and assignment.entropy < COLLAPSED_ASSIGNMENT:
        return GateResult(
            "collapsed", f"it assigns nearly all images to the same few prototypes ({figures})."
        )
    if assignment is not None:
        # Young targets say little, and yet more than the outputs before sharpening: those may grow.
        stuck = SHARPENED * assignment.unsharpened
        if assignment.information <= min(COLLAPSED_INFORMATION, stuck):
            return GateResult(
                "collapsed",
                f"it assigns each image to many prototypes and all images to the same ({figures}).",
            )
    return GateResult("healthy", figures)


def judge_group(
    losses: Sequence[float],
    embeddings: Sequence[Tensor],
    noise: int,
    measure: LearningSign = HEAD_LOSS,
    assignments: Sequence[Assignment | None] | None = None,
) -> list[GateResult]:
    """Judge all heads of one joint screening.

    Args:
        losses: of each head, as `head_loss` of `judge`.
        embeddings: N x D of each head, of held-out images.
        noise: the place of the noise head among them.
        measure: what the losses are.
        assignments: of each head's targets; None in a method without prototypes.

    Returns:
        one result a head, in their order.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    best = min(finite, default=math.nan)
    each = zip(losses, embeddings, assignments or [None] * len(losses), strict=True)
    return [
        judge(loss, losses[noise], best, shape(embedding), measure, assignment)
        for loss, embedding, assignment in each
    ]
