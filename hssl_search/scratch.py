"""Folders and files that only a running process needs: locked while it lives, and removed by a
later process where it was killed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

Kind = Literal["artifacts", "measure", "plan", "ray", "replay", "run", "tune"]
FOLDER = re.compile(rf"\.hssl-({'|'.join(get_args(Kind))})\.[a-z0-9_]{{8}}")
"""Names of the folders, as `tempfile.mkdtemp` makes them; no run's name begins with a dot."""
MARKER = ".hssl-scratch"
"""Name of an empty file in each of the folders: a folder without one was made by somebody else and
is never removed."""


class Scratch:
    """A temporary folder that is removed with its process, at the latest by the next one that makes
    such a folder there.

    A process holds a lock (flock) on its folder for as long as it lives. The kernel frees the lock
    however the process ends, so that a folder without one has no owner: unlike a process id, a lock
    is never used again by another program and means the same in every container. Programs that
    empty /tmp by age leave locked folders alone too.

    Args:
        kind: its purpose, a part of its name.
        root: the folder to make it in; None: that for temporary files.
    """

    def __init__(self, kind: Kind, root: Path | None = None) -> None:
        root = Path(root or tempfile.gettempdir())
        remove_abandoned(root)
        self.path = Path(tempfile.mkdtemp(prefix=f".hssl-{kind}.", dir=root))
        self._lock = _own(self.path)
        try:
            # Only once it is locked: others remove what is marked and not locked.
            (self.path / MARKER).touch()
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove the folder with all that is in it; a second call does nothing."""
        if self._lock is not None:
            _remove_folder(self.path)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


def remove_abandoned(root: Path) -> None:
    """Remove this user's scratch folders in `root` whose processes have died."""
    # A folder that cannot be listed or removed is no reason to stop what a user asked for.
    with suppress(OSError):
        for path in root.iterdir():
            if FOLDER.fullmatch(path.name) and not path.is_symlink() and (path / MARKER).is_file():
                _remove_if_abandoned(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file beside `path`, which takes its place after the block; when the block raises,
    the old file stays.

    What killed processes left of their writing of the same file is removed.
    """
    name = re.sub(r"([*?[])", r"[\1]", path.name)  # as a glob pattern that matches it alone
    for other in path.parent.glob(f".{name}.????????.part"):
        _remove_if_abandoned(other)
    beside, lock = _new_file(path)
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
        os.close(lock)


def _new_file(path: Path) -> tuple[Path, int]:
    """Return an empty, locked file beside `path`, and its lock."""
    # Another process may remove the file between its making and its locking: then it is made anew.
    while True:
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if (lock := _own(beside)) is not None:
            return beside, lock


def _remove_if_abandoned(path: Path) -> None:
    # It has an owner, is another user's or is gone; some file systems have no locks.
    with suppress(OSError):
        lock = _locked(path)
        try:
            if _is_at(path, lock) and os.fstat(lock).st_uid == os.getuid():
                _remove_folder(path) if path.is_dir() else path.unlink()
        finally:
            os.close(lock)


def _remove_folder(folder: Path) -> None:
    """Remove a scratch folder, its marker last: where this is cut short, the next process continues
    it.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != MARKER:
                path.unlink()
        if {path.name for path in folder.iterdir()} <= {MARKER}:
            shutil.rmtree(folder, ignore_errors=True)


def _own(path: Path) -> int | None:
    """Lock what this process has just made; return None where another process was faster and
    removes it.
    """
    try:
        lock = _locked(path)
    except (BlockingIOError, FileNotFoundError):
        return None
    except OSError:
        # A file system without locks: nobody can lock it there, and so nobody removes it.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if _is_at(path, lock):
        return lock
    os.close(lock)
    return None


def _locked(path: Path) -> int:
    """Return a descriptor that holds the lock of `path`.

    Raises:
        OSError: where another process holds it, or no lock is to be had.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _is_at(path: Path, descriptor: int) -> bool:
    """Tell whether the path still leads to what the descriptor was opened on."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
