"""The objective of a pair, computed again from the outputs of its networks: which terms it has, and
which it has not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hssl_search.backbones import Masking
from hssl_search.data.views import Batch
from hssl_search.errors import UserError
from hssl_search.methods.base import methods
from hssl_search.training.pair import Network, Pair

MakePair = Callable[..., Pair]

METHODS = list(methods())
PLAIN = [name for name, method in methods().items() if not method.masks]


def branches(
    network: Network, batch: Batch, head: int = 0, masked: bool = True
) -> tuple[Tensor, Tensor]:
    """Return (base output, head output) of one couple, 2 x B x K, from its parts; without
    predictor.
    """
    masking = (
        None
        if network.mask_token is None or not masked
        else Masking(batch.masks.flatten(0, 1), network.mask_token)
    )
    features, couple = network.base(batch.globals.flatten(0, 1), masking), network.couples[head]
    outputs = [couple.prototypes(couple.base_projector(features.embedding))]
    if len(network.heads):
        outputs.append(
            couple.prototypes(couple.head_projector(network.heads[head](features.map).embedding))
        )
    both = [output.unflatten(0, batch.globals.shape[:2]) for output in outputs]
    return both[0], both[-1]


def predictions(pair: Pair, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the student's (b, a), as the loss takes them."""
    (base, head), couple = branches(pair.student, batch), pair.student.couples[0]
    predict = [couple.base_predictor, couple.head_predictor or couple.base_predictor]
    return tuple(
        layers(output.flatten(0, 1)).unflatten(0, output.shape[:2])  # type: ignore[return-value]
        for layers, output in zip(predict, (base, head), strict=True)
    )


def begun(pair: Pair, batch: Batch) -> Pair:
    """Return the pair after a step's losses, so that centres and queues hold something."""
    pair.losses(batch._replace(globals=batch.globals.flip(1) * 0.9), 0.0)
    return pair


