"""Bases and heads of different kinds train together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hssl_search.methods.base import methods
from hssl_search.training.pair import Pair
from hssl_search.training.trainer import Trainer

COUPLES = [("test_resnet", "transformer"), ("test_vit", "convnext"), ("test_convnext", "resnet")]


@pytest.mark.parametrize(
    ("method", "base", "head"),
    [
        (name, *couple)
        for name, method in methods().items()
        for couple in COUPLES
        if not method.masks or couple[0] == "test_vit"
    ],
)
def test_every_parameter_of_base_and_head_learns(
    pair: Callable[..., Pair], trainer: Callable[..., Trainer], method: str, base: str, head: str
) -> None:
    made = pair(method, head, base=base)
    before = {
        name: value.clone()
        for name, value in made.student.named_parameters()
        if value.requires_grad
    }
    training = trainer(made, steps=4)
    training.advance(3)
    after = dict(made.student.named_parameters())
    idle = [name for name in before if after[name].grad is None or not bool(after[name].grad.any())]
    assert idle == []
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []


@pytest.mark.parametrize("method", list(methods()))
def test_base_alone_trains(
    pair: Callable[..., Pair], trainer: Callable[..., Trainer], method: str
) -> None:
    made = pair(method)
    training = trainer(made, steps=4)
    training.advance(3)
    report = training.report()
    assert (report.step, report.head_losses, len(report.base_losses)) == (3, [], 1)
    assert report.loss == pytest.approx(report.base_losses[0] + sum(report.patch_losses))
    assert all(
        bool(parameter.grad.any())
        for parameter in made.student.parameters()
        if parameter.requires_grad
    )
