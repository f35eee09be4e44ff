"""The Optuna dashboard of a run, served by this process."""

from __future__ import annotations

import socket
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import BaseStorage

from hssl_search.errors import UserError


class DashboardServer(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, as a page asks for several things at once."""

    daemon_threads = True


class _IPv6DashboardServer(DashboardServer):
    address_family = socket.AF_INET6


def dashboard_server(storage: BaseStorage, artifacts: Path, host: str, port: int) -> DashboardServer:
    """Return a server that listens on `host` and `port` and shows every study of `storage`.

    The program `optuna-dashboard` is not used: it takes the storage's URL as an argument, which
    everyone on the machine can read.

    Args:
        artifacts: the run's folder of artifacts; it need not exist.
        port: 0 for any that is free.

    Raises:
        OSError: where nothing can listen there, such as on a port that is in use.
        UserError: where optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise UserError("optuna-dashboard is not installed; install it: pip install optuna-dashboard.") from None
    # wsgi() is annotated for servers that load it; wsgiref takes the same application.
    application = wsgi(storage, artifact_store=FileSystemArtifactStore(artifacts))
    kind = _IPv6DashboardServer if ":" in host else DashboardServer
    return make_server(host, port, application, server_class=kind)
