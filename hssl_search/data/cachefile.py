"""One entry of the image cache: `KEY.npy` (uint8 N x S x S x 3) and, written last, `KEY.json`
(labels, classes, skipped images).

KEY stands for the files' names, sizes and times of change, for S and for the decoder's version. So
an entry is never stale, and all runs on the same files share it. This package never removes an
entry, only what a killed process had not finished. The folder may be emptied whenever no search
runs; a search that was stopped needs its entries when the files have changed since. Who builds an
entry holds the lock `KEY.lock`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from hssl_search.data.sources import Source
from hssl_search.errors import UserError

Progress = Callable[[int, int], None]
"""Called with (images decoded, images in all) while an entry is built; never when it is reused."""

MOST_UNREADABLE = 0.05
"""Share of unreadable images above which packing is refused."""
CHUNK = 256
"""Images decoded at a time: bounds the memory that decoded but unwritten images take."""
FORMAT = 1
"""Part of the key: raised when the files' layout changes."""
ENTRY = re.compile(r"\d+px-[0-9a-f]{24}")
"""Names of entries; a cache folder may hold a user's own files too."""
KEYS = frozenset({"images", "bytes", "classes", "labels", "skipped"})
"""Keys that the JSON file of a whole entry has."""


@dataclass(frozen=True)
class Stored:
    """An entry that was read."""

    images: np.ndarray
    """uint8 N x S x S x 3, a read-only memory map."""
    about: dict[str, Any]
    """The content of the JSON file; its keys are KEYS and `source`."""


def read(entry: Path, side: int) -> Stored | None:
    """Return the entry, or None when there is none or it is damaged."""
    try:
        about = json.loads(entry.with_suffix(".json").read_text())
        images = np.load(entry, mmap_mode="r")
        shape = (about["images"], side, side, 3)
        sound = about["bytes"] == entry.stat().st_size and images.shape == shape
        return Stored(images, about) if sound and KEYS.issubset(about) else None
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def build(entry: Path, source: Source, side: int, progress: Progress | None) -> Stored:
    """Decode the source into the entry, written beside and renamed.

    Args:
        entry: path of the .npy file.
        source: the images.
        side: S, in pixels.
        progress: called while images are decoded.

    Raises:
        UserError: when too many images are unreadable, or there is too little room.
        OSError: when the files cannot be written.
    """
    _check_room(entry.parent, len(source), side)
    beside = entry.with_suffix(".part")
    try:
        kept, skipped = _write_images(beside, source, side, progress)
        _check_readable(source, skipped)
        about = _about(source, kept, skipped, beside.stat().st_size)
        # The images first: an entry is whole once its JSON file is there.
        os.replace(beside, entry)
        beside.write_text(json.dumps(about))
        os.replace(beside, entry.with_suffix(".json"))
    finally:
        beside.unlink(missing_ok=True)
    return Stored(np.load(entry, mmap_mode="r"), about)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left in the cache: half-written images, and images whose JSON
    file was never written.
    """
    for path in folder.iterdir():
        if ENTRY.fullmatch(path.stem) and _unfinished(path):
            # Not where a live process builds it (Timeout), or where it is another user's (OSError).
            with suppress(OSError, Timeout), lock_of(path).acquire(timeout=0):
                if _unfinished(path):  # still, now that nobody else builds it
                    path.unlink(missing_ok=True)


def _unfinished(path: Path) -> bool:
    return path.suffix == ".part" or (
        path.suffix == ".npy" and not path.with_suffix(".json").exists()
    )


def lock_of(entry: Path) -> FileLock:
    """Return the lock of whoever builds the entry."""
    return FileLock(entry.with_suffix(".lock"))


def _about(
    source: Source, kept: list[int], skipped: list[tuple[str, str]], size: int
) -> dict[str, Any]:
    labels = None if source.labels is None else source.labels[kept].tolist()
    return {
        "source": source.name,
        "images": len(kept),
        "bytes": size,
        "classes": list(source.classes),
        "skipped": skipped,
        "labels": labels,
    }


def _write_images(
    path: Path, source: Source, side: int, progress: Progress | None
) -> tuple[list[int], list[tuple[str, str]]]:
    """Write the readable images as one .npy file.

    They go through a file rather than a memory map: on a full disk a file raises, where a map would
    kill the process.

    Returns:
        (indices of those that were written, (name, reason) of the others).
    """
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    with path.open("wb") as file:
        body = _write_header(file, len(source), side)
        for index, image in _decoded(source, side, progress):
            if isinstance(image, str):
                skipped.append((source.names[index], image))
            else:
                kept.append(index)
                file.write(image.tobytes())
        # How many images are readable is known only now.
        file.seek(0)
        if _write_header(file, len(kept), side) != body:
            raise AssertionError(
                "the header of a .npy file changed its length with the number of images"
            )
        file.flush()
        os.fsync(file.fileno())
    return kept, skipped


def _write_header(file: BinaryIO, count: int, side: int) -> int:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _decoded(
    source: Source, side: int, progress: Progress | None
) -> Iterator[tuple[int, np.ndarray | str]]:
    """Yield (index, image or the reason why it is unreadable), in order.

    Threads decode, since Pillow frees the interpreter meanwhile.
    """

    def decode(index: int) -> np.ndarray | str:
        try:
            return source.decode(index, side)
        except Exception as error:
            # A damaged file makes decoders raise almost anything; the reason is listed.
            return f"{type(error).__name__}: {error}"

    # As many threads as cores that a container or a batch system allows, where it can be asked.
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    with warnings.catch_warnings(), ThreadPool(min(cores, 32)) as pool:
        warnings.filterwarnings("ignore", module="PIL")
        for start in range(0, len(source), CHUNK):
            indices = range(start, min(start + CHUNK, len(source)))
            yield from zip(indices, pool.map(decode, indices), strict=True)
            if progress is not None:
                progress(indices.stop, len(source))


def _check_room(folder: Path, count: int, side: int) -> None:
    needed, free = count * side * side * 3, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"packing {count:,} images at {side} px needs {needed / 1e9:.1f} GB, but the cache in "
            f"{str(folder)!r} has {free / 1e9:.1f} GB left: set HSSL_SEARCH_CACHE to a folder with "
            "room."
        )


def _check_readable(source: Source, skipped: list[tuple[str, str]]) -> None:
    if len(skipped) > MOST_UNREADABLE * len(source):
        name, reason = skipped[0]
        raise UserError(
            f"{len(skipped):,} of {len(source):,} images in {source.name!r} are unreadable (at "
            f"most 5 % may be), the first is {source.where(name)!r} ({reason}): repair or remove "
            "them."
        )
