"""The outputs of base and head for held-out images, where the loss compares them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hssl_search.discrepancy.output import key_distance, prototype_divergence
from hssl_search.evaluation.assignment import Assignment, assignment_entropy, assignment_information
from hssl_search.training.pair import Pair


class HeadOutput(NamedTuple):
    """What the outputs of one head tell."""

    discrepancy: float
    """`prototype_divergence` with prototypes, else `key_distance`: of the base's output that was
    trained against this head, to the head's target."""
    assignment: Assignment | None
    """Of the head's targets; None without prototypes."""


@torch.no_grad()
def compare_outputs(pair: Pair, base: Tensor, heads: Sequence[Tensor]) -> list[HeadOutput]:
    """Compare the base's outputs with those of each head.

    Args:
        pair: whose projectors make the outputs.
        base: N x D embeddings by the student's base.
        heads: of the same images by each head of the network that is kept, N x E.

    Returns:
        one HeadOutput a head.
    """
    # Evaluated, so that BatchNorm neither mixes these images nor learns from them.
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
    # As targets are at the end of the training, and as the student would assign the same outputs.
    targets = method.assignments(target, state, 1.0).flatten(0, -2)
    unsharpened = method.log_assignments(target).exp().flatten(0, -2)
    entropy, information = assignment_entropy(targets), assignment_information(targets)
    assignment = Assignment(entropy, information, assignment_information(unsharpened))
    predictions = method.log_assignments(output).flatten(0, -2)
    return HeadOutput(prototype_divergence(targets, predictions), assignment)
