"""Writing a file so that a reader never sees half of it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from hssl_search.errors import UserError
from hssl_search.scratch import replacing


def write_whole(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a file beside `path`, then rename it to `path`; what stood there stays when `write` raises.

    Raises:
        UserError: where the folder may not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            write(beside)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(
            f"{path} cannot be written ({error.strerror}); make its folder writable, or work on a copy of the run."
        ) from error
    return path
