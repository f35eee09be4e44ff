"""The linear probe against scikit-learn's logistic regression."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from hssl_search.evaluation.linear import fit, linear_accuracy

torch.set_num_threads(1)


def clusters(
    count: int, seed: int, noise: float = 1.5, classes: int = 4, width: int = 10
) -> tuple[Tensor, Tensor]:
    """Return embeddings around one random point a class, and their classes; the dimensions have
    very different sizes.
    """
    points = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return (
        points[labels] + noise * torch.randn(count, width, generator=generator)
    ) * torch.logspace(-2, 2, width), labels


def standardised(x: Tensor, like: Tensor) -> Tensor:
    return (x - like.mean(dim=0)) / like.std(dim=0, correction=0)


@pytest.mark.parametrize("l2", [1e-3, 1e-2, 0.3])
def test_weights_are_those_of_scikit_learn(l2: float) -> None:
    bank, labels = clusters(160, seed=1)
    x = standardised(bank, bank)
    model = LogisticRegression(C=1 / (len(x) * l2), tol=1e-9, max_iter=5000).fit(
        x.double().numpy(), labels.numpy()
    )
    weights, bias = fit(x, labels, l2)
    assert weights.T.numpy() == pytest.approx(model.coef_, abs=2e-3)
    assert (bias - bias.mean()).numpy() == pytest.approx(
        model.intercept_ - model.intercept_.mean(), abs=2e-3
    )


def test_accuracy_is_that_of_scikit_learn() -> None:
    (bank, labels), (queries, wanted) = clusters(200, seed=1), clusters(300, seed=2)
    model = LogisticRegression(C=1 / (200 * 1e-3), tol=1e-9, max_iter=5000).fit(
        standardised(bank, bank).numpy(), labels.numpy()
    )
    expected = 100 * model.score(standardised(queries, bank).numpy(), wanted.numpy())
    # one query may lie on the border
    assert linear_accuracy(bank, labels, queries, wanted) == pytest.approx(expected, abs=0.4)
    assert 50 < expected < 95


def test_scale_and_shift_of_dimensions_change_nothing() -> None:
    (bank, labels), (queries, wanted) = clusters(200, seed=1), clusters(100, seed=2)
    factor, shift = torch.logspace(-3, 3, 10), torch.linspace(-50, 50, 10)
    moved = linear_accuracy(bank * factor + shift, labels, queries * factor + shift, wanted)
    assert moved == pytest.approx(linear_accuracy(bank, labels, queries, wanted), abs=1.0)


def test_constant_dimensions_and_unknown_classes_do_no_harm() -> None:
    (bank, labels), (queries, wanted) = (
        clusters(100, seed=1, noise=0.2),
        clusters(100, seed=2, noise=0.2),
    )
    bank[:, 0] = queries[:, 0] = 7.0
    assert linear_accuracy(bank, labels, queries, wanted) > 95
    assert linear_accuracy(bank, labels, queries, torch.full((100,), 9)) == 0.0


def test_embeddings_without_information_are_at_chance() -> None:
    generator = torch.Generator().manual_seed(3)
    bank, queries = (
        torch.randn(400, 6, generator=generator),
        torch.randn(2000, 6, generator=generator),
    )
    found = linear_accuracy(bank, torch.arange(400) % 4, queries, torch.arange(2000) % 4)
    assert found == pytest.approx(25, abs=4)  # four standard errors
