"""The frequency response, against the transfer functions of known filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hssl_search.discrepancy.architecture.frequency import frequency_response
from hssl_search.discrepancy.architecture.torus import Torus

torch.set_num_threads(1)

C, SIDE = 16, 8
BOX = np.full((3, 3), 1 / 9)
LAPLACIAN = np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
POINT = np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])


def noise(side: int = SIDE) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(8, C, side, side)


def filtered(x: Tensor, kernel: np.ndarray) -> Tensor:
    weight = torch.tensor(kernel, dtype=x.dtype).expand(x.shape[1], 1, 3, 3)
    with Torus():
        return F.conv2d(x, weight, padding=1, groups=x.shape[1])


def contrast(kernel: np.ndarray) -> float:
    """Return (H - L) / (H + L) of a kernel's transfer function."""
    frequencies = np.fft.fftfreq(SIDE)
    high = (np.abs(frequencies)[:, None] > 0.25) | (np.abs(frequencies)[None, :] > 0.25)
    power = np.abs(np.fft.fft2(kernel, (SIDE, SIDE))) ** 2
    fine, coarse = np.sqrt(power[high].mean()), np.sqrt(power[~high].mean())
    return float((fine - coarse) / (fine + coarse))


@pytest.mark.parametrize("kernel", [BOX, LAPLACIAN, POINT, POINT - BOX, POINT + BOX])
def test_the_response_of_a_filter_is_that_of_its_transfer_function(kernel: np.ndarray) -> None:
    assert frequency_response(lambda x: filtered(x, kernel), noise()) == pytest.approx(
        contrast(kernel), abs=0.02
    )


def test_averages_are_low_pass_differences_high_pass_and_the_identity_neither() -> None:
    average, difference, identity = (
        frequency_response(lambda x, kernel=kernel: filtered(x, kernel), noise())
        for kernel in (BOX, LAPLACIAN, POINT)
    )
    assert average < -0.3 and difference > 0.3 and identity == pytest.approx(0, abs=0.02)
    with Torus():
        assert frequency_response(lambda x: F.avg_pool2d(x, 3, 1, 1), noise()) == pytest.approx(
            average, abs=1e-4
        )


def test_scale_does_not_matter() -> None:
    torch.manual_seed(1)
    large = frequency_response(lambda x: 1e4 * filtered(x, LAPLACIAN), noise())
    assert large == pytest.approx(contrast(LAPLACIAN), abs=0.02)


def test_what_a_nonlinearity_makes_of_noise_does_not_blur_the_response() -> None:
    found = frequency_response(lambda x: filtered(x, BOX).tanh(), 0.1 * noise())
    assert found == pytest.approx(contrast(BOX), abs=0.03)


def test_the_mean_over_all_positions_passes_no_fine_detail() -> None:
    assert frequency_response(
        lambda x: x.mean(dim=(2, 3), keepdim=True).expand_as(x), noise()
    ) == pytest.approx(-1, abs=1e-5)


def test_where_there_is_no_detail_or_no_response_it_is_neutral() -> None:
    assert frequency_response(lambda x: 2 * x, noise(1)) == 0.0
    assert frequency_response(torch.zeros_like, noise()) == 0.0
