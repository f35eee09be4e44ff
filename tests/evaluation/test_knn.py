"""Weighted k-NN against scikit-learn's, and where its centring matters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from hssl_search.evaluation import knn
from hssl_search.evaluation.knn import knn_accuracy

torch.set_num_threads(1)


def clusters(
    count: int, noise: float, seed: int, classes: int = 5, width: int = 12
) -> tuple[Tensor, Tensor]:
    """Return embeddings around one random point a class, and their classes."""
    points = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return points[labels] + noise * torch.randn(count, width, generator=generator), labels


def scikit_learn_accuracy(
    bank: Tensor, labels: Tensor, queries: Tensor, wanted: Tensor, k: int, temperature: float
) -> float:
    mean = bank.numpy().mean(axis=0)
    model = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature)
    )
    return 100 * model.fit(bank.numpy() - mean, labels.numpy()).score(
        queries.numpy() - mean, wanted.numpy()
    )


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0)])
def test_accuracy_is_that_of_scikit_learn(k: int, temperature: float) -> None:
    bank, queries = clusters(200, 1.5, seed=1), clusters(150, 1.5, seed=2)
    found = knn_accuracy(*bank, *queries, k=k, temperature=temperature)
    assert found == pytest.approx(scikit_learn_accuracy(*bank, *queries, k, temperature))
    assert 40 < found < 95


def test_queries_are_judged_in_chunks_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = clusters(100, 1.5, seed=1), clusters(70, 1.5, seed=2)
    whole = knn_accuracy(*bank, *queries)
    monkeypatch.setattr(knn, "CHUNK", 16)
    assert knn_accuracy(*bank, *queries) == whole


def test_large_shared_mean_does_not_hide_the_classes() -> None:
    (bank, labels), (queries, wanted) = clusters(200, 0.3, seed=1), clusters(100, 0.3, seed=2)
    shift = 1e4 * torch.ones(12)
    assert (
        knn_accuracy(bank + shift, labels, queries + shift, wanted)
        == knn_accuracy(bank, labels, queries, wanted)
        == 100.0
    )


def test_queries_are_centred_with_the_mean_of_the_bank() -> None:
    """Queries of one class alone would lose what tells them from the others with a mean of their
    own.
    """
    bank, labels = clusters(200, 0.3, seed=1)
    queries, wanted = clusters(100, 0.3, seed=2)
    assert knn_accuracy(bank, labels, queries[wanted == 3], wanted[wanted == 3]) == 100.0


def test_more_neighbours_than_images_are_all_of_them() -> None:
    bank, labels = torch.eye(4), torch.tensor([0, 1, 2, 3])
    assert knn_accuracy(bank, labels, bank, labels, k=50) == 100.0


def test_class_that_the_bank_has_not_is_never_right() -> None:
    bank, labels = clusters(50, 0.1, seed=1)
    assert knn_accuracy(bank, labels, bank[:10], torch.full((10,), 9)) == 0.0
