from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import hssl_search
from hssl_search.errors import UserError
from hssl_search.search.execution.ray_session import RaySession, _importable_in_workers


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=f"nothing answers at '{address}'"):
        RaySession(address=address).start()


def test_workers_find_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(hssl_search.__path__[0]).parent)
    for before in ("/some/where", None):
        monkeypatch.delenv("PYTHONPATH", raising=False)
        if before:
            monkeypatch.setenv("PYTHONPATH", before)
        with _importable_in_workers():
            found = os.environ.get("PYTHONPATH", "").split(os.pathsep)
            assert root in found or root in sys.path
            assert before is None or before in found
        assert os.environ.get("PYTHONPATH") == before


NO_HOME = """\
import pytest
from hssl_search.errors import UserError
from hssl_search.search.execution.ray_session import RaySession

session = RaySession()
with pytest.raises(UserError, match=r"Ray did not start on this machine \\(.*nowhere.*\\); it needs a home directory and "):
    session.start()
folder = session._folder
session.shutdown()
assert folder is not None and not folder.exists()
"""
"""In a process of its own: one in which Ray ran before remembers its token, and then waits for a server that never comes up."""


def test_a_machine_on_which_ray_does_not_start_is_told_in_one_sentence() -> None:
    environment = {**os.environ, "HOME": "/proc/nowhere", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", NO_HOME], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_session_that_never_started_has_nothing_to_shut_down() -> None:
    session = RaySession()
    session.shutdown()
    assert not session._started


def test_an_address_for_clients_is_refused() -> None:
    with pytest.raises(UserError, match="is an address for Ray clients"):
        RaySession(address="ray://127.0.0.1:10001").start()
