"""Where the dashboard listens: real ports of this machine."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from hssl_search import dashboard
from hssl_search.dashboard import HOST, find_port
from hssl_search.errors import UserError


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens at."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen(1)
        yield other.getsockname()[1]


def test_the_next_free_port_is_found_where_the_default_is_taken(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "PORT", taken)
    found = find_port()
    assert taken < found < taken + dashboard.TRIED
    with socket.socket() as mine:
        mine.bind((HOST, found))


def test_no_free_port_is_told(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "PORT", taken)
    monkeypatch.setattr(dashboard, "TRIED", 1)
    with pytest.raises(UserError, match=rf"^the ports {taken} to {taken} of 127\.0\.0\.1 are all taken; give a free one as --port\.$"):
        find_port()


def test_a_port_that_was_asked_for_is_not_replaced(taken: int) -> None:
    with pytest.raises(UserError) as told:
        find_port(HOST, taken)
    assert str(told.value) == f"port {taken} of 127.0.0.1 is taken by another program; give another --port, or none to have a free one."


def test_a_port_that_has_just_been_left_is_free(taken: int) -> None:
    with socket.create_connection((HOST, taken)), pytest.raises(UserError):
        find_port(HOST, taken)
    free = find_port()
    assert find_port(HOST, free) == free


def test_a_host_that_is_not_this_machine_is_told() -> None:
    with pytest.raises(UserError, match=r"^the dashboard cannot listen at 192\.0\.2\.1:8\d\d\d \(.+\); give another --host, such as"):
        find_port("192.0.2.1")  # of a net that is for documentation only


def test_a_port_that_needs_rights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(host: str, port: int) -> None:  # root may listen anywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(dashboard, "_bind", denied)
    with pytest.raises(UserError, match=r" cannot listen at 127\.0\.0\.1:80 \(Permission denied\); give another --port, above 1023\.$"):
        find_port(HOST, 80)
