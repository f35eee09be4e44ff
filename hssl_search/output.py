"""Standard output and standard error as a command may find them: closed, full, or without some
letters.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from hssl_search.errors import UserError


class Stream:
    """A text stream that never raises: after the first write that fails, it drops what is written
    to it.

    A search that nobody listens to any more thus still comes to its end, and keeps its results.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        """Of the first write that failed."""
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            # An ASCII terminal would raise on a letter, and any on a file name that is not UTF-8.
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def require_written(self) -> None:
        """Check that all was written.

        Raises:
            UserError: when something could not be written; not when the reader has closed the pipe,
                since it then has all that it wanted.
        """
        self.flush()
        if self.error is not None and self.error.errno != errno.EPIPE:
            raise UserError(
                f"standard output cannot be written ({self.error.strerror or self.error}): send it "
                "elsewhere; what the command wrote to files is complete."
            )

    def _try(self, call: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            call()
        except (OSError, ValueError) as error:
            # Python raises ValueError for a closed stream; any other is a bug of ours.
            if isinstance(error, ValueError) and not self._stream.closed:
                raise
            self.error = (
                error if isinstance(error, OSError) else OSError(errno.EBADF, "it is closed")
            )
            # What lies in the stream's buffer goes nowhere, else the interpreter would fail on it
            # at its end.
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def standard_streams() -> Iterator[Stream]:
    """Keep standard output and standard error from raising within the block; gives standard output.

    The two belong to the whole process. So in other threads than the main one they stay as they
    are: searches that overlap would each put back what it found, in any order.
    """
    _reserve_descriptors()
    before = sys.stdout, sys.stderr
    # Open as long as the process; None where the shell closed it.
    streams = [Stream(stream or open(os.devnull, "w")) for stream in before]  # noqa: SIM115
    if threading.current_thread() is not threading.main_thread():
        yield streams[0]
        return
    sys.stdout, sys.stderr = streams
    try:
        yield streams[0]
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def _reserve_descriptors() -> None:
    """Open what the shell has closed (`>&-`). A file opened later would otherwise get its number,
    and native code would write into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
