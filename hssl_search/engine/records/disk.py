"""A full disk: told apart from other errors, and told to the user."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hssl_search.errors import UserError

SAID = re.compile(r"\b(code: 28|os error 28|No space left on device|disk is full)\b")
"""What libraries with errors of their own, such as safetensors, say of it."""
RESUME = "go on with `hssl-search resume`: nothing that was decided is lost"
AGAIN = "run the command again"


def disk_is_full(error: BaseException) -> bool:
    """Return whether an error says that no space is left."""
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or SAID.search(str(error)) is not None
    )


@contextmanager
def disk_errors(folder: Path, remedy: str = RESUME) -> Iterator[None]:
    """Turn running out of disk space into a UserError with the folder and what to do then."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not disk_is_full(error):
            raise
        raise UserError(full(folder, remedy)) from error


def full(folder: Path | str, remedy: str = RESUME) -> str:
    """Return the sentence that tells a user of it."""
    return f"no space is left on the disk of {folder}; free some, then {remedy}."
