"""Sources of images: a folder of image files, or the handwritten digits of scikit-learn."""

from __future__ import annotations

import functools
import hashlib
import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

import hssl_search.data.decode as decode
from hssl_search.errors import UserError, nearest

DIGITS = "digits"
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
SPLITS = frozenset({"train", "test", "val", "valid", "validation"})
"""Folder names that say which split an image belongs to, never its class."""


@dataclass(frozen=True)
class Contents:
    """The mark that tells the images of one source from others, wherever and whenever they were
    copied, and the place where they lie packed.
    """

    images: int
    """Files that were listed."""
    readable: int
    """Those of them that could be decoded."""
    classes: int
    names: str
    """SHA-256 over each file's name and size, 64 hexadecimal digits."""
    side: int
    """Side of the packed images, in pixels."""
    key: str
    """Key of the entry in the image cache."""


@dataclass(frozen=True, eq=False)
class Source(ABC):
    """Images that can be decoded one by one, listed but not read yet."""

    name: str
    """As the user wrote it."""
    names: tuple[str, ...]
    """Each image's own name, sorted; for a folder the path below it, with `/`."""
    stamps: tuple[tuple[int, int], ...]
    """Size in bytes and time of change in ns of each image."""
    labels: np.ndarray | None
    """int64, one an image, indices into `classes`; None without classes."""
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def decode(self, index: int, side: int) -> np.ndarray:
        """Return the image as uint8 `side` x `side` x 3; raise when it cannot be read."""

    @abstractmethod
    def short_side(self, index: int) -> int:
        """Return the shorter side of the image as it is stored, in pixels; raise when it cannot be
        read.
        """

    def where(self, name: str) -> str:
        """Return what messages call the image `name`."""
        return shown(f"{self.name}/{name}")

    def select(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Return the source of these images only, in their present order."""
        rows = np.sort(np.asarray(indices, dtype=np.int64))
        labels = None if self.labels is None else self.labels[rows]
        names = tuple(self.names[row] for row in rows)
        stamps = tuple(self.stamps[row] for row in rows)
        return replace(self, names=names, stamps=stamps, labels=labels)

    def fingerprint(self, times: bool = True) -> str:
        """Return the SHA-256 over every image's name, size and, with `times`, time of change, as 64
        hexadecimal digits.
        """
        digest = hashlib.sha256()
        for name, (size, changed) in zip(self.names, self.stamps, strict=True):
            # No name holds a zero byte, so that no two lists of images give the same bytes.
            time = f"\0{changed}" if times else ""
            digest.update(f"{name}\0{size}{time}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Folder(Source):
    """Image files below a folder."""

    root: Path

    def decode(self, index: int, side: int) -> np.ndarray:
        return decode.decode(self.root / self.names[index], side)

    def short_side(self, index: int) -> int:
        return decode.short_side(self.root / self.names[index])

    def where(self, name: str) -> str:
        return shown(str(self.root / name))


class Digits(Source):
    """The 1,797 handwritten 8 x 8 digits of scikit-learn, upsampled bilinearly, grey in three
    channels.
    """

    def decode(self, index: int, side: int) -> np.ndarray:
        small = Image.fromarray(_digits()[0][int(self.names[index])])
        grey = np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))
        return np.repeat(grey[:, :, None], 3, axis=2)

    def short_side(self, index: int) -> int:
        return 8


def open_source(name: str) -> Source:
    """List the images of `name`: a folder, or `digits` (a folder of that name is written
    `./digits`).

    The classes are the first folders below the root when every image is inside one and there are
    two or more; otherwise the images have no labels. Hidden files and folders are skipped.

    Raises:
        UserError: when the folder is missing, is a file, cannot be read, has no image or only one,
            or is divided into train and test.
    """
    if name == DIGITS:
        return _open_digits()
    root = _existing_folder(name)
    names, stamps = _list(name, root)
    if len(names) < 2:  # one cannot be told apart from others
        count = "only one image" if names else "no images"
        raise UserError(
            f"{name!r} has {count} (looked for {', '.join(sorted(EXTENSIONS))} at any depth): "
            "give a folder with at least two, or the name 'digits'."
        )
    labels, classes = _classes(names)
    _refuse_splits(name, classes)
    return Folder(name, names, stamps, labels, classes, root)


def folder_of(name: str) -> Path:
    """Return the path of a folder of images, with `~` resolved.

    Raises:
        UserError: for the home directory of nobody.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{name!r} begins with a home directory that there is not; give the full path of the "
            "folder."
        ) from error


