"""BYOL against its equation written out, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hssl_search.methods.byol import BYOL, BYOLConfig

METHOD = BYOL(BYOLConfig(projector_hidden=16, projector_out=8))


def distance(prediction: np.ndarray, target: np.ndarray) -> float:
    """Return equation 2 of arXiv 2006.07733 for N x D outputs: the mean squared distance of vectors
    of length 1.
    """
    q, z = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (prediction, target))
    return float(np.mean(np.sum((q - z) ** 2, axis=1)))


def loss(student: np.ndarray, target: np.ndarray) -> float:
    return METHOD.loss(torch.from_numpy(student), torch.from_numpy(target), nn.Module(), 0.0).item()


@pytest.mark.parametrize("views", [2, 3])
def test_loss_is_the_mean_squared_distance_over_different_views(views: int) -> None:
    student, target = np.random.default_rng(0).normal(size=(2, views, 6, 5))
    expected = [
        distance(student[v], target[u]) for v in range(views) for u in range(views) if u != v
    ]
    assert loss(student, target) == pytest.approx(np.mean(expected), rel=1e-5)


def test_loss_runs_from_zero_to_four() -> None:
    outputs = np.random.default_rng(1).normal(size=(1, 6, 5)).repeat(2, axis=0)
    assert loss(outputs, 3 * outputs) == pytest.approx(0, abs=1e-6)
    assert loss(outputs, -outputs) == pytest.approx(4, rel=1e-6)


def test_same_view_is_no_target() -> None:
    # each view predicts its own target, which is orthogonal to the other's
    outputs = np.stack([np.eye(5)[:2], np.eye(5)[2:4]])
    assert loss(outputs, outputs) == pytest.approx(2) == METHOD.chance(2)


def test_predictor_has_two_layers_and_ends_without_a_norm() -> None:
    layers = METHOD.predictor()
    assert [type(module) for module in layers.modules()][1:] == [
        nn.Linear,
        nn.BatchNorm1d,
        nn.ReLU,
        nn.Linear,
    ]
    assert layers(torch.randn(4, 8)).shape == (4, 8)


def test_method_has_a_teacher_no_state_and_a_loss_that_is_no_sign_of_learning() -> None:
    assert BYOL.needs_teacher and not BYOL.loss_shows_learning
    assert list(METHOD.target_state().state_dict()) == []
