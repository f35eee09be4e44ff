from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import functional as V

from hssl_search.data import Views, ViewsConfig

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
STILL = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0, "jitter": 0, "grayscale": 0}
"""A view that is the image itself."""


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def batch(count: int = 8, side: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=seeded(), dtype=torch.uint8)


def same(count: int = 8, side: int = 16) -> Tensor:
    """Return the same image `count` times."""
    return batch(1, side).expand(count, -1, -1, -1)


def views(size: int = 16, mask_grid: tuple[int, int] | None = None, **config) -> Views:
    return Views(ViewsConfig(**config), size, MEAN, STD, mask_grid)


def pixels(normalised: Tensor) -> Tensor:
    return normalised * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)


def test_views_are_normalised_float32_of_the_image_size():
    made = views(24)(batch(5, 32), seeded())
    assert made.shape == (5, 3, 24, 24)
    assert made.dtype == torch.float32
    assert made.is_contiguous()
    assert -1e-5 <= pixels(made).min() and pixels(made).max() <= 1 + 1e-5


def test_a_still_view_is_the_normalised_image():
    images = batch()
    oracle = V.normalize(images / 255, MEAN, STD)
    torch.testing.assert_close(views(**STILL)(images, seeded()), oracle, atol=1e-5, rtol=0)
    torch.testing.assert_close(views().plain(images), oracle, atol=1e-5, rtol=0)


def test_plain_views_are_resized_as_torchvision_does():
    images = batch(3, 32)
    oracle = V.normalize(V.resize(images / 255, [16, 16], antialias=True), MEAN, STD)
    torch.testing.assert_close(views(16).plain(images), oracle, atol=1e-5, rtol=0)


