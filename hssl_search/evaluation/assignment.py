"""The assignment of images to prototypes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Assignment(NamedTuple):
    """The figures that tell whether a clustering method's targets have collapsed. Without centring
    all images go to one prototype, without sharpening each goes to many and all to the same (arXiv
    2104.14294, section 5.3).
    """

    entropy: float
    """`assignment_entropy` of the targets: near 0 in the first collapse."""
    information: float
    """`assignment_information` of the targets: near 0 in both, and in a head that has hardly been
    trained."""
    unsharpened: float
    """The same of the outputs that the targets were made of, at the student's temperature:
    sharpening adds to it."""


@torch.no_grad()
def assignment_entropy(assignments: Tensor) -> float:
    """Return the entropy of the mean assignment of N images to K prototypes, as a share of log
    min(K, N), the most that sharp assignments can have.

    1 when all prototypes are used alike, 0 for a single one; above 1 where N < K images are
    assigned vaguely. NaN for assignments that are not finite.

    Args:
        assignments: N x K, each row a distribution over K >= 2 prototypes, as the targets of a loss
            are.
    """
    entropy = float(torch.special.entr(assignments.double().mean(dim=0)).sum())
    # N images can be told apart by N prototypes alone, however many there are.
    return entropy / math.log(min(assignments.shape))


@torch.no_grad()
def assignment_information(assignments: Tensor) -> float:
    """Return the mutual information of image and prototype, the entropy of the mean assignment
    minus the mean entropy, as a share of log min(K, N).

    1 when every image or every prototype can be told by the other, 0 when all images have the same
    assignment, be it sharp or broad.

    Args:
        assignments: N x K, each row a distribution over K >= 2 prototypes.
    """
    mean_entropy = float(torch.special.entr(assignments.double()).sum(dim=1).mean())
    return assignment_entropy(assignments) - mean_entropy / math.log(min(assignments.shape))
