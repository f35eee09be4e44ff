"""What base and head of a pair say of held-out images, where the loss compares them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hssl_search.discrepancy.output import key_distance, prototype_divergence
from hssl_search.evaluation.assignment import Assignment, assignment_entropy, assignment_information
from hssl_search.training.pair import Pair


class HeadOutput(NamedTuple):
    discrepancy: float
    """`prototype_divergence` with prototypes, else `key_distance`: of the base's output trained
    against this head, to the head's target."""
    assignment: Assignment | None
    """Of the head's targets; None without prototypes."""


@torch.no_grad()
def compare_outputs(pair: Pair, base: Tensor, heads: Sequence[Tensor]) -> list[HeadOutput]:
    """Of each head.

    Args:
        base: N x D embeddings by the student's base.
        heads: of the same images by each head of the network that is kept, N x E.
    """
    was_training = pair.training
    pair.eval()
    try:
        return [_compare(pair, index, base[None], head[None]) for index, head in enumerate(heads)]
    finally:
        pair.train(was_training)


def _compare(pair: Pair, index: int, base: Tensor, head: Tensor) -> HeadOutput:
    method, state, couple = pair.method, pair.states[index], pair.student.couples[index]
    output = couple.base_prediction(couple.base_output(base)).float()
    target = pair.kept.couples[index].head_output(head).float()
    if not method.assigns:
        return HeadOutput(key_distance(output, target), None)
    wanted, own = (
        method.assignments(target, state, 1.0).flatten(0, -2),
        method.log_assignments(target).exp().flatten(0, -2),
    )
    assignment = Assignment(
        assignment_entropy(wanted), assignment_information(wanted), assignment_information(own)
    )
    return HeadOutput(
        prototype_divergence(wanted, method.log_assignments(output).flatten(0, -2)), assignment
    )
