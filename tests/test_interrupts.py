from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from hssl_search import interrupts
from hssl_search.interrupts import handlers_kept, interrupt, on_interrupt


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds pass."""
    now = [0.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])

    def later(seconds: float) -> None:
        now[0] += seconds

    return later


def ask(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_each_signal_that_asks_to_stop_does_and_handlers_come_back(number: signal.Signals) -> None:
    before, asked = signal.getsignal(number), []
    with on_interrupt(lambda: asked.append(number)):
        ask(number)
    assert asked == [number]
    assert signal.getsignal(number) is before


def test_one_request_that_comes_twice_is_one_and_a_second_request_does_not_wait(later: Callable[[float], None]) -> None:
    asked: list[int] = []
    with on_interrupt(lambda: asked.append(1)):
        ask(signal.SIGTERM)
        ask(signal.SIGTERM)
        later(0.5)
        ask(signal.SIGHUP)
        assert asked == [1]
        later(1.0)
        with pytest.raises(KeyboardInterrupt):
            ask(signal.SIGTERM)


def test_a_request_that_comes_again_outside_is_the_same_too(later: Callable[[float], None]) -> None:
    asked: list[str] = []
    with on_interrupt(lambda: asked.append("outside")):
        with on_interrupt(lambda: asked.append("inside")):
            ask(signal.SIGTERM)
        ask(signal.SIGTERM)
        assert asked == ["inside"]
        later(2.0)
        ask(signal.SIGTERM)
    assert asked == ["inside", "outside"]


def test_the_next_command_of_a_process_hears_at_once() -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), on_interrupt(interrupt):
            ask(signal.SIGTERM)


def test_under_nohup_the_terminal_may_close() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with on_interrupt(interrupt):
            ask(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_sets_no_handlers() -> None:
    inside: list[object] = []

    def run() -> None:
        with on_interrupt(interrupt), handlers_kept(signal.SIGTERM):
            inside.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [before]
