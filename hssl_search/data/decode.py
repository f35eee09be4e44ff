"""One image file, decoded to one packed square."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image

from hssl_search.data.metadata import without_metadata

T = TypeVar("T")

VERSION = 2
"""Raised whenever the same file would give other pixels: it is part of every cache key."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn that brings an image upright, by its EXIF orientation."""


def decode(path: Path, side: int) -> np.ndarray:
    """Return the image as uint8 `side` x `side` x 3: EXIF orientation applied, shorter side resized
    to `side`, centre cropped, RGB.

    Broken metadata (EXIF, XMP, colour profiles, texts) are left out; an orientation that cannot be
    read counts as upright.

    Raises:
        Exception: whatever Pillow raises for a file whose pixels it cannot read.
    """

    def pixels(opened: Image.Image) -> np.ndarray:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; twice `side` is kept for the resize
        # that follows.
        opened.draft(None, (2 * side, 2 * side))
        return np.asarray(square(_rgb(_upright(opened)), side))

    return _read(path, pixels)


def square(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side to `side` (bicubic, antialiased) and crop the centre, in one step."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def short_side(path: Path) -> int:
    """Return the shorter side in pixels, from the file's header."""
    return _read(path, lambda opened: min(opened.size))


def _read(path: Path, use: Callable[[Image.Image], T]) -> T:
    """Return what `use` makes of the opened file or, where that fails, of the file without its
    metadata.
    """
    try:
        with Image.open(path) as opened:
            return use(opened)
    except Exception as error:  # Pillow raises almost anything for metadata, as for pixels
        try:
            with Image.open(io.BytesIO(without_metadata(path.read_bytes()))) as opened:
                return use(opened)
        except Exception:  # then the metadata were not the cause, and the first error says what was
            raise error from None


def _upright(image: Image.Image) -> Image.Image:
    # Pixels that cannot be read raise here, so that what is suppressed below concerns metadata
    # alone.
    image.load()
    orientation = 1
    with contextlib.suppress(Exception):  # broken EXIF and XMP make Pillow raise almost anything
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    # 16-bit grey: Pillow's own conversion would clip everything above 255 to white.
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    # Pillow warns of a palette with transparency that is not converted to RGBA first.
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
