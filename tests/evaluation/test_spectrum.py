from __future__ import annotations

import numpy as np
import pytest
import torch

from hssl_search.evaluation.spectrum import effective_count, spectrum

torch.set_num_threads(1)


@pytest.mark.parametrize("size", [(50, 8), (8, 50), (12, 12), (5, 1)])
def test_spectrum_is_that_of_the_singular_value_decomposition(size: tuple[int, int]) -> None:
    x = torch.randn(*size, generator=torch.Generator().manual_seed(0))
    found = spectrum(x)
    assert (found.shape, found.dtype) == ((min(size),), torch.float64)
    np.testing.assert_allclose(
        found, np.linalg.svd(x.double().numpy(), compute_uv=False) ** 2, rtol=1e-9
    )


def test_spectrum_of_float32_embeddings_keeps_its_smallest_values() -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(400, 8, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    sizes = torch.logspace(0, -5, 8, dtype=torch.float64)
    found = spectrum(((left * sizes) @ right).float()).sqrt()
    np.testing.assert_allclose(found, sizes, rtol=0.02)


def test_spectrum_of_deficient_rank_has_nothing_below_zero() -> None:
    found = spectrum(torch.ones(30, 20))
    assert found[0] == pytest.approx(600)
    assert bool((found >= 0).all()) and found[1:].max() < 1e-9


def test_equal_sizes_count_one_by_one_and_none_counts_as_one() -> None:
    assert effective_count(
        torch.tensor([3.0, 3.0, 3.0, 0.0], dtype=torch.float64)
    ) == pytest.approx(3)
    assert effective_count(torch.zeros(4, dtype=torch.float64)) == 1


def test_two_sizes_count_by_their_entropy() -> None:
    assert effective_count(torch.tensor([3.0, 1.0], dtype=torch.float64)) == pytest.approx(
        4 / 3**0.75
    )
