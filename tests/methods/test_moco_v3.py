"""MoCo v3 against the authors' algorithm written out, and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from hssl_search.methods.moco_v3 import MoCoV3, MoCoV3Config

T = 0.2
METHOD = MoCoV3(MoCoV3Config(projector_hidden=16, projector_out=8))


def ctr(queries: np.ndarray, keys: np.ndarray, temperature: float) -> float:
    """Return algorithm 1 of arXiv 2104.02057 for N x D queries and keys: 2 T CrossEntropy(q k^T /
    T, arange(N)).
    """
    q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys))
    logits = q @ k.T / temperature
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(2 * temperature * -np.mean(np.diag(log_probabilities)))


def loss(student: np.ndarray, target: np.ndarray, method: MoCoV3 = METHOD) -> float:
    return method.loss(torch.from_numpy(student), torch.from_numpy(target), nn.Module(), 0.0).item()


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_loss_of_two_views_is_half_the_sum_of_both_directions(temperature: float) -> None:
    student, target = np.random.default_rng(0).normal(size=(2, 2, 7, 5))
    of = MoCoV3(MoCoV3Config(temperature=temperature))
    symmetric = ctr(student[0], target[1], temperature) + ctr(student[1], target[0], temperature)
    assert 2 * loss(student, target, of) == pytest.approx(symmetric, rel=1e-5)


def test_loss_of_more_views_is_the_mean_over_pairs_of_different_ones() -> None:
    student, target = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    expected = [ctr(student[v], target[u], T) for v in range(3) for u in range(3) if u != v]
    assert loss(student, target) == pytest.approx(np.mean(expected), rel=1e-5)


def test_perfect_outputs_have_the_closed_form() -> None:
    batch = 6
    outputs = np.stack([np.eye(batch) * 3] * 2)
    assert loss(outputs, outputs) == pytest.approx(
        2 * T * math.log(1 + (batch - 1) * math.exp(-1 / T)), rel=1e-5
    )


def test_equal_outputs_have_the_chance_level() -> None:
    assert (
        loss(np.ones((2, 5, 3)), np.ones((2, 5, 3)))
        == pytest.approx(2 * T * math.log(5))
        == pytest.approx(METHOD.chance(5))
    )


@pytest.mark.parametrize(("layers", "count"), [(METHOD.projector(12), 3), (METHOD.predictor(), 2)])
def test_layers_have_no_bias_and_end_with_a_plain_batch_norm(layers: nn.Module, count: int) -> None:
    linear = [module for module in layers.modules() if isinstance(module, nn.Linear)]
    norms = [module for module in layers.modules() if isinstance(module, nn.BatchNorm1d)]
    assert [layer.bias for layer in linear] == [None] * count
    assert [norm.affine for norm in norms] == [True] * (count - 1) + [False]
    output = layers(
        torch.randn(32, linear[0].in_features, generator=torch.Generator().manual_seed(0))
    )
    torch.testing.assert_close(output.mean(dim=0), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.var(dim=0, correction=0), torch.ones(8), rtol=1e-2, atol=0)


def test_method_has_a_teacher_and_no_state() -> None:
    assert MoCoV3.needs_teacher
    assert list(METHOD.target_state().state_dict()) == []
