"""NT-Xent against its definition written out, and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from hssl_search.methods.simclr import SimCLR, SimCLRConfig

T = 0.2
METHOD = SimCLR(SimCLRConfig(temperature=T))


def nt_xent(student: np.ndarray, target: np.ndarray, temperature: float) -> float:
    """Return equation 1 of arXiv 2002.05709, anchor by anchor: keys are all target outputs except
    the one of the anchor's own view and image.
    """
    views, batch, _ = student.shape
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (student, target)]
    terms = []
    for u in range(views):
        for i in range(batch):
            keys = [(v, j) for v in range(views) for j in range(batch) if (v, j) != (u, i)]
            e = {key: np.exp(unit[0][u, i] @ unit[1][key] / temperature) for key in keys}
            terms += [-np.log(e[v, i] / sum(e.values())) for v in range(views) if v != u]
    return float(np.mean(terms))


def loss(student: np.ndarray, target: np.ndarray) -> float:
    return METHOD.loss(torch.from_numpy(student), torch.from_numpy(target), nn.Module(), 0.0).item()


@pytest.mark.parametrize(("views", "batch"), [(2, 1), (2, 7), (3, 4)])
def test_loss_is_nt_xent(views: int, batch: int) -> None:
    outputs = np.random.default_rng(0).normal(size=(views, batch, 5))
    assert loss(outputs, outputs) == pytest.approx(nt_xent(outputs, outputs, T), rel=1e-5, abs=1e-6)


def test_loss_between_two_branches_has_anchors_of_one_and_keys_of_the_other() -> None:
    student, target = np.random.default_rng(1).normal(size=(2, 2, 6, 5))
    assert loss(student, target) == pytest.approx(nt_xent(student, target, T), rel=1e-5)
    assert loss(student, target) != pytest.approx(loss(target, student), rel=1e-3)


def test_perfect_outputs_have_the_closed_form() -> None:
    batch = 6
    outputs = np.stack([np.eye(batch) * 3] * 2)  # both views alike, images orthogonal, any length
    assert loss(outputs, outputs) == pytest.approx(
        math.log(math.exp(1 / T) + 2 * batch - 2) - 1 / T, rel=1e-5
    )


def test_equal_outputs_have_the_chance_level() -> None:
    outputs = np.ones((2, 5, 3))
    assert loss(outputs, outputs) == pytest.approx(math.log(9)) == pytest.approx(METHOD.chance(5))


def test_target_with_gradients_gets_them_and_one_without_does_not() -> None:
    student, target = (
        torch.randn(2, 2, 4, 8, generator=torch.Generator().manual_seed(0))
        .requires_grad_()
        .unbind(0)
    )
    to_student, to_target = torch.autograd.grad(
        METHOD.loss(student, target, nn.Module(), 0.0), (student, target)
    )
    assert bool(to_student.any()) and bool(to_target.any())
    (only,) = torch.autograd.grad(METHOD.loss(student, target.detach(), nn.Module(), 0.0), student)
    torch.testing.assert_close(only, to_student)


def test_method_has_no_teacher_no_prototypes_and_no_state() -> None:
    assert not SimCLR.needs_teacher
    assert isinstance(METHOD.prototypes(), nn.Identity)
    assert list(METHOD.target_state().state_dict()) == []
