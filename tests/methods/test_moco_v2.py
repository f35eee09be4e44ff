"""MoCo v2 against its equation and a plain queue written out."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from hssl_search.methods.moco_v2 import MoCoV2, MoCoV2Config, Queue

T, D = 0.2, 5


def method(queue: int) -> MoCoV2:
    return MoCoV2(MoCoV2Config(queue=queue, projector_out=D))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def info_nce(student: np.ndarray, target: np.ndarray, negatives: np.ndarray) -> float:
    """Return equation 1 of arXiv 1911.05722, query by query, over ordered pairs of different
    views.
    """
    queries, keys = unit(student), unit(target)
    terms = []
    for u in range(len(keys)):
        for v in range(len(queries)):
            for q, key in zip(queries[v], keys[u], strict=True):
                others = sum(np.exp(q @ negative / T) for negative in negatives)
                terms += (
                    [-np.log(np.exp(q @ key / T) / (np.exp(q @ key / T) + others))]
                    if u != v
                    else []
                )
    return float(np.mean(terms))


def drawn(seed: int, views: int = 2, batch: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(views, batch, D))


def filled(of: MoCoV2, *targets: np.ndarray) -> Queue:
    state = of.target_state()
    for target in targets:
        of.update(state, torch.from_numpy(target))
    assert isinstance(state, Queue)
    return state


def loss(of: MoCoV2, student: np.ndarray, target: np.ndarray, state: nn.Module) -> float:
    return of.loss(torch.from_numpy(student), torch.from_numpy(target), state, 0.0).item()


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_loss_is_info_nce_over_the_keys_in_the_queue(views: int, steps: int) -> None:
    of = method(queue=24)
    earlier = [drawn(seed, views) for seed in range(steps)]
    negatives = (
        unit(np.concatenate([target.reshape(-1, D) for target in earlier]))
        if earlier
        else np.empty((0, D))
    )
    student, target = drawn(10, views), drawn(11, views)
    assert loss(of, student, target, filled(of, *earlier)) == pytest.approx(
        info_nce(student, target, negatives[-24:]), rel=1e-5, abs=1e-7
    )


@pytest.mark.parametrize(
    ("queue", "batches"),
    [
        (12, [3, 3, 3]),  # the ring closes at a step's end
        (12, [4, 5, 1, 5]),  # in the middle of a step
        (12, [6, 6]),
        (5, [1, 7, 2]),  # a step has more keys than the queue
        (1, [1, 2]),
        (64, [3, 2]),  # never full
    ],
)
def test_queue_holds_the_last_keys(queue: int, batches: list[int]) -> None:
    of, expected = method(queue), deque[np.ndarray](maxlen=queue)
    targets = [drawn(seed, batch=batch) for seed, batch in enumerate(batches)]
    for target in targets:
        expected.extend(unit(target).reshape(-1, D))
    state = filled(of, *targets)
    held = state.keys[~state.empty()].numpy()
    assert len(held) == len(expected)
    np.testing.assert_allclose(
        held[held[:, 0].argsort()], sorted(expected, key=lambda key: key[0]), rtol=1e-5
    )


def test_newest_keys_take_the_places_of_the_oldest() -> None:
    of = method(queue=8)
    before, after = (
        filled(of, drawn(0), drawn(1, batch=1)),
        filled(of, drawn(0), drawn(1, batch=1), drawn(2)),
    )
    assert torch.equal(before.keys[6:], after.keys[6:])
    np.testing.assert_allclose(after.keys[:6], unit(drawn(2)).reshape(-1, D), rtol=1e-5)
    assert not bool(torch.isclose(before.keys[:6], after.keys[:6]).all(dim=1).any())


def test_empty_places_are_no_negatives() -> None:
    few, many = method(queue=6), method(queue=600)
    student, target = drawn(1), drawn(2)
    assert loss(few, student, target, filled(few, drawn(0))) == pytest.approx(
        loss(many, student, target, filled(many, drawn(0))), rel=1e-6
    )


def test_first_step_has_no_negatives_and_a_loss_of_zero() -> None:
    of, student = method(queue=6), torch.from_numpy(drawn(0)).requires_grad_()
    found = of.loss(student, torch.from_numpy(drawn(1)), of.target_state(), 0.0)
    found.backward()
    assert found.item() == 0.0
    assert student.grad is not None and not bool(student.grad.any())


def test_perfect_outputs_have_the_closed_form() -> None:
    of = method(queue=6)
    target = np.stack([np.eye(D)[:3] * 7] * 2)  # of any length
    others = filled(of, np.stack([np.eye(D)[[3, 4, 3]]] * 2))  # orthogonal to all of them
    assert loss(of, target, target, others) == pytest.approx(
        math.log(1 + 6 * math.exp(-1 / T)), rel=1e-5
    )


def test_projector_has_no_batch_norm() -> None:
    assert [type(module) for module in method(queue=6).projector(12).modules()][1:] == [
        nn.Linear,
        nn.ReLU,
        nn.Linear,
    ]


def test_chance_is_that_of_a_full_queue() -> None:
    of = method(queue=6)
    nothing = np.zeros((2, 3, D))
    assert (
        loss(of, nothing, drawn(0), filled(of, drawn(1)))
        == pytest.approx(math.log(7))
        == pytest.approx(of.chance(3))
    )


def test_method_has_a_teacher_and_its_loss_is_no_sign_of_learning() -> None:
    assert MoCoV2.needs_teacher and not MoCoV2.loss_shows_learning
    assert isinstance(method(queue=6).predictor(), nn.Identity)
