"""Discrepancies of outputs against their definitions, and where their answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hssl_search.discrepancy.output import key_distance, prototype_divergence

torch.set_num_threads(1)

V, B, K = 2, 5, 7


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (V, B, K), generator=torch.Generator().manual_seed(seed))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_divergence_is_what_the_cross_entropy_has_above_the_heads_entropy() -> None:
    wanted, given = (softmax(x.double().numpy() / 0.5) for x in (normal(0), normal(1)))
    cross_entropy, entropy = (
        -(wanted * np.log(given)).sum(-1).mean(),
        -(wanted * np.log(wanted)).sum(-1).mean(),
    )
    found = prototype_divergence(torch.from_numpy(wanted), torch.from_numpy(np.log(given)))
    assert found == pytest.approx(cross_entropy - entropy, rel=1e-6)


def test_equal_assignments_do_not_diverge() -> None:
    logits = normal(0).double()
    assert prototype_divergence(logits.softmax(-1), (logits + 3).log_softmax(-1)) == pytest.approx(
        0, abs=1e-12
    )


def test_a_sure_head_diverges_from_an_ignorant_base_by_the_logarithm_of_the_prototypes() -> None:
    sure = F.one_hot(torch.arange(V * B) % K, K).reshape(V, B, K).float()
    assert prototype_divergence(sure, torch.zeros(V, B, K).log_softmax(-1)) == pytest.approx(
        np.log(K)
    )


def test_divergence_stays_finite_where_probabilities_vanish() -> None:
    found = prototype_divergence((3e4 * normal(0)).softmax(-1), (1e4 * normal(1)).log_softmax(-1))
    assert np.isfinite(found) and found > 1e3


def test_divergence_of_broken_outputs_is_not_a_number() -> None:
    assert np.isnan(
        prototype_divergence((normal(0) * float("nan")).softmax(-1), normal(1).log_softmax(-1))
    )


def test_key_distance_is_nothing_for_equal_one_for_unrelated_and_two_for_opposite_outputs() -> None:
    x = normal(0)
    assert key_distance(3 * x, x) == pytest.approx(0, abs=1e-9)
    assert key_distance(-x, x) == pytest.approx(2)
    assert key_distance(normal(0, 2, 100, 500), normal(1, 2, 100, 500)) == pytest.approx(
        1, abs=0.02
    )
    units = [F.normalize(y.double(), dim=-1) for y in (normal(0), normal(1))]
    assert key_distance(normal(0), normal(1)) == pytest.approx(
        float((units[0] - units[1]).square().sum(-1).mean()) / 2
    )
