"""The trainer: what a step does, which images it takes, and where it stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hssl_search.data.views import Batch
from hssl_search.methods.base import methods
from hssl_search.training.pair import Pair
from hssl_search.training.schedule import cosine, warmup_cosine
from hssl_search.training.trainer import NonFiniteError, Trainer

MakePair = Callable[..., Pair]
MakeTrainer = Callable[..., Trainer]


class Recorded:
    """Views that keep which images were asked for: each image's first pixel is its number."""

    def __init__(self, poisoned: int = -1) -> None:
        self.batches: list[list[int]] = []
        self.poisoned = poisoned

    def batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        step = len(self.batches)
        self.batches.append(images[:, 0, 0, 0].tolist())
        views = torch.rand((2, *images.shape), generator=generator)
        return Batch(views * (float("nan") if step == self.poisoned else 1.0), None, None)


def numbered(count: int) -> Tensor:
    return (
        torch.arange(count, dtype=torch.uint8)[:, None, None, None]
        .expand(count, 3, 32, 32)
        .contiguous()
    )


def losses(training: Trainer, steps: int) -> list[float]:
    found = []
    for step in range(1, steps + 1):
        training.advance(step)
        found.append(training.report().loss)
    return found


@pytest.mark.parametrize("method", list(methods()))
def test_same_seed_gives_the_same_losses_and_another_seed_others(
    pair: MakePair, trainer: MakeTrainer, method: str
) -> None:
    first, same, other = (
        losses(trainer(pair(method, "mlp", "noise"), seed=seed), 3) for seed in (5, 5, 6)
    )
    assert first == same
    assert first != other


def test_training_lowers_the_loss(
    pair: MakePair, trainer: MakeTrainer, patterns: Callable[..., Tensor]
) -> None:
    found = losses(trainer(pair("simclr", "convnext"), patterns(16), steps=20, batch_size=16), 20)
    assert sum(found[-5:]) < 0.95 * sum(found[:5])


def test_report_holds_the_means_since_the_last_one(pair: MakePair, trainer: MakeTrainer) -> None:
    each = losses(trainer(pair("simclr", "mlp", "identity")), 4)
    together = trainer(pair("simclr", "mlp", "identity"))
    together.advance(1)
    together.report()
    together.advance(4)
    report = together.report()
    assert report.step == 4
    assert report.loss == pytest.approx(sum(each[1:]) / 3, rel=1e-6)
    assert report.loss == pytest.approx(sum(report.base_losses + report.head_losses) / 4, rel=1e-6)


