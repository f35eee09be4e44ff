"""What every SSL method must do: a new method gets the whole suite by being registered."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from hssl_search.errors import UserError
from hssl_search.evaluation.matching import matching_error
from hssl_search.methods.base import Method, method_class, methods, mlp, register

torch.set_num_threads(1)


@pytest.fixture(params=methods())
def method(request: pytest.FixtureRequest) -> Method:
    kind = methods()[request.param]
    return kind(kind.Config(name=request.param, projector_hidden=16, projector_out=8))


def outputs(method: Method, views: int = 2, batch: int = 6, seed: int = 4) -> Tensor:
    """Return the outputs of a couple's layers for random embeddings."""
    torch.manual_seed(seed)
    layers = nn.Sequential(method.projector(12), method.prototypes())
    return layers(torch.randn(views * batch, 12)).unflatten(0, (views, batch))


def settled(method: Method) -> nn.Module:
    """Return the state of a target after so many steps that every queue of negatives is full."""
    state = method.target_state()
    for seed in range(40):
        method.update(state, outputs(method, batch=64, seed=seed))
    return state


def test_projector_takes_any_width_to_the_configured_one(method: Method) -> None:
    assert method.projector(20)(torch.randn(4, 20)).shape == (4, 8)


def test_projector_has_the_configured_layers(method: Method) -> None:
    layers = [module for module in method.projector(20).modules() if isinstance(module, nn.Linear)]
    assert len(layers) == method.config.projector_layers
    assert [layer.in_features for layer in layers] == [20] + [16] * (len(layers) - 1)


def test_predictor_keeps_the_shape_of_an_output(method: Method) -> None:
    predictor = method.predictor()
    output = outputs(method).flatten(0, 1)
    assert predictor(output).shape == output.shape
    if not isinstance(predictor, nn.Identity):
        assert not torch.allclose(predictor(output), output)


def test_loss_is_a_finite_scalar_with_gradients_for_the_student(method: Method) -> None:
    student = outputs(method).detach().requires_grad_()
    loss = method.loss(student, outputs(method).detach(), settled(method), 0.5)
    loss.backward()
    assert loss.shape == ()
    assert bool(torch.isfinite(loss))
    assert student.grad is not None and bool(student.grad.any())


def test_first_step_has_a_finite_loss_and_finite_gradients(method: Method) -> None:
    student = outputs(method).detach().requires_grad_()
    loss = method.loss(student, outputs(method).detach(), method.target_state(), 0.0)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert student.grad is not None and bool(torch.isfinite(student.grad).all())


def test_target_of_a_teacher_gets_no_gradient(method: Method) -> None:
    student, target = (outputs(method, seed=seed).detach().requires_grad_() for seed in (1, 2))
    method.loss(student, target, settled(method), 0.5).backward()
    assert student.grad is not None
    assert (target.grad is None) is method.needs_teacher


def test_predictor_learns_and_its_gradients_reach_the_projector(method: Method) -> None:
    torch.manual_seed(0)
    projector, predictor = (
        nn.Sequential(method.projector(12), method.prototypes()),
        method.predictor(),
    )
    student = predictor(projector(torch.randn(12, 12))).unflatten(0, (2, 6))
    method.loss(student, outputs(method).detach(), settled(method), 0.5).backward()
    trained = [
        parameter
        for parameter in [*projector.parameters(), *predictor.parameters()]
        if parameter.requires_grad
    ]
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in trained)


def test_loss_does_not_depend_on_the_order_of_the_images(method: Method) -> None:
    student, target, order = (
        outputs(method),
        outputs(method) + 0.1,
        torch.tensor([3, 1, 5, 0, 2, 4]),
    )
    state = settled(method)
    torch.testing.assert_close(
        method.loss(student, target, state, 0.3),
        method.loss(student[:, order], target[:, order], state, 0.3),
    )


def test_loss_depends_on_which_image_is_which(method: Method) -> None:
    student, target, state = outputs(method, seed=1), outputs(method, seed=2), settled(method)
    found, mixed = (
        method.loss(given, target, state, 0.3).item()
        for given in (student, student.roll(1, dims=1))
    )
    assert found != pytest.approx(mixed, rel=1e-5)


def test_state_does_not_depend_on_the_order_of_the_images(method: Method) -> None:
    states, order = (method.target_state(), method.target_state()), torch.tensor([3, 1, 5, 0, 2, 4])
    method.update(states[0], outputs(method))
    method.update(states[1], outputs(method)[:, order])
    first, second = (
        method.loss(outputs(method, seed=1), outputs(method, seed=2), state, 0.3)
        for state in states
    )
    torch.testing.assert_close(first, second)


def test_student_that_says_nothing_gets_the_chance_level(method: Method) -> None:
    nothing = torch.zeros_like(outputs(method))
    assert method.loss(nothing, outputs(method), settled(method), 0.5).item() == pytest.approx(
        method.chance(6), rel=1e-5
    )


