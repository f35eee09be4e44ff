"""Standard output that is closed, and searches that overlap."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hssl_search.output import Stream, standard_streams


def in_thread(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_what_overlaps_in_threads_leaves_the_streams_of_the_process() -> None:
    before, found = (sys.stdout, sys.stderr), list[object]()
    first_began, first_may_end = threading.Event(), threading.Event()

    def first() -> None:
        with standard_streams():
            first_began.set()
            assert first_may_end.wait(60)

    def second() -> None:
        with standard_streams():
            found.append((sys.stdout, sys.stderr))
            first_may_end.set()
            one.join()

    one = in_thread(first)
    assert first_began.wait(60)
    in_thread(second).join()
    assert (sys.stdout, sys.stderr) == before
    assert found == [before]


def test_the_main_thread_has_them_back_afterwards() -> None:
    before = sys.stdout, sys.stderr
    with standard_streams() as output, standard_streams():
        assert isinstance(sys.stdout, Stream) and sys.stdout is not output
    assert (sys.stdout, sys.stderr) == before


@contextmanager
def a_file() -> Iterator[io.TextIOWrapper]:
    with io.TextIOWrapper(io.BytesIO(), encoding="utf-8") as file:
        yield file


def test_a_stream_that_is_closed_drops_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_file() as file:
        stream = Stream(file)
    for closed in (stream, Stream(file)):
        closed.write("a line\n")
        closed.writelines(["more\n"])
        closed.flush()
        assert str(closed.error).endswith("it is closed")
    monkeypatch.setattr(sys, "stdout", file)
    with standard_streams():
        print("a line")


def test_lines_are_written_by_the_same_rules() -> None:
    with a_file() as file:
        stream = Stream(file)
        stream.writelines(["one\n", "caf\xe9 \udce9\n"])
        stream.flush()
        assert file.buffer.getvalue().decode() == "one\ncaf\xe9 \\udce9\n"  # type: ignore[attr-defined]


def test_a_mistake_of_the_writer_is_no_failure_of_the_stream() -> None:
    class Strict(io.StringIO):
        def write(self, text: str) -> int:
            raise ValueError("no such letter")

    with pytest.raises(ValueError, match="no such letter"):
        Stream(Strict()).write("x")