def test_epoch_is_a_new_order_of_all_images_without_the_incomplete_last_batch(
    pair: MakePair, trainer: MakeTrainer
) -> None:
    views = Recorded()
    trainer(pair("simclr"), numbered(11), steps=9, views=views, batch_size=4).advance(6)
    steps = views.batches
    epochs = [steps[start] + steps[start + 1] for start in (0, 2, 4)]
    assert all(len(set(epoch)) == 8 and set(epoch) <= set(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_batch_is_all_images_where_there_are_fewer(pair: MakePair, trainer: MakeTrainer) -> None:
    views = Recorded()
    trainer(pair("simclr"), numbered(5), views=views, batch_size=64).advance(2)
    assert [sorted(batch) for batch in views.batches] == [list(range(5))] * 2


def test_order_of_images_depends_on_the_seed_alone(pair: MakePair, trainer: MakeTrainer) -> None:
    seen = []
    for heads, seed in (((), 1), (("convnext", "noise"), 1), ((), 2)):
        views = Recorded()
        trainer(pair("simclr", *heads), numbered(12), views=views, seed=seed, batch_size=4).advance(
            3
        )
        seen.append(views.batches)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_loss_that_is_not_finite_stops_before_the_optimizer(
    pair: MakePair, trainer: MakeTrainer, optimizer: str
) -> None:
    made = pair("simclr", "mlp")
    training = trainer(made, views=Recorded(poisoned=2), optimizer=optimizer)
    training.advance(2)
    before = [parameter.clone() for parameter in made.student.parameters()]
    with pytest.raises(NonFiniteError, match="at step 2;"):
        training.advance(6)
    assert all(torch.equal(*both) for both in zip(before, made.student.parameters(), strict=True))


def test_gradient_that_is_not_finite_stops_too(pair: MakePair, trainer: MakeTrainer) -> None:
    made = pair("dino", "mlp")
    before = [parameter.clone() for parameter in made.student.parameters()]
    next(made.student.base.parameters()).register_hook(lambda gradient: gradient / 0)
    with pytest.raises(NonFiniteError, match="at step 0;"):
        trainer(made, clip_grad=1.0).advance(1)
    assert all(torch.equal(*both) for both in zip(before, made.student.parameters(), strict=True))


def test_steps_after_one_that_is_not_finite_change_nothing_until_it_is_seen(
    pair: MakePair, trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator, where the flag is looked at only now and then."""
    made = pair("simclr", "mlp")
    training = trainer(made, views=Recorded(poisoned=1))
    training.advance(1)
    before = [parameter.clone() for parameter in made.student.parameters()]
    look = training._raise_if_bad
    monkeypatch.setattr(training, "_raise_if_bad", lambda: look() if training.step == 4 else None)
    with pytest.raises(NonFiniteError, match="at step 1;"):
        training.advance(4)
    assert all(torch.equal(*both) for both in zip(before, made.student.parameters(), strict=True))


def test_schedules_reach_the_optimizer(pair: MakePair, trainer: MakeTrainer) -> None:
    training = trainer(
        pair("simclr"),
        steps=5,
        lr=0.01,
        final_lr=0.1,
        warmup=0.4,
        weight_decay=0.2,
        weight_decay_end=0.6,
    )
    found: list[tuple[Any, ...]] = []
    for step in range(1, 6):
        training.advance(step)
        found.append(
            tuple(
                group[key]
                for group in training.optimizer.param_groups
                for key in ("lr", "weight_decay")
            )
        )
    expected = [
        (lr := warmup_cosine(0.01, 0.001, 0.4, step / 5), cosine(0.2, 0.6, step / 5), lr, 0.0)
        for step in range(1, 6)
    ]
    assert found == [pytest.approx(one) for one in expected]
    assert found[-1] == pytest.approx((0.001, 0.6, 0.001, 0.0))


def test_weight_decay_is_on_matrices_and_kernels_alone(
    pair: MakePair, trainer: MakeTrainer
) -> None:
    made = pair("dino", "convnext")
    decayed, spared = (group["params"] for group in trainer(made).optimizer.param_groups)
    assert {parameter.ndim > 1 for parameter in decayed} == {True}
    assert {parameter.ndim > 1 for parameter in spared} == {False}
    assert len(decayed) + len(spared) == sum(
        parameter.requires_grad for parameter in made.student.parameters()
    )


def test_gradients_are_clipped_together(pair: MakePair, trainer: MakeTrainer) -> None:
    norms = []
    for clip in (None, 1e-3):
        made = pair("simclr", "convnext")
        trainer(made, clip_grad=clip).advance(1)
        norms.append(
            torch.nn.utils.get_total_norm(
                [p.grad for p in made.parameters() if p.grad is not None]
            ).item()
        )
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_teacher_follows_on_its_cosine(pair: MakePair, trainer: MakeTrainer) -> None:
    made = pair("dino")
    training = trainer(made, steps=4, teacher_momentum=0.5)
    assert made.teacher is not None
    training.advance(1)
    before = [parameter.clone() for parameter in made.teacher.parameters()]
    training.advance(2)
    momentum = cosine(0.5, 1.0, 1 / 4)
    for old, new, student in zip(
        before, made.teacher.parameters(), made.student.parameters(), strict=True
    ):
        torch.testing.assert_close(new, momentum * old + (1 - momentum) * student)


def test_bf16_trains_close_to_fp32(pair: MakePair, trainer: MakeTrainer) -> None:
    full, half = (
        losses(trainer(pair("simclr", "convnext", base="test_vit"), precision=precision), 3)
        for precision in ("fp32", "bf16")
    )
    assert half != full
    assert half == pytest.approx(full, rel=0.05)