def test_loss_in_half_precision_is_computed_in_single_precision(method: Method) -> None:
    student, target = outputs(method).bfloat16(), outputs(method).bfloat16()
    state = settled(method)
    loss = method.loss(student, target, state, 0.5)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        method.loss(student.float(), target.float(), state, 0.5).item(), rel=1e-6
    )


def test_state_in_half_precision_is_kept_in_single_precision(method: Method) -> None:
    states, target = (method.target_state(), method.target_state()), outputs(method).bfloat16()
    method.update(states[0], target)
    method.update(states[1], target.float())
    assert all(
        not value.is_floating_point() or value.dtype == torch.float32
        for value in states[0].state_dict().values()
    )
    assert_same(*states)


def test_loss_leaves_the_state_as_it_is(method: Method) -> None:
    state = method.target_state()
    method.update(state, outputs(method))
    before = copy.deepcopy(state)
    for _ in range(2):
        method.loss(outputs(method, seed=1), outputs(method, seed=2), state, 0.5)
    assert_same(state, before)


def test_update_between_loss_and_backward_does_not_change_the_gradients(method: Method) -> None:
    state, gradients = settled(method), []
    for updates in (0, 1):
        student = outputs(method, seed=1).detach().requires_grad_()
        loss = method.loss(student, outputs(method, seed=2).detach(), state, 0.5)
        for _ in range(updates):
            method.update(state, outputs(method, seed=2))
        gradients += torch.autograd.grad(loss, student)
    assert torch.equal(*gradients)


def test_state_holds_no_gradients(method: Method) -> None:
    state = method.target_state()
    method.update(state, outputs(method).requires_grad_())
    assert not any(value.requires_grad for value in [*state.buffers(), *state.parameters()])


def test_state_of_a_target_is_saved_and_loaded_in_the_middle_of_a_training(method: Method) -> None:
    state, other = method.target_state(), method.target_state()
    method.update(state, outputs(method))
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    for one in (state, other):
        method.update(one, outputs(method, batch=4, seed=5))
    assert_same(state, other)
    student = outputs(method)
    assert torch.equal(
        method.loss(student, student, state, 0.5), method.loss(student, student, other, 0.5)
    )


def test_loss_and_update_never_wait_for_the_device(method: Method) -> None:
    """A tensor on the meta device has no values, so whatever asks for one raises."""
    student, target = (
        outputs(method, seed=seed).detach().to("meta").requires_grad_() for seed in (1, 2)
    )
    state = method.target_state().to("meta")
    loss = method.loss(student, target, state, 0.5)
    method.update(state, target)
    loss.backward()
    assert student.grad is not None


def test_training_brings_the_views_of_an_image_together(method: Method) -> None:
    torch.manual_seed(0)
    encoder, images = nn.Linear(16, 8), pairs_of_images(512)
    before = matching_error(*encoder(images))
    train(method, encoder, steps=300)
    assert matching_error(*encoder(images)) < 0.75 * before


def train(method: Method, encoder: nn.Module, steps: int) -> None:
    student, predictor = (
        nn.Sequential(encoder, method.projector(8), method.prototypes()),
        method.predictor(),
    )
    teacher, state = copy.deepcopy(student), method.target_state()
    trained = [
        parameter
        for parameter in [*student.parameters(), *predictor.parameters()]
        if parameter.requires_grad
    ]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for step in range(steps):
        views = pairs_of_images(64).flatten(0, 1)
        output = student(views)
        target = (teacher(views).detach() if method.needs_teacher else output).unflatten(0, (2, -1))
        loss = method.loss(predictor(output).unflatten(0, (2, -1)), target, state, step / steps)
        method.update(state, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 0.1)


def pairs_of_images(count: int) -> Tensor:
    """Return two views of images, 2 x count x 16: they share 4 numbers, and 12 are louder noise."""
    shared = torch.randn(1, count, 4).expand(2, -1, -1)
    return torch.cat([shared, 2 * torch.randn(2, count, 12)], dim=-1)


def assert_same(state: nn.Module, other: nn.Module) -> None:
    assert all(
        torch.equal(*pair)
        for pair in zip(state.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_mlp_of_one_layer_is_linear() -> None:
    assert [type(module) for module in mlp(4, 16, 8, layers=1)] == [nn.Linear]
    assert [type(module) for module in mlp(4, 16, 8, layers=2)] == [
        nn.Linear,
        nn.BatchNorm1d,
        nn.ReLU,
        nn.Linear,
    ]


def test_unknown_method_offers_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown SSL method 'simcrl'; did you mean 'simclr'\?"):
        method_class("simcrl")


def test_registering_a_taken_name_raises() -> None:
    with pytest.raises(ValueError, match="'dino' is registered already"):
        register(methods()["dino"])