def require_folders(*sources: str | None) -> None:
    """Check that the folders of these data are there, without a look at what is in them, which may
    take long.

    Raises:
        UserError: as `open_source`.
    """
    for source in sources:
        if source is not None and source != DIGITS and not folder_of(source).is_dir():
            open_source(source)  # says what is wrong


def _existing_folder(name: str) -> Path:
    root = folder_of(name)
    if root.is_dir():
        return root
    if root.exists():
        raise UserError(
            f"{name!r} is a file, not a folder of images: give the folder that it is in."
        )
    beside = (
        [entry.name for entry in root.parent.iterdir() if entry.is_dir()]
        if root.parent.is_dir()
        else []
    )
    close = [str(root.parent / folder) for folder in nearest(root.name, beside)]
    hint = (
        f"did you mean {' or '.join(map(repr, close))}?"
        if close
        else "give an existing one, or the name 'digits'."
    )
    raise UserError(f"there is no folder {name!r} to read images from: {hint}")


def _list(name: str, root: Path) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    try:
        # Sorted, since the order of a folder's entries is the file system's own.
        stamped = sorted(_walk(root, "", frozenset()))
    except OSError as error:
        raise UserError(
            f"cannot list the images in {name!r}: {error.strerror} ({shown(str(error.filename))}); "
            "make it readable, or give another folder."
        ) from error
    return tuple(path for path, _ in stamped), tuple(stamp for _, stamp in stamped)


def _walk(
    folder: Path, prefix: str, above: frozenset[str]
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield every image file below `folder`, links followed, as (path below the root, (size, time
    of change)).
    """
    real = os.path.realpath(folder)
    if real in above:  # a link back to a folder that it is in would be walked for ever
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above | {real})
                continue
            # A dangling link counts: it is reported as unreadable rather than missed.
            is_file = entry.is_file() or entry.is_symlink()
            if is_file and os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                dangling = entry.is_symlink() and not os.path.exists(entry.path)
                status = entry.stat(follow_symlinks=not dangling)
                yield prefix + entry.name, (status.st_size, status.st_mtime_ns)


def _classes(names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return (int64 label of each image, class names), or (None, ()) when the folders do not say
    classes.
    """
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    # A Mac writes é as two characters (NFD), others as one (NFC): folders that a person cannot tell
    # apart are one class.
    class_of = {folder: unicodedata.normalize("NFC", shown(folder)) for folder in set(folders)}
    classes = sorted(set(class_of.values()))
    # "" is an image outside of all folders: then folders are no classes.
    if len(classes) < 2 or "" in classes:
        return None, ()
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[class_of[folder]] for folder in folders], dtype=np.int64)
    return labels, tuple(classes)


def shown(name: str) -> str:
    r"""Return a file name as it can be written anywhere: control characters and bytes that are not
    UTF-8 are escaped, as in `caf\xe9`.
    """
    decoded = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in decoded
    )


def _refuse_splits(name: str, classes: tuple[str, ...]) -> None:
    if not classes or not SPLITS.issuperset(classes):
        return
    best = "train" if "train" in classes else classes[0]
    raise UserError(
        f"the folders in {name!r} are splits ({', '.join(classes)}), not classes: give "
        f"{str(Path(name) / best)!r} as data, and {name!r} as probe data if its splits have class "
        "folders."
    )


def _open_digits() -> Source:
    pixels, labels = _digits()
    names = tuple(f"{index:04d}" for index in range(len(pixels)))
    stamps = ((64, 0),) * len(names)  # they never change
    return Digits(DIGITS, names, stamps, labels, tuple("0123456789"))


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return (uint8 1797 x 8 x 8 pixels, 1797 int64 labels)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64)
