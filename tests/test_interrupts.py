from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hssl_search import interrupts
from hssl_search.interrupts import check, handlers_kept, heeding, interrupt, on_interrupt, pause


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let so many seconds pass."""
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


def test_one_request_that_comes_twice_is_one_and_a_second_request_does_not_wait(
    later: Callable[[float], None],
) -> None:
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
    asked: list[str] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with on_interrupt(lambda: asked.append("to stop")):
            ask(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert asked == []


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


def test_the_first_request_ends_what_waits() -> None:
    with on_interrupt(lambda: None):
        pause(0.01)
        threading.Timer(0.2, ask, [signal.SIGTERM]).start()
        with pytest.raises(KeyboardInterrupt):
            pause(600.0)
        with pytest.raises(KeyboardInterrupt):
            pause(0.0)
    pause(0.01)


def test_another_thread_ends_what_waits_in_the_one_that_heeds_it() -> None:
    stop, ended = threading.Event(), list[str]()

    def run() -> None:
        with heeding(stop.is_set):
            try:
                pause(600.0)
            except KeyboardInterrupt:
                ended.append("asked")

    thread = threading.Thread(target=run)
    thread.start()
    stop.set()
    thread.join()
    assert ended == ["asked"]
    check()


LEFT = """\
import sys, time
from pathlib import Path
from hssl_search.interrupts import on_interrupt

asked = []
with on_interrupt(lambda: asked.append(1)):
    print("ready", flush=True)
    while not asked:
        time.sleep(0.01)
    print("what nobody reads", flush=True)
    print("nor this", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text("ended in order")
"""


def test_a_program_whose_terminal_closes_can_still_end_in_order(tmp_path: Path) -> None:
    terminal, theirs = os.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", LEFT, str(tmp_path / "said")],
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: os.login_tty(os.dup(theirs)),
    )
    assert os.read(terminal, 5) == b"ready"
    os.close(theirs)
    os.close(terminal)
    assert process.wait() == 0
    assert (tmp_path / "said").read_text() == "ended in order"


def test_what_goes_to_a_file_is_still_written_after_a_hangup(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with on_interrupt(lambda: None):
        ask(signal.SIGHUP)
        print("still here", flush=True)
    assert capfd.readouterr().out == "still here\n"
