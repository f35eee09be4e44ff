"""A look at packed images for what no search can learn from."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from hssl_search.data.packed import PackedImages

MOST_LOOKED_AT = 512
"""Images, evenly spaced among all: looking at every one of a large set would take longer than
measuring does."""
GREY = 2
"""Of 255, by how much pixels of one colour may differ: a JPEG leaves that of a blank image."""
TELLING = 0.05
"""Share of images of one colour, or of copies of one image, from which on it is told."""


@dataclass(frozen=True)
class Look:
    """Of `images` images that were looked at, `one_colour` are of a single colour, and `same` are
    all equal.
    """

    images: int
    one_colour: int
    same: int

    def words(self) -> str:
        """`80 of 80 images are of one colour`; empty where there is nothing to tell."""
        images = f"{self.images} images" + (
            " that were looked at" if self.images >= MOST_LOOKED_AT else ""
        )
        if self.one_colour > TELLING * self.images:
            return (
                f"{self.one_colour} of {images} {'is' if self.one_colour == 1 else 'are'} of one "
                "colour"
            )
        return (
            f"{self.same} of {images} are the same image"
            if self.same > max(1, TELLING * self.images)
            else ""
        )


def look(packed: PackedImages) -> Look:
    """Look at the pixels of at most `MOST_LOOKED_AT` images."""
    rows = np.unique(np.linspace(0, len(packed) - 1, min(MOST_LOOKED_AT, len(packed))).astype(int))
    one_colour, copies = 0, Counter[bytes]()
    for row in rows:
        image = packed.subset([int(row)]).images[0]
        one_colour += bool((np.ptp(image, axis=(0, 1)) <= GREY).all())
        copies[hashlib.blake2b(image.tobytes()).digest()] += (
            1  # the images themselves may take gigabytes
        )
    return Look(len(rows), one_colour, max(copies.values(), default=0))
