"""What is told of images that nothing can be learned from."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hssl_search.data.look import MOST_LOOKED_AT, look
from hssl_search.data.packed import PackedImages


def packed(*images: np.ndarray) -> PackedImages:
    return PackedImages(np.stack(images), None, (), "")


def blank(colour: int) -> np.ndarray:
    return np.full((8, 8, 3), (colour, 0, 255 - colour), dtype=np.uint8)


NOISE = [*np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)]
JPEG = blank(100) + np.random.default_rng(0).integers(0, 2, (8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (NOISE, ""),
        ([blank(0)] * 20, "20 of 20 images are of one colour"),
        ([blank(number) for number in range(20)], "20 of 20 images are of one colour"),
        ([*NOISE[:18], blank(0), JPEG], "2 of 20 images are of one colour"),
        ([*NOISE[:3], blank(0)], "1 of 4 images is of one colour"),
        ([*NOISE, blank(0)], ""),
        ([NOISE[0]] * 20, "20 of 20 images are the same image"),
        ([*NOISE[:17], *[NOISE[0]] * 3], "4 of 20 images are the same image"),
        ([NOISE[0]], ""),
    ],
)
def test_images_of_one_colour_and_copies_are_counted(images: list[np.ndarray], words: str) -> None:
    assert look(packed(*images)).words() == words


def test_of_many_images_some_are_looked_at() -> None:
    store = np.broadcast_to(blank(7), (MOST_LOOKED_AT + 100, 8, 8, 3))
    found = look(PackedImages(store, None, (), ""))
    assert (
        found.words()
        == f"{MOST_LOOKED_AT} of {MOST_LOOKED_AT} images that were looked at are of one colour"
    )


def test_images_that_were_looked_at_do_not_stay_in_memory() -> None:
    store = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    tracemalloc.start()
    try:
        look(PackedImages(store, None, (), ""))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * store[0].nbytes
