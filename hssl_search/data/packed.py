"""Images decoded once into equal squares, in a memory-mapped file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import hssl_search.data.cachefile as cachefile
import hssl_search.data.decode as decode
from hssl_search.data.cachefile import Progress
from hssl_search.data.sources import Contents, Source, open_source, shown
from hssl_search.errors import UserError

if TYPE_CHECKING:
    import torch

    Indices = Sequence[int] | np.ndarray | torch.Tensor | slice

SAMPLED = 64
"""Images whose headers are read to learn how large they are."""
CHUNK = 1024
"""Images moved at a time into a tensor: bounds the second copy in memory."""


class PackedImages:
    """N images of S x S pixels, uint8, mostly a memory map. A subset shares it, and copies only
    what is asked for.

    Args:
        images: uint8 M x S x S x 3.
        labels: N class numbers; None without labels.
        classes: names of the classes; empty without labels.
        fingerprint: of the files that all of this was packed from; a subset keeps it.
        skipped: (path, reason) of every unreadable image.
        rows: N row numbers of `images`; None for all.
        contents: what all of this was packed from; None for images that have no source, and for a
            subset.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        classes: tuple[str, ...],
        fingerprint: str,
        skipped: Sequence[tuple[str, str]] = (),
        rows: np.ndarray | None = None,
        contents: Contents | None = None,
    ) -> None:
        self._store = images
        self._rows = rows
        self.labels = labels
        self.classes = classes
        self.fingerprint = fingerprint
        self.skipped = list(skipped)
        self.contents = contents

    def __len__(self) -> int:
        return len(self._store) if self._rows is None else len(self._rows)

    @property
    def images(self) -> np.ndarray:
        """Return uint8 N x S x S x 3. Of a subset this is a copy in memory (`nbytes` large): use
        `tensor` for batches of it.
        """
        return self._store if self._rows is None else self._store[self._rows]

    @property
    def side(self) -> int:
        """Return S, in pixels."""
        return int(self._store.shape[1])

    @property
    def nbytes(self) -> int:
        """Return the bytes that all images take, in memory or on the device."""
        return len(self) * self.side * self.side * 3

    def subset(self, indices: Indices) -> PackedImages:
        """Return these images, in this order."""
        numbers = self._numbers(indices)
        # A subset of a subset points at the store too: nothing is chained.
        rows = numbers if self._rows is None else self._rows[numbers]
        labels = None if self.labels is None else self.labels[numbers]
        return PackedImages(self._store, labels, self.classes, self.fingerprint, self.skipped, rows)

    def tensor(self, indices: Indices | None = None) -> torch.Tensor:
        """Return these images (None: all) as uint8 N x 3 x S x S, in memory of their own."""
        import torch  # not at the top: the controller packs images and needs no torch

        numbers = self._numbers(slice(None) if indices is None else indices)
        rows = numbers if self._rows is None else self._rows[numbers]
        result = torch.empty((len(rows), 3, self.side, self.side), dtype=torch.uint8)
        for start in range(0, len(rows), CHUNK):
            # Indexing copies, out of the read-only map.
            block = torch.from_numpy(self._store[rows[start : start + CHUNK]])
            result[start : start + CHUNK] = block.permute(0, 3, 1, 2)
        return result

    def _numbers(self, indices: Indices) -> np.ndarray:
        if isinstance(indices, slice):
            return np.arange(len(self))[indices]
        numbers = np.asarray(indices)
        if numbers.dtype == bool:
            return np.flatnonzero(numbers)
        return numbers.astype(np.int64)


def pack(
    source: str, image_size: int, progress: Progress | None = None, cache: Path | None = None
) -> PackedImages:
    """Decode the images of a source at `storage_side` pixels, or take them from the cache.

    Two processes that ask for the same images decode them once: the second waits.

    Args:
        source: a folder, or `digits`.
        image_size: side of the views, in pixels.
        progress: called while images are decoded.
        cache: folder of the cache; None for `cache_root()`.

    Raises:
        UserError: as `open_source`; or more than 5 % of the images are unreadable, or the cache
            cannot be written.
    """
    return pack_source(open_source(source), image_size, progress, cache)


