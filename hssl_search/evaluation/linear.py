"""Linear classification of frozen embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

L2 = 1e-3
"""Weight decay, on embeddings of variance 1. It is fixed, so that no representation is judged by a
better search for it than another."""
STEPS = 300
"""Iterations of L-BFGS, at the most."""
TOLERANCE = 1e-5
"""Largest entry of the gradient at which the fit has ended."""
SMALLEST_SPREAD = 1e-6
"""Standard deviation below which a dimension is constant, and is not divided by it."""


def linear_accuracy(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, l2: float = L2
) -> float:
    """Return the per cent of queries that multinomial logistic regression on the bank classifies
    right.

    Minimises mean cross-entropy + l2/2 ||W||^2 with a bias that is not decayed, which is
    scikit-learn's LogisticRegression with C = 1 / (N l2), to its minimum by L-BFGS. Both sides are
    standardised with the *bank's* mean and standard deviation.

    Args:
        bank: N x D embeddings with known labels.
        bank_labels: N class numbers, 0 to C-1.
        queries: M x D embeddings.
        query_labels: M class numbers; those of a class that the bank has not are never right.
        l2: weight decay.
    """
    # The queries' own statistics would leak what is to be judged.
    mean, spread = bank.mean(dim=0), bank.std(dim=0, correction=0)
    scale = torch.where(spread < SMALLEST_SPREAD, 1.0, spread)
    weights, bias = fit((bank - mean) / scale, bank_labels, l2)
    predicted = ((queries - mean) / scale @ weights + bias).argmax(dim=1)
    return 100.0 * float((predicted == query_labels).float().mean())


def fit(x: Tensor, labels: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Fit the weights and biases; starts from zero, so that the fit is reproducible.

    Args:
        x: N x D features.
        labels: N class numbers, 0 to C-1.
        l2: weight decay.

    Returns:
        (D x C weights, C biases) of the minimum.
    """
    classes = int(labels.max()) + 1
    weights = torch.zeros(x.shape[1], classes, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias],
        max_iter=STEPS,
        tolerance_grad=TOLERANCE,
        tolerance_change=0.0,  # a small step is no end: only the gradient tells
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weights + bias, labels) + l2 / 2 * weights.square().sum()
        value.backward()
        return value

    # Callers may evaluate under no_grad.
    with torch.enable_grad():
        optimizer.step(loss)
    return weights.detach(), bias.detach()
