"""Ray for this process: started once, silent, its files in a folder that goes away."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import hssl_search
from hssl_search.errors import UserError

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other program of the machine eat into a budget that is wall-clock
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
OBJECT_STORE_BYTES = 128 * 2**20
"""Only reports and job descriptions go through Ray's object store; images and weights never do."""


class RaySession:
    """A Ray of our own on this machine, or the cluster at an address. Starts once; a Ray that runs already is used and left running.

    Starting a local Ray writes an authentication token to the home directory; to join a cluster at `address` that was started in
    the same way, set `RAY_AUTH_MODE=token` in the environment. Every node of a cluster needs hssl-search installed and must see
    the run folder under the same path.

    Args:
        cpus, gpus: what a local Ray may use; None: all there is. Not for a cluster, which knows its own.
        runtime_env: passed to Ray, for a cluster without the package: `{"py_modules": [hssl_search]}`.
    """

    def __init__(
        self, cpus: int | None = None, gpus: int | None = None, address: str | None = None, runtime_env: dict[str, Any] | None = None
    ) -> None:
        self._cpus = cpus
        self._gpus = gpus
        self._address = address
        self._runtime_env = runtime_env
        self._started = False
        self._folder: Path | None = None

    def start(self) -> RaySession:
        """Start or join Ray, about 5 seconds. UserError when there is no cluster at the address."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray

            if not ray.is_initialized():
                self._init(ray)
                self._started = True
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        return self

    def total(self, resource: str) -> float:
        """How much of "CPU" or "GPU" all machines together have."""
        import ray

        return float(ray.cluster_resources().get(resource, 0.0))

    def shutdown(self) -> None:
        """End the local Ray, or leave the cluster. Does nothing to a Ray that this session did not start."""
        if self._started:
            import ray

            ray.shutdown()
            self._started = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> RaySession:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()

    def _init(self, ray: Any) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        if self._address is None:
            self._folder = _short_folder()
            with _importable_in_workers(), _local_errors(self._folder):
                ray.init(
                    num_cpus=self._cpus,
                    num_gpus=self._gpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(self._folder),
                    **quiet,
                )
            return
        _require_listener(self._address)
        env = {**(self._runtime_env or {}), "env_vars": {**QUIET, **(self._runtime_env or {}).get("env_vars", {})}}
        try:
            ray.init(address=self._address, runtime_env=env, **quiet)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(
                f"no Ray cluster could be joined at {self._address!r} ({_first_line(error)}); check that it runs there, and set "
                "RAY_AUTH_MODE=token if it was started with authentication."
            ) from error


@contextmanager
def _local_errors(folder: Path) -> Iterator[None]:
    """Within: what keeps a Ray from starting on this machine becomes a UserError; Ray raises almost anything then."""
    try:
        yield
    except Exception as error:
        raise UserError(f"Ray did not start on this machine ({_first_line(error)}); it needs a home directory and a {folder.parent} that "
                        "may be written and have some space.") from error


@contextmanager
def _importable_in_workers() -> Iterator[None]:
    """Within: processes started find this package, also when it is imported from a checkout and not installed."""
    root = Path(hssl_search.__path__[0]).parent
    before = os.environ.get("PYTHONPATH")
    if root not in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(root), before] if before else [str(root)])
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH", None)
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _short_folder() -> Path:
    """A new temporary folder with a short path: Ray puts sockets below it, and their paths may have about 100 characters."""
    short = Path("/tmp")
    return Path(tempfile.mkdtemp(prefix="hssl-ray-", dir=short if os.access(short, os.W_OK) else None))


def _require_listener(address: str) -> None:
    """UserError when nothing listens at `host:port`; Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise UserError(f"{address!r} is an address for Ray clients, and the search must run on a node of the cluster; give its host:port, "
                        "such as 10.0.0.1:6379, or auto.")
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"nothing answers at {address!r} ({error.strerror or error}); check the address of the Ray cluster.") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