def test_the_same_generator_state_gives_the_same_views():
    made = views(blur=0.5, solarize=0.5)
    first, again, other = (made(batch(), seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_views_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    views(blur=0.5, solarize=0.5)(batch(), seeded())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_generator_moves_on():
    generator = seeded()
    first, second = (views()(batch(), generator) for _ in range(2))
    assert not torch.allclose(first, second)


JITTER = {"jitter": 1, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
STRENGTHS = [
    {"scale": (0.2, 0.9), "ratio": (0.5, 2)},
    {"blur": 1},
    *({**JITTER, name: 0.4} for name in list(JITTER)[1:]),
]


@pytest.mark.parametrize("change", STRENGTHS, ids=["crop", "blur", *list(JITTER)[1:]])
def test_every_image_draws_its_own(change):
    made = views(**{**STILL, **change})(same(6), seeded())
    for index in range(1, 6):
        assert not torch.allclose(made[0], made[index], atol=1e-3)


DONE = {
    "flip": V.hflip,
    "grayscale": lambda image: V.rgb_to_grayscale(image, 3),
    "solarize": lambda image: V.solarize(image, 0.5),
}


@pytest.mark.parametrize("name", DONE)
def test_probabilities_are_kept(name):
    images = same(1000)
    made = pixels(views(**{**STILL, name: 0.3})(images, seeded()))
    image = images[0] / 255
    changed = (made - DONE[name](image)).abs().amax((1, 2, 3)) < 1e-3
    unchanged = (made - image).abs().amax((1, 2, 3)) < 1e-3
    assert (changed ^ unchanged).all()
    assert abs(changed.float().mean() - 0.3) < 0.05


@pytest.mark.parametrize("name", ["jitter", "blur"])
def test_probabilities_of_random_strengths_are_kept(name):
    images = same(1000)
    made = pixels(views(**{**STILL, "blur_sigma": (1, 2), name: 0.3})(images, seeded()))
    changed = (made - images / 255).abs().amax((1, 2, 3)) > 1e-3
    assert abs(changed.float().mean() - 0.3) < 0.05


def test_blurred_views_are_torchvisions():
    images = batch(4, 32)
    made = pixels(views(32, **STILL | {"blur": 1, "blur_sigma": (1, 1)})(images, seeded()))
    torch.testing.assert_close(
        made, V.gaussian_blur(images / 255, [3, 3], [1.0, 1.0]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("config", [{}, {"blur": 0.5, "solarize": 0.2}], ids=["default", "blurred"])
def test_global_views_that_are_made_alike_are_those_of_two_calls(config):
    made, generator = views(**config), seeded()
    oracle = torch.stack([made(batch(), generator) for _ in range(2)])
    found = made.batch(batch(), seeded())
    assert torch.equal(found.globals, oracle)
    assert found.locals is None and found.masks is None


@pytest.mark.parametrize("name", ["blur", "solarize"])
@pytest.mark.parametrize("changed", [0, 1])
def test_each_global_view_has_its_own_probability(name, changed):
    images, pair = batch(4, 32), [float(view == changed) for view in range(2)]
    made = views(32, **STILL | {"blur_sigma": (1, 1), name: pair})
    found = [pixels(view) for view in made.batch(images, seeded()).globals]
    oracle = (
        V.gaussian_blur(images / 255, [3, 3], [1.0, 1.0])
        if name == "blur"
        else V.solarize(images / 255, 0.5)
    )
    torch.testing.assert_close(found[changed], oracle, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1 - changed], images / 255, atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels(made(images, seeded(), changed)), oracle, atol=1e-4, rtol=0)


def test_one_number_stands_for_both_global_views():
    assert ViewsConfig(blur=0.3, solarize=0) == ViewsConfig(blur=[0.3, 0.3], solarize=(0.0, 0.0))


LOCALS = {"local_crops": 3, "local_size": 24}


def test_local_crops_are_normalised_float32_of_their_size():
    found = views(32, **LOCALS).batch(batch(5, 40), seeded())
    assert found.globals.shape == (2, 5, 3, 32, 32)
    assert found.locals.shape == (3, 5, 3, 24, 24)
    assert found.locals.dtype == torch.float32
    assert -1e-5 <= pixels(found.locals).min() and pixels(found.locals).max() <= 1 + 1e-5


def test_a_still_local_crop_is_the_whole_image_neither_blurred_nor_solarized():
    images = batch(4, 32)
    found = (
        views(32, **STILL | LOCALS | {"local_scale": (1, 1), "blur": 1, "solarize": 1})
        .batch(images, seeded())
        .locals
    )
    oracle = V.normalize(V.resize(images / 255, [24, 24], antialias=True), MEAN, STD)
    torch.testing.assert_close(found, oracle.expand(3, -1, -1, -1, -1), atol=1e-5, rtol=0)


def test_local_crops_are_blurred_with_their_own_probability():
    images = same(400, 32)
    config = STILL | {
        "local_crops": 2,
        "local_size": 32,
        "local_scale": (1, 1),
        "blur_sigma": (1, 1),
        "local_blur": 0.3,
    }
    found = pixels(views(32, **config).batch(images, seeded()).locals)
    image, oracle = images[0] / 255, V.gaussian_blur(images[0] / 255, [3, 3], [1.0, 1.0])
    blurred = (found - oracle).abs().amax((2, 3, 4)) < 1e-3
    assert (blurred ^ ((found - image).abs().amax((2, 3, 4)) < 1e-3)).all()
    assert abs(blurred.float().mean() - 0.3) < 0.05


def ramps(count: int, side: int) -> Tensor:
    """Return images whose red counts columns and whose green counts rows, in steps of 2."""
    steps = 2 * torch.arange(side, dtype=torch.uint8)
    columns = steps.expand(side, side)
    return torch.stack((columns, columns.T, columns)).expand(count, -1, -1, -1)


def areas(ramped: Tensor, side: int) -> Tensor:
    """Return the shares of the image that views of `ramps` show, from the slopes of their middle
    halves.
    """
    values, size = pixels(ramped) * 255 / 2, ramped.shape[-1]
    first, last = size // 4, 3 * size // 4
    width = (values[..., 0, last, last] - values[..., 0, last, first]).abs()
    height = (values[..., 1, last, last] - values[..., 1, first, last]).abs()
    return width * height * (size / (last - first) / side) ** 2


def test_crops_have_the_areas_of_their_kind():
    config = {
        "jitter": 0,
        "grayscale": 0,
        "scale": (0.4, 1.0),
        "local_scale": (0.05, 0.3),
        "local_crops": 4,
        "local_size": 48,
    }
    found = views(96, **config).batch(ramps(100, 128), seeded())
    for crops, (low, high) in ((found.globals, (0.4, 1.0)), (found.locals, (0.05, 0.3))):
        shown = areas(crops, 128)
        assert low - 0.01 < shown.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < shown.max() < high + 0.01


def test_every_local_crop_draws_its_own():
    found = views(**LOCALS).batch(same(4), seeded()).locals.flatten(0, 1)
    for index in range(1, 12):
        assert not torch.allclose(found[0], found[index], atol=1e-3)


@pytest.mark.parametrize(
    ("image_size", "side"), [(224, 96), (96, 48), (64, 32), (32, 16), (24, 16)]
)
def test_local_crops_are_three_sevenths_of_the_image_in_multiples_of_sixteen(image_size, side):
    assert views(image_size, local_crops=1).batch(batch(1), seeded()).locals.shape[-1] == side


MASKED = {"mask_grid": (4, 8), "masks": {"share": 1.0}}


def test_masks_are_those_of_the_grid_of_both_global_views():
    masks = views(**MASKED).batch(batch(20), seeded()).masks
    assert masks.shape == (2, 20, 4, 8)
    assert masks.dtype == torch.bool
    assert masks.any(-1).any(-1).all()
    assert not torch.equal(masks[0], masks[1])


@pytest.mark.gpu
def test_masks_of_a_gpus_views_lie_on_the_cpu_and_follow_its_generator():
    made, images = views(**MASKED), batch(20).cuda()
    first, again, other = (torch.Generator("cuda").manual_seed(seed) for seed in (0, 0, 1))
    masks = made.batch(images, first).masks
    assert masks.device.type == "cpu"
    assert torch.equal(masks, made.batch(images, again).masks)
    assert not torch.equal(masks, made.batch(images, again).masks)
    assert not torch.equal(masks, made.batch(images, other).masks)


def test_without_a_grid_or_without_settings_nothing_is_masked():
    assert views(masks={"share": 1.0}).batch(batch(), seeded()).masks is None
    assert views(mask_grid=(4, 4)).batch(batch(), seeded()).masks is None


def test_local_crops_and_masks_are_drawn_after_the_global_views():
    plain, with_crops, with_both = (
        views(**more).batch(batch(), seeded()) for more in ({}, LOCALS, LOCALS | MASKED)
    )
    assert torch.equal(plain.globals, with_crops.globals) and torch.equal(
        plain.globals, with_both.globals
    )
    assert torch.equal(with_crops.locals, with_both.locals)


WHOLE = {"blur": [1.0, 0.1], "solarize": [0.0, 0.2], "local_blur": 0.5, **LOCALS, **MASKED}


def test_the_same_generator_state_gives_the_same_batch():
    made = views(**WHOLE)
    first, again, other = (made.batch(batch(), seeded(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_autocast_does_not_coarsen_the_views():
    made = views()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = made(batch(), seeded())
    assert torch.equal(inside, made(batch(), seeded()))


def test_no_value_is_read_back_to_the_host():
    made = views(blur=0.5, solarize=0.5)
    made(batch(), seeded())  # constants are sent to the device at the first call
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert made(batch(), seeded()).shape == (8, 3, 16, 16)


def test_no_value_of_a_batch_is_read_back_to_the_host():
    made = views(**WHOLE | {"masks": None})  # masks are drawn on the host
    made.batch(batch(), seeded())
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert [tuple(part.shape) for part in made.batch(batch(), seeded())[:2]] == [
            (2, 8, 3, 16, 16),
            (3, 8, 3, 24, 24),
        ]


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_and_the_same_state_gives_the_same_views():
    made, images = views(blur=0.5, solarize=0.5), batch().cuda()
    first = made(images, seeded(device="cuda"))
    generator = seeded(device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = made(images, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)
    torch.testing.assert_close(
        made.plain(images).cpu(), made.plain(images.cpu()), atol=1e-4, rtol=0
    )


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_for_a_batch_and_the_same_state_gives_the_same():
    made, images = views(**WHOLE), batch().cuda()
    first = made.batch(images, seeded(device="cuda"))
    generator = seeded(device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = made.batch(images, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


def test_other_shapes_and_types_are_refused():
    for wrong in (batch().float(), batch()[0], batch()[:, :1], batch()[:, :, :8]):
        with pytest.raises(ValueError, match="uint8 B x 3 x S x S"):
            views()(wrong, seeded())
        with pytest.raises(ValueError, match="uint8 B x 3 x S x S"):
            views().batch(wrong, seeded())


IMPOSSIBLE = [
    ({"scale": (0.9, 0.2)}, "scale runs from 0.9 down to 0.2"),
    ({"scale": (0.2, 2)}, "ends at 2"),
    ({"flip": 1.5}, "less than or equal to 1"),
    ({"flop": 1}, "Extra inputs"),
    ({"blur_sigma": (0, 1)}, "greater than 0"),
    ({"blur": 1.5}, "less than or equal to 1"),
    ({"blur": [0.5]}, "Field required"),
    ({"solarize": [0, 0, 0.2]}, "at most 2 items"),
    ({"local_scale": (0.5, 0.1)}, "local_scale runs from 0.5 down to 0.1"),
    ({"local_scale": (0.5, 3)}, "local_scale ends at 3"),
    ({"local_crops": -1}, "greater than or equal to 0"),
    ({"local_size": 4}, "greater than or equal to 8"),
    ({"masks": {"ratio": 0.9}}, "keep it within 0 to 1"),
]


@pytest.mark.parametrize(("values", "message"), IMPOSSIBLE)
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ViewsConfig(**values)


def test_configuration_survives_plain_data():
    for config in (
        ViewsConfig(blur=0.5, scale=(0.3, 0.9)),
        ViewsConfig(solarize=(0.0, 0.2), local_size=48, masks={"share": 0.4}),
    ):
        assert ViewsConfig(**config.model_dump(mode="json")) == config
