"""Blocks whose activations are computed again: the same training in less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from hssl_search.methods.base import methods
from hssl_search.training.pair import Pair
from hssl_search.training.recompute import blocks
from hssl_search.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]


def trained(made: Trainer, recompute: bool) -> dict[str, Tensor]:
    """Return everything that three steps leave behind: losses, gradients, weights, statistics,
    random numbers.
    """
    if recompute:
        made.recompute()
    torch.manual_seed(5)
    made.advance(3)
    report = made.report()
    gradients = {
        f"gradient.{name}": value.grad
        for name, value in made.pair.student.named_parameters()
        if value.grad is not None
    }
    losses = torch.tensor(
        [report.loss, *report.base_losses, *report.head_losses, *report.patch_losses]
    )
    return {
        **made.pair.state_dict(),
        **gradients,
        "losses": losses,
        "random": torch.get_rng_state(),
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", list(methods()))
def test_a_training_stays_as_it_was_bit_by_bit(
    pair: Callable[..., Pair], trainer: MakeTrainer, method: str, precision: str
) -> None:
    heads = (
        "convnext",
        "noise",
        {"family": "transformer", "depth": 2},
        {"family": "resnet", "depth": 2},
    )
    plain, again = (
        trained(trainer(pair(method, *heads, drop_path=0.2), precision=precision), recompute)
        for recompute in (False, True)
    )
    assert plain.keys() == again.keys()
    assert [key for key in plain if not torch.equal(plain[key], again[key])] == []


def held_bytes(made: Trainer, recompute: bool) -> int:
    """Return the bytes that the graph of one step's loss keeps."""
    if recompute:
        made.recompute()
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def give(tensor: Any) -> Any:
        return tensor

    with saved_tensors_hooks(keep, give):
        made.advance(1)
    return sum(held.values())


@pytest.mark.parametrize(
    ("base", "most"), [("test_resnet", 0.6), ("test_vit", 0.3), ("test_convnext", 0.5)]
)
def test_less_memory_is_held(
    pair: Callable[..., Pair], trainer: MakeTrainer, base: str, most: float
) -> None:
    plain, again = (
        held_bytes(trainer(pair("simclr", "convnext", base=base)), recompute)
        for recompute in (False, True)
    )
    assert again < most * plain


def test_what_is_computed_again_are_residual_and_transformer_blocks(
    pair: Callable[..., Pair],
) -> None:
    student = pair("simclr", {"family": "resnet", "depth": 3}, base="test_vit").student
    assert [type(block).__name__ for block in blocks(student.base.model)] == ["Block"] * len(
        student.base.model.blocks
    )
    assert len(list(blocks(student.heads[0]))) == 3
