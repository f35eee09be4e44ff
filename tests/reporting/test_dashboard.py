"""The dashboard's server, asked as its page asks."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import optuna
import pytest

from hssl_search.errors import UserError
from hssl_search.reporting import dashboard
from hssl_search.reporting.dashboard import HOST, DashboardServer, dashboard_server


@contextmanager
def serving(server: DashboardServer) -> Iterator[DashboardServer]:
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(address: str) -> Any:
    with urlopen(address, timeout=60) as answer:
        return json.load(answer)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        pytest.param(
            "::1",
            "[::1]",
            marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"),
        ),
    ],
)
def test_it_shows_the_studies_of_the_storage(tmp_path: Path, host: str, shown: str) -> None:
    storage = optuna.storages.get_storage(f"sqlite:///{tmp_path}/study.db")
    optuna.create_study(storage=storage, study_name="demo")
    with serving(dashboard_server(storage, tmp_path / "artifacts", host, 0)) as server:
        found = get(f"http://{shown}:{server.server_port}/api/studies")
    assert [study["study_name"] for study in found["study_summaries"]] == ["demo"]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens at."""
    with socket.create_server((HOST, 0)) as other:
        yield other.getsockname()[1]


def listening(host: str = HOST, port: int | None = None) -> int:
    """The port that a dashboard listened at for a moment."""
    with dashboard_server(
        optuna.storages.InMemoryStorage(), Path("artifacts"), host, port
    ) as server:
        return int(server.server_port)


def test_the_next_free_port_is_found_where_the_default_is_taken(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "PORT", taken)
    assert taken < listening() < taken + dashboard.TRIED


def test_no_free_port_is_told(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "PORT", taken)
    monkeypatch.setattr(dashboard, "TRIED", 1)
    with pytest.raises(
        UserError,
        match=(
            rf"^the ports {taken} to {taken} of 127\.0\.0\.1 are all taken; give a free one as "
            r"--port\.$"
        ),
    ):
        listening()


def test_a_port_that_was_asked_for_is_not_replaced(taken: int) -> None:
    with pytest.raises(UserError) as told:
        listening(port=taken)
    assert (
        str(told.value)
        == f"port {taken} of 127.0.0.1 is taken by another program; give another --port, or none "
        "to have a free one."
    )


def test_a_port_that_has_just_been_left_is_free() -> None:
    with dashboard_server(optuna.storages.InMemoryStorage(), Path("artifacts"), HOST, 0) as server:
        port = server.server_port
        asking = socket.create_connection((HOST, port))
        server.socket.accept()[0].close()  # who closes first leaves the port waiting
    asking.close()
    assert listening(port=port) == port


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
# the first: of a net that is for documentation only
def test_a_host_that_is_not_this_machine_is_told(
    host: str,
) -> None:
    with pytest.raises(
        UserError,
        match=(
            rf"^the dashboard cannot listen at {re.escape(host)}:8080 \(.+\); give another --host, "
            r"such as"
        ),
    ):
        listening(host)


def test_a_port_that_needs_rights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(server: DashboardServer) -> None:  # root may listen anywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(DashboardServer, "server_bind", denied)
    with pytest.raises(
        UserError,
        match=(
            r" cannot listen at 127\.0\.0\.1:80 \(Permission denied\); give another --port, above "
            r"1023\.$"
        ),
    ):
        listening(port=80)


def test_a_port_that_no_machine_has_is_told() -> None:
    with pytest.raises(
        UserError,
        match=(
            r" cannot listen at 127\.0\.0\.1:70000 \(.+\); give another --port, from 1 to 65535\.$"
        ),
    ):
        listening(port=70_000)


def test_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(UserError, match="pip install optuna-dashboard"):
        dashboard_server(optuna.storages.InMemoryStorage(), tmp_path, "127.0.0.1", 0)
