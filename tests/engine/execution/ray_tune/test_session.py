from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import hssl_search
from hssl_search.engine.execution.ray_tune import session as ray_session
from hssl_search.engine.execution.ray_tune.session import (
    RaySession,
    _importable_in_workers,
    _require_loopback,
    _told_when_slow,
)
from hssl_search.errors import UserError
from hssl_search.scratch import Scratch


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


HOSTILE = """\
import json, os, pwd, signal, subprocess, sys, time
from pathlib import Path

def nobody(uid):
    raise KeyError(uid)

pwd.getpwuid = nobody  # a container's user may have no entry
import ray
import ray._private.worker as internals
from hssl_search.errors import UserError
from hssl_search.engine.execution.ray_tune.session import RaySession

def descendants(pid):
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for text in lists for child in text.split()]
    return [*children, *(each for child in children for each in descendants(child))]

def alive(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False

def living(pids):
    # Those that do not end within a minute: on a busy machine a killed process stays a while.
    until = time.monotonic() + 60
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    return left

def folders():
    mine = f"session_*_{os.getpid()}"
    return [path for path in Path("/tmp").glob(".hssl-ray.*") if list(path.glob(mine))]

seen = {"handler": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL}
connect, started = internals.connect, []
def refuse(*args, **kwargs):
    started.extend(descendants(os.getpid()))
    raise RuntimeError("no luck\\nat all")
internals.connect = refuse
try:
    RaySession(cpus=1, gpus=0).start()
except UserError as error:
    seen["refused"] = str(error)
seen["daemons of a failed start"] = [len(started) > 0, living(started), len(folders())]
internals.connect = connect

with RaySession(cpus=1, gpus=0) as session:
    @ray.remote
    def look():
        return {"home": os.environ.get("HOME"), "folder": os.getcwd(), "pid": os.getpid()}

    first = ray.get(look.remote())
    daemons = descendants(os.getpid())
    seen["groups"] = os.getpgid(0) in {os.getpgid(pid) for pid in daemons}
    for pid in daemons:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(pid, number)
    import ray.tune
    time.sleep(1)  # for what a signal would end
    seen["after signals"] = ray.get(look.remote()) == first
    [folder] = folders()
    seen["home"] = first["home"] == str(folder / "home")
    seen["worker's folder"] = first["folder"] == os.getcwd()
    seen["free"] = [session.own, session.free("CPU")]
seen["left"] = [living(daemons), len(folders()), "HOME" in os.environ]
seen["handler after"] = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
print(json.dumps(seen))
"""
"""One start of Ray that fails and one that does not, in a process of its own: no home, another Ray
named in the environment, and where uv is there, under `uv run` below a pyproject.toml, where Ray
would copy the folder."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    above = tmp_path_factory.mktemp("project")
    (above / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "0"\n')
    (above / "work").mkdir()
    (above / "work" / "script.py").write_text(HOSTILE)
    uv = shutil.which(
        "uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    command = [
        *([uv, "run", "--no-project", "--offline"] if uv else []),
        sys.executable,
        "script.py",
    ]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")
    }
    environment |= {
        "RAY_ADDRESS": "127.0.0.1:1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "UV_CACHE_DIR": str(above / "uv"),
    }
    ended = subprocess.run(
        command, env=environment, cwd=above / "work", capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return dict(json.loads(ended.stdout))


def test_a_local_ray_starts_whatever_the_environment_says_and_without_a_home(
    hostile: dict[str, Any],
) -> None:
    assert hostile["home"]
    assert hostile["free"] == [True, 1.0]


def test_uv_run_does_not_make_ray_copy_the_working_folder(hostile: dict[str, Any]) -> None:
    assert hostile["worker's folder"]


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere Ray ends its daemons by their process group"
)
def test_signals_that_ask_to_stop_end_no_daemon_and_no_worker(hostile: dict[str, Any]) -> None:
    assert not hostile["groups"]
    assert hostile["after signals"]


def test_nothing_is_left_of_a_session_and_signal_handlers_stay(hostile: dict[str, Any]) -> None:
    assert hostile["left"] == [[], 0, False]
    assert hostile["handler"]
    assert hostile["handler after"]


def test_nothing_is_left_of_a_start_that_fails_and_its_own_cause_is_told(
    hostile: dict[str, Any],
) -> None:
    assert hostile["daemons of a failed start"] == [True, [], 0]
    assert hostile["refused"] == (
        "Ray did not start on this machine (no luck); try again, or start a Ray with `ray start "
        "--head` and name its address with --ray-address."
    )


KILLED = """\
import os, sys, time
from pathlib import Path
from hssl_search.engine.execution.ray_tune.session import RaySession

with RaySession(cpus=1, gpus=0):
    import ray

    @ray.remote
    def work():
        time.sleep(10_000)

    works = work.remote()
    mine = f"session_*_{os.getpid()}"
    [folder] = [path for path in Path("/tmp").glob(".hssl-ray.*") if list(path.glob(mine))]
    print(folder, *Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(), flush=True)
    time.sleep(10_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_daemons_die_with_a_killed_process_and_the_next_removes_its_folder() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder, *daemons = process.stdout.readline().split()
    assert daemons and Path(folder).exists()
    with Scratch("ray", Path(folder).parent):
        assert Path(folder).exists()
    process.kill()
    process.wait()
    until = time.monotonic() + 120.0
    while (
        left := [pid for pid in daemons if Path(f"/proc/{pid}").exists()]
    ) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []
    with Scratch("ray", Path(folder).parent):
        assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/home/me/.ray"),
            "it needs a home directory and a .* that may be written",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "free some space in "),
        (ValueError("bad"), "try again, or start a Ray"),
    ],
)
def test_a_start_that_fails_names_what_mends_its_cause(
    monkeypatch: pytest.MonkeyPatch, error: Exception, remedy: str
) -> None:
    import ray

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(UserError, match=rf"Ray did not start on this machine \(.*\); {remedy}"):
        RaySession().start()


def test_a_machine_without_a_folder_for_temporary_files_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    def fail(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/tmp")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    with pytest.raises(
        UserError,
        match=(
            r"Ray did not start .*Permission denied.*; it needs a home directory and a /tmp that "
            r"may be"
        ),
    ):
        RaySession().start()


def test_sigterm_while_ray_starts_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *args, **kwargs: sys.exit(15))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        RaySession().start()


def test_a_machine_without_loopback_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(
        UserError, match=r"does not answer itself at 127.0.0.1 \(Network is unreachable\)"
    ):
        _require_loopback()


def test_a_start_that_takes_long_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_session, "SLOW_S", 0.0)
    said = ""
    with _told_when_slow():
        while not said:
            said = capsys.readouterr().err
    assert said.startswith("hssl-search: Ray has not started within 0 s")


def test_a_start_in_time_is_not_talked_of(capsys: pytest.CaptureFixture[str]) -> None:
    with _told_when_slow():
        pass
    assert capsys.readouterr().err == ""


def test_a_session_that_never_started_has_nothing_to_shut_down() -> None:
    session = RaySession()
    session.shutdown()
    assert not session.own


def test_an_address_for_clients_is_refused() -> None:
    with pytest.raises(UserError, match="is an address for Ray clients"):
        RaySession(address="ray://127.0.0.1:10001").start()
