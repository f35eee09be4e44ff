from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from hssl_search.data import masks as module
from hssl_search.data.masks import block_masks, masked_places, patch_weights
from hssl_search.data.viewsconfig import MasksConfig

GRIDS = [(1, 1), (1, 7), (2, 2), (4, 4), (7, 5), (8, 8), (14, 14), (32, 32)]
ALWAYS = {"share": 1.0, "ratio_spread": 0.0}
"""Every mask wants the same number of patches."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(grid: tuple[int, int], count: int = 2000, seed: int = 0, **config) -> Tensor:
    return block_masks(count, grid, MasksConfig(**config), seeded(seed))


def masked_neighbours(masks: Tensor) -> float:
    """Return how many of the four neighbours of a masked patch are masked, in the mean."""
    both = (masks[:, 1:] & masks[:, :-1]).sum() + (masks[:, :, 1:] & masks[:, :, :-1]).sum()
    return float(2 * both / masks.sum())


def one_after_the_other(grid: tuple[int, int], wanted: float, draws: random.Random) -> np.ndarray:
    """Draw masks by algorithm 1 of arXiv 2106.08254 with the limits of the official iBOT code: ten
    tries a block, none that masks too much.
    """
    mask, smallest = np.zeros(grid, bool), (min(grid) // 3) ** 2
    for _ in range(1000):
        for _ in range(10):
            area, aspect = (
                draws.uniform(smallest, wanted - mask.sum()),
                math.exp(draws.uniform(math.log(0.3), math.log(1 / 0.3))),
            )
            lengths = [round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))]
            if any(length >= side for length, side in zip(lengths, grid, strict=True)):
                continue
            top, left = (
                draws.randint(0, side - length) for length, side in zip(lengths, grid, strict=True)
            )
            tried = mask.copy()
            tried[top : top + lengths[0], left : left + lengths[1]] = True
            if mask.sum() < tried.sum() <= wanted:
                mask = tried
                break
        else:
            return mask
    raise AssertionError("a mask grew a thousand times")


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_masks_are_as_large_as_the_grid_and_never_larger_than_the_greatest_ratio(grid):
    made = drawn(grid)
    assert made.shape == (2000, *grid)
    assert made.dtype == torch.bool
    assert (made.sum((1, 2)) <= 0.5 * math.prod(grid)).all()


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_wanted_number_of_patches_is_masked_exactly(grid, ratio):
    missing = int(ratio * math.prod(grid)) - drawn(grid, ratio=ratio, **ALWAYS).sum((1, 2))
    assert (missing >= 0).all()
    assert (missing > 0).float().mean() < 1e-3


@pytest.mark.parametrize("ratio", [0.75, 1.0])
def test_large_ratios_are_not_exceeded_and_almost_reached(ratio):
    made = drawn((14, 14), ratio=ratio, **ALWAYS).sum((1, 2))
    assert (made <= ratio * 196).all()
    assert made.float().mean() > 0.85 * ratio * 196


def test_half_of_the_masks_are_empty_and_the_others_spread_about_the_ratio():
    share = drawn((32, 32), 4000).float().mean((1, 2))
    masked = share[share > 0]
    assert abs(len(masked) / 4000 - 0.5) < 0.03
    assert abs(masked.mean() - 0.3) < 0.01
    quantiles = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    torch.testing.assert_close(
        masked.quantile(quantiles), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]), atol=0.02, rtol=0
    )


def test_the_share_of_masked_views_is_kept():
    assert abs(drawn((8, 8), share=0.2).any(2).any(1).float().mean() - 0.2) < 0.03


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (14, 14)], ids=str)
def test_masked_patches_lie_together_as_in_the_official_algorithm(grid):
    made = drawn(grid, share=1.0)
    scattered = made.flatten(1)[:, torch.randperm(math.prod(grid), generator=seeded())].view_as(
        made
    )
    draws = random.Random(0)
    official = [
        one_after_the_other(grid, draws.uniform(0.1, 0.5) * math.prod(grid), draws)
        for _ in range(500)
    ]
    oracle = torch.from_numpy(np.stack(official))
    assert masked_neighbours(made) == pytest.approx(masked_neighbours(oracle), rel=0.08)
    assert masked_neighbours(made) > 1.4 * masked_neighbours(scattered)
    assert abs(made.float().mean() - oracle.float().mean()) < 0.02


def boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return height and width of the smallest box around each mask."""
    lengths = []
    for axis in (2, 1):
        occupied = masks.any(axis).int()
        lengths.append(occupied.shape[1] - occupied.argmax(1) - occupied.flip(1).argmax(1))
    return lengths[0], lengths[1]


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw masks of one block at most."""
    monkeypatch.setattr(module, "TRIES", 1)


@pytest.mark.usefixtures("single")
def test_a_block_is_a_rectangle_but_for_the_end_of_its_last_row():
    made = drawn((14, 10), ratio=0.4, **ALWAYS)
    made = made[made.any(2).any(1)]
    height, width = boxes(made)
    missing = height * width - made.sum((1, 2))
    assert len(made) > 1000
    assert (0 <= missing).all() and (missing < width).all()
    assert (missing == 0).float().mean() > 0.8


@pytest.mark.usefixtures("single")
def test_blocks_are_as_wide_as_the_aspect_allows():
    height, width = boxes(drawn((14, 14), ratio=0.3, aspect=0.3, **ALWAYS))
    ratios = height / width
    assert (height - 1.5 <= (width + 0.5) / 0.3).all() and (
        width - 0.5 <= (height + 1.5) / 0.3
    ).all()
    # a log-uniform ratio is beyond 2 with the probability ln(1 / 0.6) / 2 ln(1 / 0.3) = 0.21
    for beyond in (
        ratios > 2,
        ratios < 0.5,
    ):
        assert abs(beyond.float().mean() - 0.21) < 0.06
    height, width = boxes(drawn((14, 14), ratio=0.3, aspect=1.0, **ALWAYS))
    assert ((height == width) | (height == width - 1)).all()


@pytest.mark.usefixtures("single")
def test_blocks_are_neither_smaller_than_the_smallest_nor_as_long_as_the_grid():
    made = drawn((12, 12), ratio=0.5, smallest=0.5, aspect=0.5, **ALWAYS)
    made = made[made.any(2).any(1)]
    height, width = boxes(made)
    assert (made.sum((1, 2)) >= 30).all()  # 6 x 6, rounded to whole sides
    assert (height < 12).all() and (width < 12).all()


def test_every_patch_is_masked_about_as_often_as_its_mirror_image():
    often = drawn((8, 8), 4000, share=1.0).float().mean(0)
    for axis in (0, 1):
        torch.testing.assert_close(often, often.flip(axis), atol=0.05, rtol=0)
    assert often.min() > 0.05


def test_every_image_has_its_own_mask_and_the_same_state_the_same_masks():
    first, again, other = (drawn((14, 14), 50, seed, share=1.0) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(1).unique(dim=0)) == 50


def test_masks_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    drawn((8, 8), 4)
    assert torch.equal(torch.get_rng_state(), state)


def test_places_and_weights_are_of_the_masked_patches_in_reading_order():
    masks = torch.tensor(
        [[[[1, 0], [0, 1]], [[0, 0], [0, 0]]], [[[0, 0], [1, 0]], [[1, 1], [1, 1]]]],
        dtype=torch.bool,
    )
    assert masked_places(masks).tolist() == [0, 3, 10, 12, 13, 14, 15]
    # two views of two images
    assert patch_weights(masks).tolist() == pytest.approx([1 / 8, 1 / 8, 1 / 4, *[1 / 16] * 4])


def test_weights_give_the_mean_over_images_of_the_mean_over_an_images_masked_patches():
    masks, values = drawn((6, 4), 10).view(2, 5, 6, 4), torch.rand(2, 5, 6, 4, generator=seeded())
    each = zip(values.flatten(0, 1), masks.flatten(0, 1), strict=True)
    means = [value[mask].mean() if mask.any() else torch.zeros(()) for value, mask in each]
    torch.testing.assert_close(
        (patch_weights(masks) * values.flatten()[masked_places(masks)]).sum(),
        torch.stack(means).mean(),
    )


IMPOSSIBLE = [
    ({"ratio_spread": 0.4}, "is -0.1 to 0.7; keep it within 0 to 1"),
    ({"ratio": 0.9}, "0.7 to 1.1"),
    ({"ratio": 0}, "greater than 0"),
    ({"aspect": 3}, "less than or equal to 1"),
    ({"shape": "block"}, "Extra inputs"),
]


@pytest.mark.parametrize(("values", "message"), IMPOSSIBLE)
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        MasksConfig(**values)
