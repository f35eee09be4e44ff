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
"""`timeout`, shells and terminals send one request to a program and to its process group: a signal
that comes so soon after another is the same request."""


SLICE_S = 0.1
"""How long `pause` sleeps before it looks again whether it is asked to stop."""


class _Asked(threading.local):
    """What tells whether this thread is asked to stop."""

    def __init__(self) -> None:
        self.by: list[Callable[[], bool]] = []


_asked = _Asked()


class _Heard:
    """The last request of the outermost `on_interrupt`."""

    depth = 0
    at = -math.inf


@contextmanager
def on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Within: the first signal that asks to stop calls `stop`, a second request raises
    KeyboardInterrupt where it strikes.

    What waits by `pause` is ended by the first. A SIGHUP that is ignored stays ignored, for nohup.
    Only the main thread gets signals; in others this does nothing.
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
        _Heard.at = now
        if asked:
            raise KeyboardInterrupt
        asked = True
        stop()

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
    """Within: in this thread, `pause` and `check` raise KeyboardInterrupt as soon as `asked()` is
    true.
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
    """Sleep, and raise KeyboardInterrupt as soon as this thread is asked to stop: `time.sleep`
    would not be ended by a signal whose handler returns.
    """
    until = time.monotonic() + seconds
    check()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, SLICE_S))
        check()


def _leave_terminal() -> None:
    """Write to nowhere what was written to a terminal that is gone: there every write fails, those
    too that end a search in order.
    """
    for descriptor in (1, 2):
        with suppress(OSError):  # it is closed
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


@contextmanager
def handlers_kept(*numbers: int) -> Iterator[None]:
    """Within: others may set handlers of these signals; afterwards those from before are there
    again.
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
