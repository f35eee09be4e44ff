from __future__ import annotations

import math

import pytest
import torch

from hssl_search.evaluation.assignment import assignment_entropy, assignment_information

torch.set_num_threads(1)


def test_all_prototypes_alike_is_one_and_a_single_one_is_zero() -> None:
    assert assignment_entropy(torch.eye(8).repeat(3, 1)) == pytest.approx(1)
    assert assignment_entropy(torch.eye(8)[[2] * 20]) == 0


def test_prototypes_in_use_count_by_their_entropy() -> None:
    used = torch.eye(8)[torch.tensor([0] * 3 + [5])].repeat(2, 1)
    assert assignment_entropy(used) == pytest.approx(
        (2 * math.log(2) - 0.75 * math.log(3)) / math.log(8)
    )


def test_few_images_each_with_a_prototype_of_its_own_have_all_the_entropy_there_can_be() -> None:
    assert assignment_entropy(torch.eye(512)[:12]) == pytest.approx(1)


def test_it_is_the_mean_assignment_that_counts_not_each() -> None:
    assert assignment_entropy(torch.full((20, 8), 1 / 8)) == pytest.approx(1)


def test_information_is_all_with_one_prototype_an_image_and_none_with_one_for_all() -> None:
    assert assignment_information(torch.eye(8).repeat(3, 1)) == pytest.approx(1)
    assert assignment_information(torch.eye(8)[[2] * 20]) == 0
    assert assignment_information(torch.full((20, 8), 1 / 8)) == pytest.approx(0, abs=1e-12)
    broad = torch.rand(1, 8, generator=torch.Generator().manual_seed(0))
    assert assignment_information((broad / broad.sum()).expand(20, 8)) == pytest.approx(
        0, abs=1e-12
    )


def test_information_is_that_of_a_noisy_channel() -> None:
    """Two images alike, of two prototypes, taken for each other with the probability 0.1: 1 -
    h(0.1) bits.
    """
    channel = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    assert assignment_information(channel) == pytest.approx(
        1 + 0.9 * math.log2(0.9) + 0.1 * math.log2(0.1)
    )


def test_a_number_that_is_not_finite_is_not_hidden() -> None:
    broken = torch.full((4, 8), 1 / 8)
    broken[1, 0] = math.nan
    assert math.isnan(assignment_entropy(broken)) and math.isnan(assignment_information(broken))
