"""The whole objective of the official code, iBOT with a head, transcribed to float64 NumPy from its
formulas: every term, and no other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hssl_search.backbones import Masking
from hssl_search.data.views import Batch
from hssl_search.training.pair import Network, Pair

Array = NDArray[np.float64]
STUDENT_T, TEACHER_T = 0.1, 0.04


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(target: Array, center: Array, student: Array) -> Array:
    """Return the CE of the centred, sharpened target and the student over the last axis."""
    return -(softmax((target - center) / TEACHER_T) * np.log(softmax(student / STUDENT_T))).sum(
        axis=-1
    )


def cls_term(teacher: Array, center: Array, student: Array) -> float:
    """Return the mean over pairs (teacher global view u, student view v != u) of the mean over
    images; views x images x prototypes.
    """
    pairs = [
        cross_entropy(teacher[u], center, student[v]).mean()
        for u in range(len(teacher))
        for v in range(len(student))
        if u != v
    ]
    return float(np.mean(pairs))


def patch_term(teacher: Array, center: Array, student: Array, masks: NDArray[np.bool_]) -> float:
    """Return the mean over images, then views, of the mean over masked positions; views x images x
    positions x prototypes.
    """
    each = cross_entropy(teacher, center, student)
    return float(
        np.mean(
            [
                [
                    np.sum(each[v, i] * masks[v, i]) / max(masks[v, i].sum(), 1)
                    for i in range(each.shape[1])
                ]
                for v in range(len(each))
            ]
        )
    )


def outputs(
    network: Network, views: torch.Tensor, masks: torch.Tensor | None
) -> tuple[Array, Array, Array]:
    """Return (base, head, patches) of views x images x 3 x H x W, straight from the network's
    parts, in float64.
    """
    masking = None if masks is None else Masking(masks.flatten(0, 1), network.mask_token)
    couple, shape = network.couples[0], views.shape[:2]
    features = network.base(views.flatten(0, 1), masking)
    base = couple.prototypes(couple.base_projector(features.embedding))
    head = couple.prototypes(couple.head_projector(network.heads[0](features.map).embedding))
    patches = couple.prototypes(couple.base_projector(features.tokens.flatten(0, 1))).unflatten(
        0, features.tokens.shape[:2]
    )
    return tuple(part.unflatten(0, shape).double().numpy() for part in (base, head, patches))  # type: ignore[return-value]


@pytest.fixture
def made(pair: Callable[..., Pair]) -> Pair:
    """Make a pair in evaluation mode, so that no statistics of a batch join images or views; its
    teacher differs from the student.
    """
    built = pair(
        "ibot",
        {"family": "convnext", "depth": 2},
        any_size=True,
        settings={
            "teacher_temperature": TEACHER_T,
            "teacher_temperature_end": TEACHER_T,
            "student_temperature": STUDENT_T,
        },
    )
    assert built.teacher is not None
    with torch.no_grad():
        torch.manual_seed(4)
        for parameter in built.teacher.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for state in (*built.states, *built.patch_states):
            state.center.normal_(std=0.1)
    return built.eval()


@torch.no_grad()
def test_loss_is_half_the_cls_terms_of_base_and_head_and_the_patch_term_of_the_base(
    made: Pair, batch: Batch
) -> None:
    whole = batch._replace(
        locals=torch.randn(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    )
    assert made.teacher is not None and whole.locals is not None and whole.masks is not None
    base, head, patches = outputs(made.student, whole.globals, whole.masks)
    local_base, local_head, _ = outputs(made.student, whole.locals, None)
    _, head_target, patch_target = outputs(made.teacher, whole.globals, None)
    center, patch_center = (
        state.center.double().numpy() for state in (made.states[0], made.patch_states[0])
    )

    cls_base = cls_term(head_target, center, np.concatenate([base, local_base]))
    cls_head = cls_term(head_target, center, np.concatenate([head, local_head]))
    patch = patch_term(patch_target, patch_center, patches, whole.masks.flatten(2).numpy())
    expected = 0.5 * (cls_base + cls_head) + patch

    found = made.losses(whole, 0.0)
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert (found.base.item(), found.head.item(), found.patch.item()) == pytest.approx(
        (cls_base, cls_head, patch), rel=1e-5
    )


@torch.no_grad()
def test_centres_follow_the_heads_teacher_and_the_bases_patches(made: Pair, batch: Batch) -> None:
    assert made.teacher is not None
    _, head_target, patch_target = outputs(made.teacher, batch.globals, None)
    expected = [
        0.9 * state.center.double().numpy()
        + 0.1 * target.reshape(-1, target.shape[-1]).mean(axis=0)
        for state, target in ((made.states[0], head_target), (made.patch_states[0], patch_target))
    ]
    made.losses(batch, 0.0)
    for state, center in zip((made.states[0], made.patch_states[0]), expected, strict=True):
        np.testing.assert_allclose(state.center.double().numpy(), center, rtol=1e-4, atol=1e-6)


def centred(pair: Pair) -> Pair:
    """Return the centres at zero, where every call of `losses` starts from the same state."""
    for state in (*pair.states, *pair.patch_states):
        state.center.zero_()
    return pair


def test_base_has_no_cls_term_of_its_own_teacher(made: Pair, batch: Batch) -> None:
    assert made.teacher is not None
    before = centred(made).losses(batch, 0.0)
    with torch.no_grad():
        for parameter in made.teacher.couples[0].base_projector.parameters():
            parameter.normal_()
    after = centred(made).losses(batch, 0.0)
    assert torch.equal(after.base, before.base) and torch.equal(after.head, before.head)
    assert not torch.allclose(after.patch, before.patch)


def test_head_learns_from_half_its_own_cls_term_alone(made: Pair, batch: Batch) -> None:
    assert made.teacher is not None
    learned = [
        *made.student.heads[0].parameters(),
        *made.student.couples[0].head_projector.parameters(),
    ]
    found = torch.autograd.grad(centred(made).losses(batch, 0.0).total, learned)
    head, [target] = made.student.outputs(batch).head[0], made.teacher.targets(batch)[0]
    own = torch.autograd.grad(
        0.5 * made.method.loss(head, target, centred(made).states[0], 0.0), learned
    )
    for gradient, expected in zip(found, own, strict=True):
        torch.testing.assert_close(gradient, expected)
