from __future__ import annotations

import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as V

from hssl_search.data.crops import (
    TRIES,
    blur_kernel_size,
    blur_matrices,
    crop_boxes,
    reflections,
    resample,
    resize_matrices,
)

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


def images(count: int, side: int) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def boxes(count: int, side: int, scale=SCALE, ratio=RATIO) -> tuple[torch.Tensor, torch.Tensor]:
    return crop_boxes(
        torch.rand(count, 2 * TRIES + 2, generator=torch.Generator().manual_seed(1)),
        side,
        scale,
        ratio,
    )


@pytest.mark.parametrize("size", [32, 16, 40], ids=["same", "smaller", "larger"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_crop_and_resize_are_torchvisions(size, mirrored):
    batch = images(4, 32)
    crops = (
        torch.tensor([[0.0, 5, 20, 3], [0, 2, 11, 0]]),
        torch.tensor([[32.0, 20, 12, 1], [32, 25, 9, 30]]),
    )
    flip = torch.tensor([[False] * 4, [mirrored] * 4])
    result = resample(batch, *resize_matrices(*crops, 32, size, flip))
    for image, got, place, length in zip(
        batch, result, crops[0].T.int(), crops[1].T.int(), strict=True
    ):
        oracle = V.resized_crop(
            image, *place.tolist(), *length.tolist(), [size, size], antialias=True
        )
        torch.testing.assert_close(got, oracle.flip(-1) if mirrored else oracle, atol=2e-5, rtol=0)


def test_no_pixel_outside_the_crop_is_read():
    start, length = boxes(200, 24)
    matrices = resize_matrices(start, length, 24, 16)
    pixel = torch.arange(24)
    outside = (pixel < start[..., None]) | (pixel >= (start + length)[..., None])
    assert matrices.masked_select(outside[..., None, :].expand_as(matrices)).eq(0).all()
    torch.testing.assert_close(matrices.sum(-1), torch.ones(2, 200, 16))


def test_boxes_are_whole_pixels_inside_the_image():
    start, length = boxes(5000, 24, scale=(0.001, 1.0))
    assert torch.equal(start, start.round()) and torch.equal(length, length.round())
    assert (start >= 0).all() and (length >= 1).all() and (start + length <= 24).all()


def test_boxes_are_distributed_as_torchvisions():
    count, side = 6000, 64
    start, length = boxes(count, side)
    torch.manual_seed(0)
    image = torch.empty(3, side, side)
    drawn = [RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(count)]
    oracle = torch.tensor(drawn).T.float()
    ours = torch.cat((start, length))
    torch.testing.assert_close(ours.mean(1), oracle.mean(1), atol=0.6, rtol=0)
    torch.testing.assert_close(ours.std(1), oracle.std(1), atol=0.5, rtol=0)
    share, expected = (box[2] * box[3] / side**2 for box in (ours, oracle))
    quantiles = torch.linspace(0.05, 0.95, 7)
    torch.testing.assert_close(
        share.quantile(quantiles), expected.quantile(quantiles), atol=0.03, rtol=0
    )
    aspect, wanted = (torch.log(box[3] / box[2]) for box in (ours, oracle))
    torch.testing.assert_close(
        aspect.quantile(quantiles), wanted.quantile(quantiles), atol=0.03, rtol=0
    )


@pytest.mark.parametrize(
    ("ratio", "box"), [((0.9, 1.1), (32, 32)), ((2.0, 3.0), (16, 32)), ((0.25, 0.5), (32, 16))]
)
def test_the_widest_centred_ratio_is_taken_when_no_try_fits(ratio, box):
    draws = torch.full((3, 2 * TRIES + 2), 0.5)
    start, length = crop_boxes(draws, 32, (4.0, 4.0), ratio)
    assert length.T.tolist() == [list(map(float, box))] * 3
    assert (start + length <= 32).all()


@pytest.mark.parametrize("size", [32, 96])
def test_blur_is_torchvisions(size):
    batch, kernel = images(3, size), blur_kernel_size(size)
    sigma = torch.tensor([0.3, 1.0, 2.0])
    matrices = blur_matrices(
        sigma, torch.tensor([True, True, False]), reflections(size, kernel, sigma.device)
    )
    result = resample(batch, matrices, matrices)
    for index in (0, 1):
        oracle = V.gaussian_blur(batch[index], [kernel, kernel], [float(sigma[index])] * 2)
        torch.testing.assert_close(result[index], oracle, atol=1e-5, rtol=0)
    assert torch.equal(result[2], batch[2])


def test_kernel_is_a_tenth_of_the_view_and_odd():
    assert [blur_kernel_size(size) for size in (8, 32, 96, 224)] == [3, 3, 9, 23]
