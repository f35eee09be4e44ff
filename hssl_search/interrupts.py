"""Signals that ask a program to stop: Ctrl-C, SIGTERM, and the SIGHUP of a terminal that closes."""

from __future__ import annotations

import math
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_S = 1.0
"""Seconds within which two signals are one request: `timeout`, shells and terminals send a request
to a program and to its process group."""


SLICE_S = 0.1
"""Seconds that `pause` sleeps before it looks again whether it is asked to stop."""


class _Asked(threading.local):
    """The questions that tell whether this thread is asked to stop."""

    def __init__(self) -> None:
        self.by: list[Callable[[], bool]] = []


_asked = _Asked()


class _Heard:
    """The last request of the outermost `on_interrupt`."""

    depth = 0
    at = -math.inf


@contextmanager
def on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first signal that asks to stop, and raise KeyboardInterrupt where a second
    request strikes, within the block.

    The first request also ends what waits by `pause`. A SIGHUP that is ignored stays ignored, for
    nohup. Only the main thread gets signals; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if number == signal.SIGHUP:
            _leave_terminal()
        now = time.monotonic()
        if now - _Heard.at < SAME_S:
            return
        # Only a request of its own: the process group's copy of the first is no second one.
        _Heard.at = now
        if asked:
            raise KeyboardInterrupt
        asked = True
        stop()

    # A block within another belongs to the same request: what stopped the inner one is heard there.
    if not _Heard.depth:
        _Heard.at = -math.inf
    _Heard.depth += 1
    try:
        with handlers_kept(*SIGNALS), heeding(lambda: asked):
            for number in SIGNALS:
                if not (number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN):
                    signal.signal(number, hear)
            yield
    finally:
        _Heard.depth -= 1


@contextmanager
def heeding(asked: Callable[[], bool]) -> Iterator[None]:
    """Make `pause` and `check` of this thread raise KeyboardInterrupt as soon as `asked()` is true,
    within the block.
    """
    _asked.by.append(asked)
    try:
        yield
    finally:
        _asked.by.pop()


def check() -> None:
    """Raise KeyboardInterrupt where this thread is asked to stop."""
    if any(asked() for asked in _asked.by):
        raise KeyboardInterrupt


def pause(seconds: float) -> None:
    """Sleep, and raise KeyboardInterrupt as soon as this thread is asked to stop.

    A signal whose handler returns would not end `time.sleep`.
    """
    until = time.monotonic() + seconds
    check()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, SLICE_S))
        check()


def _leave_terminal() -> None:
    """Write to nowhere what was written to a terminal that is gone: there every write fails, and so
    would those that end a search in order.
    """
    for descriptor in (1, 2):
        with suppress(OSError):  # it is closed
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


@contextmanager
def handlers_kept(*numbers: int) -> Iterator[None]:
    """Let others set handlers of these signals within the block, and set those from before again
    after it.
    """
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():  # None: it was not set from Python
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def interrupt() -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt
