from __future__ import annotations

import math

import torch

from hssl_search.evaluation.matching import matching_error


def test_equal_views_match_and_unrelated_ones_are_at_chance() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(400, 64)
    assert matching_error(embeddings, embeddings) == 0
    assert abs(matching_error(embeddings, torch.randn(400, 64)) - 0.5) < 0.05


def test_embeddings_that_are_one_point_are_at_chance() -> None:
    assert matching_error(torch.ones(50, 8), torch.ones(50, 8)) == 0.5


def test_against_counting() -> None:
    torch.manual_seed(1)
    first, second = torch.randn(6, 3), torch.randn(6, 3)
    mean = torch.cat([first, second]).mean(0)
    cosine = torch.nn.functional.cosine_similarity(
        (first - mean)[:, None], (second - mean)[None], dim=2
    )
    nearer = sum(
        float(cosine[i, j]) > float(cosine[i, i]) for i in range(6) for j in range(6) if i != j
    )
    assert math.isclose(matching_error(first, second), nearer / 30, rel_tol=1e-6)


def test_a_number_that_is_not_finite_is_not_hidden() -> None:
    broken = torch.ones(4, 2)
    broken[1, 0] = math.nan
    assert math.isnan(matching_error(broken, torch.ones(4, 2)))
