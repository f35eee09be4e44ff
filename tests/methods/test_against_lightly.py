"""The methods against a second library, lightly: losses, their gradients, and the state of the
targets.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hssl_search.methods.byol import BYOL, BYOLConfig
from hssl_search.methods.dino import DINO, DINOConfig
from hssl_search.methods.moco_v2 import MoCoV2, MoCoV2Config
from hssl_search.methods.simclr import SimCLR, SimCLRConfig

lightly: Any = pytest.importorskip("lightly.loss")
torch.set_num_threads(1)

D = 8


def drawn(seed: int, views: int = 2, batch: int = 6, width: int = D) -> Tensor:
    return torch.randn(views, batch, width, generator=torch.Generator().manual_seed(seed))


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def assert_same_loss_and_gradients(found: Tensor, expected: Tensor, *outputs: Tensor) -> None:
    assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, outputs), torch.autograd.grad(expected, outputs), strict=True
    ):
        assert bool(ours.any())
        assert_close(ours, theirs)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr(temperature: float) -> None:
    outputs = drawn(0).requires_grad_()
    found = SimCLR(SimCLRConfig(temperature=temperature)).loss(outputs, outputs, nn.Module(), 0.0)
    assert_same_loss_and_gradients(found, lightly.NTXentLoss(temperature)(*outputs), outputs)


def test_byol() -> None:
    student, target = drawn(0).requires_grad_(), drawn(1)
    negative_cosine = lightly.NegativeCosineSimilarity()
    expected = 2 + negative_cosine(student[0], target[1]) + negative_cosine(student[1], target[0])
    assert_same_loss_and_gradients(
        BYOL(BYOLConfig()).loss(student, target, nn.Module(), 0.0), expected, student
    )


def test_moco_v2_over_steps_that_wrap_the_queue_around() -> None:
    """lightly's bank is full from the start, of random keys, so the queue is given the same; the
    steps' keys fill it evenly.
    """
    method = MoCoV2(MoCoV2Config(queue=36, projector_out=D))
    state: Any = method.target_state()
    criterion = lightly.NTXentLoss(0.2, memory_bank_size=(36, D))
    state.load_state_dict({"keys": criterion.memory_bank.bank, "enqueued": torch.tensor(36)})
    for step in range(5):
        student, target = drawn(step).requires_grad_(), drawn(100 + step)
        expected = 0.5 * (
            frozen(criterion, student[0], target[1]) + frozen(criterion, student[1], target[0])
        )
        assert_same_loss_and_gradients(method.loss(student, target, state, 0.0), expected, student)
        method.update(state, target)
        criterion(student.flatten(0, 1), target.flatten(0, 1))  # enqueues
        assert_close(state.keys, criterion.memory_bank.bank)


def frozen(criterion: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """Return lightly's loss of queries with gradients, without putting the keys in its bank."""
    bank, place = criterion.memory_bank.bank.clone(), criterion.memory_bank.bank_ptr.clone()
    loss: Tensor = criterion(queries, keys)
    criterion.memory_bank.bank, criterion.memory_bank.bank_ptr = bank, place
    return loss


@pytest.mark.parametrize("students", [2, 5])
def test_dino_with_its_centre_over_steps(students: int) -> None:
    """The temperature of the teacher, a schedule here, is told to lightly; both bring the centre up
    to date after the loss.
    """
    method = DINO(
        DINOConfig(
            prototypes=D,
            teacher_temperature=0.04,
            teacher_temperature_end=0.07,
            teacher_temperature_warmup=0.5,
        )
    )
    state: Any = method.target_state()
    criterion = lightly.DINOLoss(output_dim=D, student_temp=0.1, center_momentum=0.9)
    for step, temperature in enumerate([0.04, 0.055, 0.07, 0.07]):
        student, target = drawn(step, views=students).requires_grad_(), drawn(100 + step) * 0.2
        found = method.loss(student, target, state, step / 4)
        assert_same_loss_and_gradients(
            found, criterion(list(target), list(student), teacher_temp=temperature), student
        )
        method.update(state, target)
        assert_close(state.center, criterion.center[0])
