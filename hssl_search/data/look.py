"""A look at packed images, for what no search can learn from."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from hssl_search.data.packed import PackedImages

MOST_LOOKED_AT = 512
"""Images that are looked at, evenly spaced among all: looking at every image of a large set would
take longer than measuring does."""
GREY = 2
"""How much pixels of one colour may differ, of 255: a JPEG leaves that of a blank image."""
TELLING = 0.05
"""Share of images of one colour, or of copies of one image, from which on the user is told."""


@dataclass(frozen=True)
class Look:
    """Of `images` images that were looked at, `one_colour` have a single colour, and `same` are all
    equal.
    """

    images: int
    one_colour: int
    same: int

    def words(self) -> str:
        """Return `80 of 80 images are of one colour`; empty where there is nothing to tell."""
        images = f"{self.images} images"
        if self.images >= MOST_LOOKED_AT:
            images += " that were looked at"
        if self.one_colour > TELLING * self.images:
            verb = "is" if self.one_colour == 1 else "are"
            return f"{self.one_colour} of {images} {verb} of one colour"
        if self.same > max(1, TELLING * self.images):
            return f"{self.same} of {images} are the same image"
        return ""


def look(packed: PackedImages) -> Look:
    """Look at the pixels of at most `MOST_LOOKED_AT` images."""
    rows = np.unique(np.linspace(0, len(packed) - 1, min(MOST_LOOKED_AT, len(packed))).astype(int))
    one_colour, copies = 0, Counter[bytes]()
    for row in rows:
        # The spread of each channel, so that a plain red image is of one colour too.
        image = packed.subset([int(row)]).images[0]
        one_colour += bool((np.ptp(image, axis=(0, 1)) <= GREY).all())
        # Counted by a digest: the images themselves may take gigabytes.
        copies[hashlib.blake2b(image.tobytes()).digest()] += 1
    return Look(len(rows), one_colour, max(copies.values(), default=0))
