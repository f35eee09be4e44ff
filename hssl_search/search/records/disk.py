"""A full disk: told apart from other errors, and told to the user."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hssl_search.errors import UserError

SAID = re.compile(r"\b(code: 28|os error 28|No space left on device|disk is full)\b")
"""What libraries that have errors of their own, such as safetensors, say of it."""


def disk_is_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or SAID.search(str(error)) is not None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Within: running out of disk space becomes a UserError that names the run's folder."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not disk_is_full(error):
            raise
        raise UserError(full(folder)) from error


def full(folder: Path | str) -> str:
    return f"no space is left on the disk of {folder}; free some, then go on with `hssl-search resume`: nothing that was decided is lost."
