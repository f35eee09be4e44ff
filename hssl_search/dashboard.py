"""Where the Optuna dashboard of a run listens."""

from __future__ import annotations

import errno
import socket

from hssl_search.errors import UserError

HOST, PORT = "127.0.0.1", 8080
TRIED = 100
"""Ports, from the default one on, of which the first free one is taken."""


def find_port(host: str = HOST, asked: int | None = None) -> int:
    """Return the port to listen at: the one that was asked for, else the first free one from the default on.

    Raises:
        UserError: when it is taken, or this machine may not listen there.
    """
    for port in range(PORT, PORT + TRIED) if asked is None else [asked]:
        try:
            _bind(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            remedy = "--port, above 1023" if isinstance(error, PermissionError) else "--host, such as 127.0.0.1 or 0.0.0.0"
            raise UserError(f"the dashboard cannot listen at {host}:{port} ({error.strerror or error}); give another {remedy}.") from error
        return port
    if asked is not None:
        raise UserError(f"port {asked} of {host} is taken by another program; give another --port, or none to have a free one.")
    raise UserError(f"the ports {PORT} to {PORT + TRIED - 1} of {host} are all taken; give a free one as --port.")


def _bind(host: str, port: int) -> None:
    """Listen there for a moment, as the dashboard will: at once after another program has left the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)
