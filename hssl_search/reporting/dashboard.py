"""The Optuna dashboard of a run, served by this process."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer, make_server

from hssl_search.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

HOST, PORT = "127.0.0.1", 8080
TRIED = 100
"""Ports, from the default one on, of which the first free one is taken."""


class DashboardServer(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, as a page asks for several things at once."""

    daemon_threads = True


class _IPv6DashboardServer(DashboardServer):
    address_family = socket.AF_INET6


def dashboard_server(
    storage: BaseStorage, artifacts: Path, host: str = HOST, port: int | None = None
) -> DashboardServer:
    """Return a server that listens on `host` and `port` and shows every study of `storage`.

    The program `optuna-dashboard` is not used: it takes the storage's URL as an argument, which
    everyone on the machine can read.

    Args:
        artifacts: the run's folder of artifacts; it need not exist.
        port: None for the first free one from the default on; 0 for any that is free.

    Raises:
        UserError: where the port is taken, where this machine may not listen there, and where
            optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise UserError(
            "optuna-dashboard is not installed; install it: pip install optuna-dashboard."
        ) from None
    from optuna.artifacts import FileSystemArtifactStore

    # wsgi() is annotated for servers that load it; wsgiref takes the same application.
    application = wsgi(storage, artifact_store=FileSystemArtifactStore(artifacts))
    kind = _IPv6DashboardServer if ":" in host else DashboardServer
    ports = range(PORT, PORT + TRIED) if port is None else [port]
    for tried in ports:
        try:
            return make_server(host, tried, application, server_class=kind)
        # A host that no name server takes is a UnicodeError, a port beyond 65535 an OverflowError.
        except (OSError, OverflowError, UnicodeError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                continue
            remedy = "--host, such as 127.0.0.1 or 0.0.0.0"
            if isinstance(error, OverflowError):
                remedy = "--port, from 1 to 65535"
            elif isinstance(error, PermissionError):
                remedy = "--port, above 1023"
            raise UserError(
                f"the dashboard cannot listen at {host}:{tried} "
                f"({getattr(error, 'strerror', None) or error}); give another {remedy}."
            ) from error
    if port is not None:
        raise UserError(
            f"port {port} of {host} is taken by another program; give another --port, or none to "
            "have a free one."
        )
    raise UserError(
        f"the ports {PORT} to {PORT + TRIED - 1} of {host} are all taken; give a free one as "
        "--port."
    )
