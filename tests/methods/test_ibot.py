"""iBOT's patch term against its equation written out, and against lightly's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hssl_search.data.masks import masked_places, patch_weights
from hssl_search.methods.dino import Center
from hssl_search.methods.ibot import IBOT, IBOTConfig

K, IMAGES, PATCHES = 6, 5, 4
METHOD = IBOT(IBOTConfig(prototypes=K, projector_hidden=16, projector_out=8))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def patch_term(
    student: np.ndarray, target: np.ndarray, masks: np.ndarray, center: np.ndarray, teacher_t: float
) -> float:
    """Return equation 2 of arXiv 2111.07832, patch by patch; an image without a masked patch counts
    as 0, as in the official code.
    """
    images = []
    for view in range(len(student)):
        for image in range(student.shape[1]):
            terms = [
                -np.sum(
                    softmax((target[view, image, patch] - center) / teacher_t)
                    * np.log(
                        softmax(student[view, image, patch] / METHOD.config.student_temperature)
                    )
                )
                for patch in range(student.shape[2])
                if masks[view, image, patch]
            ]
            images.append(np.mean(terms) if terms else 0.0)
    return float(np.mean(images))


def state(center: np.ndarray) -> Center:
    made = METHOD.target_state()
    assert isinstance(made, Center)
    made.center.copy_(torch.from_numpy(center))
    return made


def case(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (student, target, masks, centre); the first image has no masked patch."""
    rng = np.random.default_rng(seed)
    masks = rng.random((2, IMAGES, PATCHES)) < 0.4
    masks[:, 0] = False
    masks[:, 1:, 0] = True
    shape = (2, IMAGES, PATCHES, K)
    return rng.normal(size=shape), rng.normal(size=shape) * 0.2, masks, rng.normal(size=K) * 0.1


def loss_of(
    student: torch.Tensor,
    target: torch.Tensor,
    masks: torch.Tensor,
    center: np.ndarray,
    progress: float = 0.0,
) -> torch.Tensor:
    """Return the loss of views x images x patches x prototypes, as a pair hands them over: masked
    patches alone.
    """
    grid, places = masks[:, :, None], masked_places(masks)
    return METHOD.patch_loss(
        student.flatten(0, 2)[places],
        target.flatten(0, 2)[places],
        patch_weights(grid),
        state(center),
        progress,
    )


@pytest.mark.parametrize("progress", [0.0, 0.15, 0.9])
def test_patch_loss_is_the_cross_entropy_of_masked_patches_in_the_same_view(
    progress: float,
) -> None:
    student, target, masks, center = case()
    found = loss_of(*map(torch.from_numpy, (student, target, masks)), center, progress)
    expected = patch_term(student, target, masks, center, METHOD.teacher_temperature(progress))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_patch_loss_equals_that_of_lightly() -> None:
    lightly = pytest.importorskip(
        "lightly.loss", reason="lightly is not installed: pip install lightly"
    )
    student, target, masks, _ = (torch.from_numpy(part) for part in case())
    config = METHOD.config
    reference = lightly.IBOTPatchLoss(
        output_dim=K,
        teacher_temp=METHOD.teacher_temperature(0.0),
        student_temp=config.student_temperature,
        center_momentum=config.center_momentum,
    )
    hidden = masks[:, 1:].flatten(0, 1)  # lightly takes no image without a masked patch
    expected = reference(
        teacher_out=target[:, 1:].flatten(0, 1)[hidden].float(),
        student_out=student[:, 1:].flatten(0, 1)[hidden].float(),
        mask=hidden.unflatten(1, (2, 2)),
    )
    assert loss_of(
        student[:, 1:], target[:, 1:], masks[:, 1:], np.zeros(K)
    ).item() == pytest.approx(expected.item(), abs=1e-5)


def test_patches_masked_nowhere_give_zero_and_no_gradient() -> None:
    student = torch.randn(2, 3, PATCHES, K, requires_grad=True)
    loss = loss_of(
        student,
        torch.randn(2, 3, PATCHES, K),
        torch.zeros(2, 3, PATCHES, dtype=torch.bool),
        np.zeros(K),
    )
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None and not bool(student.grad.any())


def test_patch_loss_of_a_student_that_says_nothing_is_log_k() -> None:
    student, target, masks, center = case()
    masks[:, 0, 0] = True
    found = loss_of(*map(torch.from_numpy, (np.zeros_like(student), target, masks)), center)
    assert found.item() == pytest.approx(math.log(K), rel=1e-6)


def test_centre_of_the_patches_is_the_running_mean_over_all_positions() -> None:
    made, target = (
        state(np.zeros(K)),
        torch.randn(2, 4, PATCHES, K, generator=torch.Generator().manual_seed(0)),
    )
    METHOD.update(made, target.mean(dim=(0, 1, 2))[None])
    torch.testing.assert_close(made.center, 0.1 * target.mean(dim=(0, 1, 2))[None])
