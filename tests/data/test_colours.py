from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as V

from hssl_search.data.colours import LUMA, apply_colours, colour_matrices, solarize


@pytest.fixture
def images() -> Tensor:
    """Return values in the middle of the range, so that nothing clips."""
    return 0.4 + 0.2 * torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def change(
    images: Tensor,
    brightness: float = 1,
    contrast: float = 1,
    saturation: float = 1,
    turn: float = 0,
    grey: bool = False,
) -> Tensor:
    numbers = [
        torch.full((len(images),), float(value))
        for value in (brightness, contrast, saturation, turn)
    ]
    chosen = torch.full((len(images),), grey)
    return apply_colours(images, *colour_matrices(*numbers, chosen, images.mean((2, 3))))


def assert_close(result: Tensor, oracle: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(result, oracle, atol=atol, rtol=0)


def test_nothing_changes_by_default(images):
    assert_close(change(images), images)


@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_single_changes_are_torchvisions(images, factor):
    assert_close(change(images, brightness=factor), V.adjust_brightness(images, factor))
    assert_close(change(images, contrast=factor), V.adjust_contrast(images, factor), 1e-4)
    assert_close(change(images, saturation=factor), V.adjust_saturation(images, factor), 1e-4)


def test_changes_follow_each_other_as_in_torchvision(images):
    oracle = V.adjust_saturation(V.adjust_contrast(V.adjust_brightness(images, 1.2), 0.7), 1.3)
    assert_close(change(images, 1.2, 0.7, 1.3), oracle, 2e-4)


def test_grey_is_torchvisions_and_follows_the_other_changes(images):
    assert_close(change(images, grey=True), V.rgb_to_grayscale(images, 3), 1e-4)
    assert_close(
        change(images, brightness=0.8, contrast=1.2, grey=True),
        V.rgb_to_grayscale(change(images, 0.8, 1.2), 3),
        1e-4,
    )


def test_hue_keeps_luma_and_grey(images):
    turned = change(images, turn=0.1)
    luma = torch.tensor(LUMA).view(3, 1, 1)
    assert_close((turned * luma).sum(1), (images * luma).sum(1), 1e-4)
    assert (turned - images).abs().max() > 0.02
    grey = images[:, :1].expand(-1, 3, -1, -1).contiguous()
    assert_close(change(grey, turn=0.3), grey, 1e-4)


def test_hue_turns_add_up_to_a_circle(images):
    assert_close(change(images, turn=1.0), images)
    assert_close(change(change(images, turn=0.3), turn=-0.3), images)


def test_hue_turns_the_way_torchvision_does(images):
    ours, oracle = change(images, turn=0.1) - images, V.adjust_hue(images, 0.1) - images
    assert torch.corrcoef(torch.stack((ours.flatten(), oracle.flatten())))[0, 1] > 0.5


def test_every_image_has_its_own_change(images):
    numbers = torch.tensor([1.0, 1.3])
    ones, none = torch.ones(2), torch.zeros(2)
    change_of_each = colour_matrices(numbers, ones, ones, none, none.bool(), images.mean((2, 3)))
    result = apply_colours(images, *change_of_each)
    assert_close(result[0], images[0])
    assert_close(result[1], images[1] * 1.3)


def test_values_are_clipped(images):
    assert change(images, brightness=5).max() == 1


def test_solarize_is_torchvisions_where_chosen(images):
    result = solarize(images, torch.tensor([True, False]))
    assert_close(result[0], V.solarize(images[0], 0.5))
    assert torch.equal(result[1], images[1])
