"""Errors that a user can mend, and the words for them."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MUCH_FARTHER = 0.15
"""How much less like the word than the best match another match may be, in difflib's ratio from 0
to 1."""
PASSWORD = re.compile(r"(\w://[^\s:/@]*:)[^\s]*@|(passw\w*=)[^\s&'\"]+", re.IGNORECASE)
"""Finds in text the password of a URL, up to the last "@", or that of an option."""
FULL_DISK = re.compile(r"\b(code: 28|os error 28|No space left on device|disk is full)\b")
"""What libraries with errors of their own, such as safetensors, say of it."""
RESUMABLE = "continue with `hssl-search resume`: nothing that was decided is lost"
REPEATABLE = "run the command again"


class UserError(Exception):
    """A mistake that the user can mend, in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence without a traceback and exits with code 2. A sentence that
    repeats what was typed never repeats a password in it.
    """

    exit_code = 2

    def __init__(self, sentence: str) -> None:
        super().__init__(without_passwords(sentence))


def without_passwords(text: str) -> str:
    """Return the text with `***` for each password of a URL in it."""
    return PASSWORD.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)


def nearest(word: str, valid: Iterable[str], most: int = 3) -> list[str]:
    """Return the valid words closest to `word`, best first, and none that is much farther than the
    best; empty when none is close.
    """
    # difflib may rank words that are hardly like it: `nearest` is to be a help, not a guess.
    close = difflib.get_close_matches(word, list(valid), n=most, cutoff=0.5)
    likeness = {name: difflib.SequenceMatcher(None, name, word).ratio() for name in close}
    return [name for name in close if likeness[name] > likeness[close[0]] - MUCH_FARTHER]


def advice(word: str, valid: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown `word`: `did you mean 'x'?` or, with nothing
    close, the valid words.
    """
    valid = sorted(valid)
    if close := nearest(word, valid):
        return f"did you mean {' or '.join(repr(name) for name in close)}?"
    return f"choose one of {', '.join(valid)}."


def disk_is_full(error: BaseException) -> bool:
    """Return whether an error says that no space is left."""
    # Libraries wrap the OSError in errors of their own: then the words alone tell.
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or FULL_DISK.search(str(error)) is not None
    )


@contextmanager
def disk_errors(folder: Path, remedy: str = RESUMABLE) -> Iterator[None]:
    """Turn running out of disk space into a UserError with the folder and what to do then."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not disk_is_full(error):
            raise
        raise UserError(full_disk(folder, remedy)) from error


def full_disk(folder: Path | str, remedy: str = RESUMABLE) -> str:
    """Return the sentence that tells a user of a full disk."""
    return f"no space is left on the disk of {folder}; free some, then {remedy}."
