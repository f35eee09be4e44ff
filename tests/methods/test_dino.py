"""DINO against its equations written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hssl_search.methods.dino import DINO, Center, DINOConfig

K = 6
METHOD = DINO(DINOConfig(prototypes=K, projector_hidden=16, projector_out=8))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(
    student: np.ndarray, target: np.ndarray, center: np.ndarray, student_t: float, teacher_t: float
) -> float:
    """Return equations 1 to 3 of arXiv 2104.14294, pair by pair of different views."""
    terms = []
    for u in range(len(target)):
        for v in range(len(student)):
            for i in range(student.shape[1]):
                if u != v:
                    wanted = softmax((target[u, i] - center) / teacher_t)
                    terms.append(-np.sum(wanted * np.log(softmax(student[v, i] / student_t))))
    return float(np.mean(terms))


def state(center: np.ndarray | None = None) -> Center:
    made = METHOD.target_state()
    assert isinstance(made, Center)
    if center is not None:
        made.center.copy_(torch.from_numpy(center))
    return made


@pytest.mark.parametrize(("targets", "students"), [(2, 2), (2, 4), (3, 3)])
@pytest.mark.parametrize("progress", [0.0, 0.15, 0.9])
def test_loss_is_the_cross_entropy_over_different_views(
    targets: int, students: int, progress: float
) -> None:
    rng = np.random.default_rng(0)
    student, target, center = (
        rng.normal(size=(students, 5, K)),
        rng.normal(size=(targets, 5, K)) * 0.2,
        rng.normal(size=K) * 0.1,
    )
    found = METHOD.loss(
        torch.from_numpy(student), torch.from_numpy(target), state(center), progress
    ).item()
    temperature = {0.0: 0.04, 0.15: 0.055, 0.9: 0.07}[progress]
    assert found == pytest.approx(
        cross_entropy(student, target, center, 0.1, temperature), rel=1e-5
    )


def test_same_view_is_no_target() -> None:
    student, target = torch.randn(2, 2, 3, K, generator=torch.Generator().manual_seed(0)).unbind(0)
    student[1] = 0.0  # gives every prototype the same share, whatever is asked of it
    changed = target.clone()
    changed[0] = torch.eye(K)[:3]  # what view 0 asks for, it asks of the student's view 1 alone
    torch.testing.assert_close(
        METHOD.loss(student, changed, state(), 0.0), METHOD.loss(student, target, state(), 0.0)
    )


def test_temperature_of_the_teacher_rises_linearly_and_stays() -> None:
    found = [METHOD.teacher_temperature(progress) for progress in (0.0, 0.1, 0.3, 0.7, 1.0)]
    assert found == pytest.approx([0.04, 0.05, 0.07, 0.07, 0.07])
    without = DINO(DINOConfig(teacher_temperature_warmup=0.0))
    assert [without.teacher_temperature(progress) for progress in (0.0, 1.0)] == [0.07, 0.07]


def test_center_is_the_running_mean_of_the_targets() -> None:
    made, target = state(), torch.randn(2, 4, K, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        METHOD.update(made, target)
    torch.testing.assert_close(made.center, (1 - 0.9**3) * target.mean(dim=(0, 1))[None])


def test_centring_takes_away_what_all_targets_share() -> None:
    student, target = (
        torch.randn(2, 2, 4, K, generator=torch.Generator().manual_seed(0)).double().unbind(0)
    )
    shared = np.arange(K) / 10
    plain = METHOD.loss(student, target, state(), 0.0)
    torch.testing.assert_close(
        METHOD.loss(student, target + torch.from_numpy(shared), state(shared), 0.0),
        plain,
        rtol=1e-5,
        atol=1e-5,
    )


def test_no_gradient_reaches_the_target() -> None:
    student, target = (torch.randn(2, 4, K, requires_grad=True) for _ in range(2))
    METHOD.loss(student, target, state(), 0.5).backward()
    assert student.grad is not None and target.grad is None


def test_prototypes_keep_length_one_through_training() -> None:
    layer = METHOD.prototypes()
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    layer(torch.randn(3, 8)).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(K))
    assert len(trained) == 1


def test_projector_gives_length_one() -> None:
    torch.testing.assert_close(METHOD.projector(12)(torch.randn(5, 12)).norm(dim=1), torch.ones(5))


def test_chance_is_the_entropy_of_all_prototypes() -> None:
    assert METHOD.chance(32) == pytest.approx(math.log(K))
    assert DINO.needs_teacher