def pack_source(
    source: Source, image_size: int, progress: Progress | None = None, cache: Path | None = None
) -> PackedImages:
    """Pack a source that is listed already; arguments and errors as `pack`."""
    side = storage_side(source, image_size)
    # All that decides what the packed pixels are.
    identity = (
        f"{source.fingerprint()} {type(source).__name__} {side} {decode.VERSION} {cachefile.FORMAT}"
    )
    key = hashlib.sha256(identity.encode()).hexdigest()
    entry = (cache or cache_root()) / _entry(side, key)
    stored = cachefile.read(entry, side) or _build_once(entry, source, side, key, progress)
    # Without times of change: a copy of the same files has the same contents.
    names = source.fingerprint(times=False)
    counts = len(source), len(stored.images), len(source.classes)
    contents = Contents(*counts, names, side, key)
    return _packed(stored, contents, source.where)


def reopen(contents: Contents, name: str, cache: Path | None = None) -> PackedImages | None:
    """Return the packed images of `name` as they were when they had these contents; None when the
    cache no longer holds them.
    """
    stored = cachefile.read(
        (cache or cache_root()) / _entry(contents.side, contents.key), contents.side
    )
    if stored is None:
        return None
    return _packed(stored, contents, lambda image: shown(f"{name}/{image}"))


def _packed(
    stored: cachefile.Stored, contents: Contents, where: Callable[[str], str]
) -> PackedImages:
    about = stored.about
    labels = None if about["labels"] is None else np.array(about["labels"], dtype=np.int64)
    skipped = [(where(name), reason) for name, reason in about["skipped"]]
    return PackedImages(
        stored.images, labels, tuple(about["classes"]), contents.key, skipped, contents=contents
    )


def _entry(side: int, key: str) -> str:
    return f"{side}px-{key[:24]}.npy"


def _build_once(
    entry: Path, source: Source, side: int, key: str, progress: Progress | None
) -> cachefile.Stored:
    """Build the entry, or wait for the process that does."""
    folder = entry.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cachefile.remove_unfinished(folder)
        with cachefile.lock_of(entry):
            # Who waited for the lock finds the entry built.
            return cachefile.read(entry, side) or cachefile.build(entry, source, side, progress)
    except OSError as error:
        raise UserError(
            f"cannot write the image cache in {str(folder)!r}: {error.strerror or error}; "
            "set HSSL_SEARCH_CACHE to a folder with room that you may write to."
        ) from error


def cache_root() -> Path:
    """Return $HSSL_SEARCH_CACHE, else $XDG_CACHE_HOME/hssl-search, else ~/.cache/hssl-search.

    Raises:
        UserError: where there is no home directory.
    """
    own = os.environ.get("HSSL_SEARCH_CACHE")
    try:
        if own:
            return Path(own).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hssl-search"
    except RuntimeError as error:
        raise UserError(
            "there is no home directory to keep the image cache in (HOME is not set); set "
            "HSSL_SEARCH_CACHE to the path of a folder with room that you may write to."
        ) from error


def storage_side(source: Source, image_size: int) -> int:
    """Return the side in pixels to store for views of `image_size`: 8/7 of it (256 for 224), no
    larger than the images are, never smaller than it.
    """
    sizes = []
    for index in np.linspace(0, len(source) - 1, min(SAMPLED, len(source))).astype(int):
        try:
            sizes.append(source.short_side(int(index)))
        except Exception:  # an unreadable image is counted and listed when it is decoded
            continue
    # The median, as a few large images would have all others enlarged.
    typical = int(np.median(sizes)) if sizes else image_size
    return max(image_size, min(round(image_size * 8 / 7), typical))
