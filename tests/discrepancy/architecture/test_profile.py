"""Profiles of structures and their distances."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import pytest
import torch

from hssl_search.backbones import Base
from hssl_search.discrepancy.architecture import (
    Profile,
    architecture_discrepancy,
    base_profile,
    distance,
    head_profile,
)
from hssl_search.heads.head import Head, build_head

torch.set_num_threads(1)

BASES = {
    "test_resnet": {"output_stride": 8},
    "test_vit": {"patch_size": 4},
    "test_convnext": {"output_stride": 8},
}
POINTWISE = {"convolution": 0.0, "attention": 0.0, "pointwise": 1.0, "other": 0.0}


@cache
def base(name: str) -> Base:
    return Base(name, 32, BASES[name])


@cache
def profile(name: str) -> Profile:
    return base_profile(base(name))


def head(family: str, of: str = "test_resnet", **parameters: Any) -> Head:
    return build_head({"family": family, **parameters}, base(of).map_shape[0])


def apart(name: str, family: str) -> dict[str, float]:
    return distance(profile(name), head_profile(head(family, name), base(name).map_shape[1:]))


@pytest.mark.parametrize(
    ("name", "near", "far"),
    [
        ("test_resnet", "resnet", "transformer"),
        ("test_vit", "transformer", "resnet"),
        ("test_convnext", "convnext", "transformer"),
        ("test_vit", "transformer", "convnext"),
    ],
)
def test_a_head_of_the_bases_own_kind_is_nearer_than_another(
    name: str, near: str, far: str
) -> None:
    found, other = apart(name, near), apart(name, far)
    for part in ("compute", "mixers", "architecture"):
        assert found[part] < other[part], part


def test_profiles_say_what_is_known_of_structures() -> None:
    convolution, attention = profile("test_resnet"), profile("test_vit")
    assert convolution.equivariance_error == pytest.approx(0, abs=1e-6)
    assert attention.equivariance_error > 0.1  # it has position embeddings
    assert attention.mixers["attention"] == 1.0
    assert convolution.mixers["convolution"] > 0.95 and convolution.mixers["attention"] == 0.0
    assert attention.frequency_response < 0


def test_a_head_that_mixes_no_positions_is_pointwise() -> None:
    for family in ("identity", "mlp"):
        found = head_profile(head(family), (6, 6))
        assert found.compute == found.mixers == POINTWISE
        assert found.receptive_field == 0.0 and found.equivariance_error == pytest.approx(
            0, abs=1e-9
        )
        assert found.frequency_response == pytest.approx(0, abs=0.03)


def test_a_head_of_noise_treats_no_two_places_alike_and_sees_nothing() -> None:
    found = head_profile(head("noise"), (6, 6))
    assert (
        found.equivariance_error > 0.9
        and found.receptive_field == 0.0
        and found.frequency_response == 0.0
    )


def test_a_head_looks_farther_the_deeper_it_is_and_without_shortcut() -> None:
    def radius(**parameters: Any) -> float:
        return head_profile(head("resnet", **parameters), (12, 12)).receptive_field

    assert (
        radius(depth=1, first_shortcut=True) < radius(depth=1) < radius(depth=2) < radius(depth=4)
    )


def test_distance_is_symmetric_and_nothing_to_itself() -> None:
    profiles = [profile(name) for name in BASES]
    for first in profiles:
        assert set(distance(first, first).values()) == {0.0}
        assert all(distance(first, second) == distance(second, first) for second in profiles)


def test_opposite_profiles_are_one_apart() -> None:
    first = Profile({**POINTWISE}, {**POINTWISE}, 0.0, 1.0, -1.0)
    other = {**POINTWISE, "pointwise": 0.0, "attention": 1.0}
    second = Profile(other, other, 1.0, 0.0, 1.0)
    assert set(distance(first, second).values()) == {1.0}


def test_the_combined_distance_is_the_mean_of_the_parts() -> None:
    first = Profile({**POINTWISE}, {**POINTWISE}, 0.5, 0.25, 0.5)
    second = Profile(
        {**POINTWISE, "pointwise": 0.75, "convolution": 0.25},
        {**POINTWISE, "pointwise": 0.0, "other": 1.0},
        0.1,
        0.75,
        -0.5,
    )
    parts = {
        "compute": 0.25,
        "mixers": 1.0,
        "receptive_field": 0.4,
        "equivariance": 0.5,
        "frequency": 0.5,
    }
    assert distance(first, second) == pytest.approx({**parts, "architecture": 2.65 / 5})


def test_the_discrepancy_is_the_distance_of_the_profiles() -> None:
    found = architecture_discrepancy(base("test_vit"), head("convnext", "test_vit"), seed=0)
    assert found == apart("test_vit", "convnext")
    assert architecture_discrepancy(base("test_vit"), head("convnext", "test_vit"), seed=1) != found


def test_profiles_depend_on_the_structure_and_the_seed_alone() -> None:
    torch.manual_seed(5)
    again = Base("test_resnet", 32, BASES["test_resnet"])
    assert base_profile(again) == profile("test_resnet")
    torch.manual_seed(6)
    assert head_profile(head("transformer"), (4, 4)) == head_profile(head("transformer"), (4, 4))


def test_networks_and_random_numbers_stay_as_they_are() -> None:
    networks = [Base("test_resnet", 32, BASES["test_resnet"]).train(), head("resnet").train()]
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    with torch.no_grad():
        architecture_discrepancy(*networks)
    assert torch.equal(torch.rand(4), wanted)
    for network, states in zip(networks, before, strict=True):
        assert all(module.training for module in network.modules())
        assert all(
            parameter.grad is None and parameter.requires_grad for parameter in network.parameters()
        )
        assert all(torch.equal(value, states[key]) for key, value in network.state_dict().items())


def test_a_structure_whose_outputs_are_not_finite_has_no_measures() -> None:
    broken = head("mlp")
    broken.blocks.append(Overflow())
    found = head_profile(broken, (4, 4))
    assert all(
        math.isnan(value)
        for value in (found.receptive_field, found.equivariance_error, found.frequency_response)
    )


class Overflow(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * math.inf
