"""The dashboard's server, asked as its page asks."""

from __future__ import annotations

import json
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
from hssl_search.reporting.dashboard import DashboardServer, dashboard_server


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


@pytest.mark.parametrize(("host", "shown"), [
    ("127.0.0.1", "127.0.0.1"),
    pytest.param("::1", "[::1]", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")),
])
def test_it_shows_the_studies_of_the_storage(tmp_path: Path, host: str, shown: str) -> None:
    storage = optuna.storages.get_storage(f"sqlite:///{tmp_path}/study.db")
    optuna.create_study(storage=storage, study_name="demo")
    with serving(dashboard_server(storage, tmp_path / "artifacts", host, 0)) as server:
        found = get(f"http://{shown}:{server.server_port}/api/studies")
    assert [study["study_name"] for study in found["study_summaries"]] == ["demo"]


def test_a_port_in_use_is_an_error_of_the_system(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        dashboard_server(storage, tmp_path, "127.0.0.1", other.getsockname()[1])


def test_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(UserError, match="pip install optuna-dashboard"):
        dashboard_server(optuna.storages.InMemoryStorage(), tmp_path, "127.0.0.1", 0)
