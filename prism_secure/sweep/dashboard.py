"""Optuna's own page of a study, on this machine alone."""

from __future__ import annotations

import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prism_secure.errors import MissingPackage, pip_install

__all__ = ["serve_dashboard"]


def serve_dashboard(url: str) -> str:
    """Serve the studies of a storage on loopback, until this process ends; the address.

    Raises:
        ConfigError: optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise MissingPackage(f"the dashboard needs a package: {pip_install('dashboard')}") from None
    from prism_secure.sweep.study import open_storage

    server = make_server("127.0.0.1", 0, wsgi(open_storage(url)), handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="dashboard", daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


class _Quiet(WSGIRequestHandler):
    """Requests are no events of a sweep."""

    def log_message(self, format: str, *args: Any) -> None: ...