def targets(pair: Pair, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return (b', a'), without gradients."""
    with torch.no_grad():
        return branches(pair.teacher or pair.student, batch, masked=pair.teacher is None)


@pytest.mark.parametrize("method", METHODS)
def test_plain_loss_is_that_of_the_base_against_its_own_target(
    pair: MakePair, batch: Batch, method: str
) -> None:
    made = begun(pair(method), batch)
    state = copy.deepcopy(made.states[0])
    expected = made.method.loss(predictions(made, batch)[0], targets(made, batch)[0], state, 0.4)
    found = made.losses(batch, 0.4)
    torch.testing.assert_close(found.total - found.patch.sum(), expected)
    torch.testing.assert_close(found.base, expected.detach()[None])
    assert found.head.shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_heterogeneous_loss_has_its_two_terms_half_and_half(
    pair: MakePair, batch: Batch, method: str
) -> None:
    made = begun(pair(method, "convnext"), batch)
    (base, head), (_, target), state = (
        predictions(made, batch),
        targets(made, batch),
        copy.deepcopy(made.states[0]),
    )
    base_term, head_term = (
        made.method.loss(student, target, state, 0.4) for student in (base, head)
    )
    found = made.losses(batch, 0.4)
    torch.testing.assert_close(found.total - found.patch.sum(), 0.5 * base_term + 0.5 * head_term)
    torch.testing.assert_close(found.base, base_term.detach()[None])
    torch.testing.assert_close(found.head, head_term.detach()[None])
    assert not found.base.requires_grad and not found.head.requires_grad


def test_base_gets_no_term_from_its_own_target(pair: MakePair, batch: Batch) -> None:
    made = pair("dino", "convnext")
    assert made.teacher is not None
    before = made.losses(batch, 0.0).total
    for parameter in made.teacher.couples[0].base_projector.parameters():
        nn.init.normal_(parameter)
    made.states[0].center.zero_()
    assert torch.equal(made.losses(batch, 0.0).total, before)
    for parameter in made.teacher.couples[0].head_projector.parameters():
        nn.init.normal_(parameter)
    made.states[0].center.zero_()
    assert not torch.allclose(made.losses(batch, 0.0).total, before)


def test_term_of_the_base_sends_no_gradient_into_the_head_without_teacher(
    pair: MakePair, batch: Batch
) -> None:
    made = pair("simclr", "convnext")
    made.losses(batch, 0.0).total.backward()
    _, head = branches(made.student, batch)
    of_head = [
        *made.student.heads[0].parameters(),
        *made.student.couples[0].head_projector.parameters(),
    ]
    alone = torch.autograd.grad(0.5 * made.method.loss(head, head, nn.Module(), 0.0), of_head)
    for parameter, expected in zip(of_head, alone, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


@pytest.mark.parametrize("method", METHODS)
def test_identical_heads_have_the_loss_and_base_gradient_of_one(
    pair: MakePair, batch: Batch, method: str
) -> None:
    one, many = pair(method, "convnext"), pair(method, "convnext", "convnext", "convnext")
    for single, several in ((one.student, many.student), (one.teacher, many.teacher)):
        if single is not None and several is not None:
            several.base.load_state_dict(single.base.state_dict())
            for head, couple in zip(several.heads, several.couples, strict=True):
                head.load_state_dict(single.heads[0].state_dict())
                couple.load_state_dict(single.couples[0].state_dict())
    alone, together = begun(one, batch).losses(batch, 0.2), begun(many, batch).losses(batch, 0.2)
    torch.testing.assert_close(together.total, alone.total)
    torch.testing.assert_close(together.head, alone.head.expand(3))
    for losses in (alone, together):
        losses.total.backward()
    for expected, found in zip(
        one.student.base.parameters(), many.student.base.parameters(), strict=True
    ):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_loss_of_a_head_does_not_depend_on_the_others(
    pair: MakePair, batch: Batch, method: str
) -> None:
    first, second = pair(method, "convnext", "mlp"), pair(method, "convnext", "resnet")
    for one, other in ((first.student, second.student), (first.teacher, second.teacher)):
        if one is not None and other is not None:
            other.couples[0].load_state_dict(one.couples[0].state_dict())
    torch.testing.assert_close(
        begun(first, batch).losses(batch, 0.0).head[0],
        begun(second, batch).losses(batch, 0.0).head[0],
    )


def test_target_state_of_each_head_is_its_own_and_follows_its_target(
    pair: MakePair, batch: Batch
) -> None:
    made = pair("dino", "convnext", "mlp")
    assert made.teacher is not None
    expected = []
    for head in (0, 1):
        with torch.no_grad():
            expected.append(0.1 * branches(made.teacher, batch, head)[1].mean(dim=(0, 1))[None])
    made.losses(batch, 0.0)
    for state, center in zip(made.states, expected, strict=True):
        torch.testing.assert_close(state.center, center)


def test_teacher_is_the_moving_average_of_the_student(pair: MakePair) -> None:
    made = pair("dino", "convnext")
    assert made.teacher is not None
    before = [parameter.clone() for parameter in made.teacher.parameters()]
    with torch.no_grad():
        for parameter in made.student.parameters():
            parameter.normal_()
    made.update_teacher(0.75)
    for old, new, student in zip(
        before, made.teacher.parameters(), made.student.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * student)


def test_teacher_starts_as_the_student_and_has_no_gradient_and_no_stochastic_depth(
    pair: MakePair, batch: Batch
) -> None:
    made = pair(
        "dino",
        {"family": "convnext", "depth": 2, "first_shortcut": True},
        base="test_vit",
        drop_path=0.3,
        drop_path_rate=0.3,
    )
    assert made.teacher is not None
    assert all(
        torch.equal(*both)
        for both in zip(made.teacher.parameters(), made.student.parameters(), strict=True)
    )
    assert not any(parameter.requires_grad for parameter in made.teacher.parameters())
    rates = [
        {module.drop_prob for module in network.modules() if isinstance(module, DropPath)}
        for network in (made.teacher, made.student)
    ]
    assert rates[0] == {0.0} and 0.3 in rates[1]
    assert torch.equal(*(made.teacher.targets(batch)[0][0] for _ in range(2)))


def test_kept_network_is_the_teacher_where_there_is_one(pair: MakePair) -> None:
    dino, simclr = pair("dino"), pair("simclr")
    assert dino.kept is dino.teacher
    assert simclr.teacher is None and simclr.kept is simclr.student


@pytest.mark.parametrize("method", METHODS)
def test_loss_in_bf16_is_not_rounded_to_bf16(pair: MakePair, batch: Batch, method: str) -> None:
    made = begun(pair(method, "convnext"), batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = made.losses(batch, 0.0)
    assert found.total.dtype == torch.float32
    assert found.head.bfloat16().float() != found.head
    torch.testing.assert_close(
        found.head,
        begun(pair(method, "convnext"), batch).losses(batch, 0.0).head,
        rtol=0.05,
        atol=0,
    )


def test_patch_term_is_the_bases_own_with_its_own_teacher_and_none_of_the_head(
    pair: MakePair, batch: Batch
) -> None:
    made = pair("ibot", "convnext")
    assert made.teacher is not None
    before = made.losses(batch, 0.0).patch
    for network in (made.student, made.teacher):
        for module in (network.heads[0], network.couples[0].head_projector):
            for parameter in module.parameters():
                nn.init.normal_(parameter)
    made.patch_states[0].center.zero_()
    assert torch.equal(made.losses(batch, 0.0).patch, before)
    nn.init.normal_(made.teacher.base.model.norm.weight)
    made.patch_states[0].center.zero_()
    assert not torch.allclose(made.losses(batch, 0.0).patch, before)


def test_teacher_sees_what_is_hidden_from_the_student(pair: MakePair, batch: Batch) -> None:
    made = pair("ibot", "convnext")
    assert made.teacher is not None
    bare = batch._replace(masks=torch.zeros_like(batch.masks))
    whole, hidden = made.teacher.targets(bare), made.teacher.targets(batch)
    assert torch.equal(whole.outputs[0], hidden.outputs[0]) and torch.equal(
        whole.patch_means[0], hidden.patch_means[0]
    )
    assert (len(whole.patches[0]), len(hidden.patches[0])) == (0, batch.masks.sum())
    assert not torch.allclose(
        made.student.outputs(bare).head[0], made.student.outputs(batch).head[0]
    )


class Rows(TorchDispatchMode):
    """Counts the rows of every tensor of a certain width that is computed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.most = width, 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.shape[-1:] == (self.width,):
            self.most = max(self.most, made.numel() // self.width)
        return made


def test_no_patch_but_the_masked_ones_is_compared_with_the_prototypes(
    pair: MakePair, batch: Batch
) -> None:
    """Of 8,192 prototypes and all patches of 224 pixels that would take tens of gigabytes for ten
    heads.
    """
    made = pair("ibot", "convnext", "mlp", settings={"prototypes": 37})
    assert batch.masks is not None
    with Rows(37) as rows:
        made.losses(batch, 0.0).total.backward()
    assert rows.most == batch.masks.sum() < batch.masks.numel() / 2


def test_local_crops_are_student_views_of_base_and_head_and_never_targets(
    pair: MakePair, batch: Batch
) -> None:
    made = pair("dino", "convnext")
    more = batch._replace(
        locals=torch.randn(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    )
    outputs, alone = made.student.eval().outputs(more), made.student.outputs(batch)
    for several, two in zip(
        (outputs.base[0], outputs.head[0]), (alone.base[0], alone.head[0]), strict=True
    ):
        assert several.shape == (5, 4, 24)
        torch.testing.assert_close(several[:2], two)
    assert made.teacher is not None
    assert made.teacher.targets(more)[0][0].shape == (2, 4, 24)


def test_tapped_head_is_fed_from_an_earlier_stage(pair: MakePair, batch: Batch) -> None:
    made = pair("simclr", {"family": "mlp", "depth": 1, "tap": 1}, taps=2)
    shape = made.student.base.tap_shapes[1]
    assert shape != made.student.base.map_shape
    assert made.student.heads[0].channels == shape[0]
    made.losses(batch, 0.0).total.backward()
    assert all(parameter.grad is not None for parameter in made.student.heads[0].parameters())


def test_method_with_masks_refuses_a_base_without_patch_tokens(pair: MakePair) -> None:
    with pytest.raises(
        UserError, match="SSL method 'ibot' masks patch tokens, and base 'test_resnet' has none"
    ):
        pair("ibot", base="test_resnet")


def test_prototypes_are_held_still_at_the_start_of_a_training(pair: MakePair, batch: Batch) -> None:
    made = pair("dino", "mlp", settings={"freeze_prototypes": 0.1})
    for progress, held in ((0.05, True), (0.1, False)):
        made.losses(batch, progress).total.backward()
        made.drop_frozen_gradients(progress)
        assert (
            made.student.couples[0].prototypes.parametrizations.weight.original1.grad is None
        ) is held
        assert all(
            parameter.grad is not None
            for parameter in made.student.couples[0].base_projector.parameters()
        )
