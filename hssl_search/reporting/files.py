"""Writing a file so that a reader never sees half of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hssl_search.scratch import replacing


def write_whole(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a file beside `path`, then rename it to `path`; what stood there stays when `write` raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        write(beside)
    return path
