"""Ray for this process: started once, silent, its files in a folder that goes away."""

from __future__ import annotations

import errno
import getpass
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from hssl_search.errors import UserError
from hssl_search.interrupts import SIGNALS, handlers_kept
from hssl_search.scratch import Scratch

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # Under `uv run` Ray would copy the working folder to its workers.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's 15 lets any other program of the machine eat into a budget that is wall-clock.
    "RAY_worker_niceness": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
ELSEWHERE = (
    "RAY_ADDRESS",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_REDIS_ADDRESS",
    "RAY_RUNTIME_ENV_HOOK",
)
"""Environment variables by which Ray would become another one than a plain local one."""
SLOW_S = 60.0
OBJECT_STORE_BYTES = 128 * 2**20
"""Only reports and job descriptions go through Ray's object store; images and weights never do."""


class RaySession:
    """A Ray of our own on this machine, or the cluster at an address. Starts once; a Ray that runs
    already is used and left running.

    Starting a local Ray writes an authentication token to the home directory, where there is one;
    to join a cluster at `address` that was started in the same way, set `RAY_AUTH_MODE=token` in
    the environment. Every node of a cluster needs hssl-search installed and must see the run folder
    under the same path.

    Args:
        cpus, gpus: what a local Ray may use; None: all there is. Not for a cluster, which knows its
            own.
        runtime_env: passed to Ray, for a cluster without the package: `{"py_modules":
            [hssl_search]}`.
        stop: what is run here stops when another thread sets it, as after Ctrl-C.
    """

    def __init__(
        self,
        cpus: int | None = None,
        gpus: int | None = None,
        address: str | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._cpus = cpus
        self._gpus = gpus
        self._address = address
        self._runtime_env = runtime_env
        self._started = ExitStack()
        """What undoes the start."""
        self.stop = stop or threading.Event()
        self.own = False
        """Whether nothing else runs on this Ray."""

    def start(self) -> RaySession:
        """Start or join Ray, about 5 seconds.

        Raises:
            UserError: where there is no cluster at the address, or no Ray can be started here.
        """
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray

            if not ray.is_initialized():
                with handlers_kept(signal.SIGTERM), _told_when_slow():
                    self._init(ray)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        return self

    def total(self, resource: str) -> float:
        """Return how much of "CPU" or "GPU" all machines together have."""
        import ray

        return float(ray.cluster_resources().get(resource, 0.0))

    def free(self, resource: str) -> float:
        """Return how much of "CPU" or "GPU" nothing holds at present."""
        import ray

        return (
            self.total(resource)
            if self.own
            else float(ray.available_resources().get(resource, 0.0))
        )

    def shutdown(self) -> None:
        """End the local Ray, or leave the cluster; leave a Ray alone that this session did not
        start."""
        self._started.close()
        self.own = False

    def __enter__(self) -> RaySession:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()

    def _init(self, ray: Any) -> None:
        ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = (
            False  # as in QUIET, for a Ray that was imported before
        )
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        try:
            with ExitStack() as started:
                if self._address is None:
                    self._start_local(ray, quiet, started)
                else:
                    self._join(ray, quiet, started)
                self._started = started.pop_all()
        except SystemExit as error:  # what Ray, while it starts, makes of SIGTERM
            raise KeyboardInterrupt from error

    def _start_local(self, ray: Any, quiet: Mapping[str, Any], started: ExitStack) -> None:
        _require_loopback()
        # Ray puts sockets below, whose paths may have about 100 characters: /tmp is short.
        short = Path("/tmp")
        with _local_errors(short):
            folder = Scratch("ray", short if os.access(short, os.W_OK) else None)
            started.callback(folder.remove)
            if started.enter_context(_home_within(folder.path)):
                # Kept until this process ends: Ray reads it once, and would never know that of
                # another home.
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            with (
                _importable_in_workers(),
                _environment(dict.fromkeys(ELSEWHERE)),
                _daemons_apart() as daemons,
            ):
                started.callback(_end, daemons)
                started.callback(ray.shutdown)
                ray.init(
                    address="local",
                    num_cpus=self._cpus,
                    num_gpus=self._gpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(folder.path),
                    **quiet,
                )
        self.own = True

    def _join(self, ray: Any, quiet: Mapping[str, Any], started: ExitStack) -> None:
        assert self._address is not None
        _require_listener(self._address)
        folder = Scratch("ray")
        started.callback(folder.remove)
        started.enter_context(_home_within(folder.path))
        env = {
            **(self._runtime_env or {}),
            "env_vars": {**QUIET, **(self._runtime_env or {}).get("env_vars", {})},
        }
        try:
            started.callback(ray.shutdown)
            ray.init(address=self._address, runtime_env=env, **quiet)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(
                f"no Ray cluster could be joined at {self._address!r} ({_first_line(error)}); "
                "check that it runs there, and set RAY_AUTH_MODE=token if it was started with "
                "authentication."
            ) from error


@contextmanager
def _told_when_slow() -> Iterator[None]:
    """Tell the user, where the block takes more than a minute, that Ray is what is waited for."""
    sentence = (
        f"hssl-search: Ray has not started within {SLOW_S:.0f} s; it is still waited for. On a "
        "busy machine that takes long; else look whether the memory is full or a firewall blocks "
        "this machine's own ports, and stop this with Ctrl-C."
    )
    timer = threading.Timer(SLOW_S, print, [sentence], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _local_errors(root: Path) -> Iterator[None]:
    """Raise what keeps a Ray from starting on this machine as a UserError; Ray raises almost
    anything then."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"free some space in {root}."
        elif number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
            remedy = f"it needs a home directory and a {root} that may be written."
        else:
            remedy = (
                "try again, or start a Ray with `ray start --head` and name its address with "
                "--ray-address."
            )
        raise UserError(
            f"Ray did not start on this machine ({_first_line(error)}); {remedy}"
        ) from error


@contextmanager
def _daemons_apart() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start Ray's daemons, within the block, so that no signal that asks this program to stop ends
    them first. Yield the list of them.

    A terminal and `timeout` signal a process group: each daemon gets a session of its own. Slurm
    and systemd signal all processes of a job: the daemons and their workers have these signals
    blocked. Without its daemons Ray waits for a minute, then aborts this process, and study and
    report would never be closed. They end when this process ends them or dies, whatever way it
    dies.
    """
    daemons: list[subprocess.Popen[bytes]] = []
    if not sys.platform.startswith("linux"):  # elsewhere Ray itself ends its daemons by their group
        yield daemons
        return
    from ray._private import services

    before: Any = services.ConsolePopen

    class Daemon(before):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                super().__init__(*args, start_new_session=True, **kwargs)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            daemons.append(self)

        def terminate(self) -> None:  # Ray's polite way to end it is one of the blocked signals
            _kill_group(self)

    services.ConsolePopen = Daemon  # type: ignore[misc]
    try:
        yield daemons
    finally:
        services.ConsolePopen = before  # type: ignore[misc]


def _end(daemons: list[subprocess.Popen[bytes]]) -> None:
    """End the daemons with all that they have started, and wait for it."""
    for daemon in daemons:
        _kill_group(daemon)
        daemon.wait()
    daemons.clear()


def _kill_group(daemon: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(daemon.pid, signal.SIGKILL)


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Give these environment variables these values within the block; None: they are not set."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@contextmanager
def _home_within(folder: Path) -> Iterator[bool]:
    """Have a home directory within the block that may be written: one in the folder where the user
    has none, as in a container. Yield whether it is there."""
    changes: dict[str, str | None] = {}
    if made := not _home_may_be_written():
        (folder / "home").mkdir()
        changes["HOME"] = str(folder / "home")
    try:
        getpass.getuser()
    except (KeyError, OSError):  # no passwd entry: torch asks for the name
        changes["USER"] = str(os.getuid())
    with _environment(changes):
        yield made


def _home_may_be_written() -> bool:
    """Return whether Ray can keep its token in the home directory, or has done so before."""
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return os.access(folder / "auth_token", os.R_OK) or os.access(folder, os.W_OK | os.X_OK)


@contextmanager
def _importable_in_workers() -> Iterator[None]:
    """Let processes that the block starts find this package, also where it is imported from a
    checkout and not installed."""
    root = Path(__file__).parents[4]  # that holds the folder `hssl_search`
    if root in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        yield
        return
    before = os.environ.get("PYTHONPATH")
    with _environment(
        {"PYTHONPATH": os.pathsep.join([str(root), before] if before else [str(root)])}
    ):
        yield


def _require_loopback() -> None:
    """Raise a UserError where this machine cannot reach itself: Ray would try for minutes."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=10).close()
    except OSError as error:
        raise UserError(
            f"this machine does not answer itself at 127.0.0.1 ({error.strerror or error}), which "
            "Ray needs; bring its loopback interface up: ip link set lo up."
        ) from error


def _require_listener(address: str) -> None:
    """Raise a UserError where nothing listens at `host:port`; Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise UserError(
            f"{address!r} is an address for Ray clients, and the search must run on a node of the "
            "cluster; give its host:port, such as 10.0.0.1:6379, or auto."
        )
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(
            f"nothing answers at {address!r} ({error.strerror or error}); check the address of the "
            "Ray cluster."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
