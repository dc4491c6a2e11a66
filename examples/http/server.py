"""A server of secure sums over HTTPS: what to copy."""

from __future__ import annotations

import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prism_crypto import SecureSumError
from prism_crypto.drive import Admission, Server


class Desk(BaseHTTPRequestHandler):
    """Who is there, by a token, and what the session that is on says to them; its threads take turns.

    `door` and `session` are set by who starts it.
    """

    door: Admission
    session: Server | None = None
    timeout = 60
    lock = threading.Lock()

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,12}", length) or int(length) > longest(self.session):
            return self.answer(413)
        body = self.rfile.read(int(length))
        if len(body) < int(length):  # cut off on its way: the client sends it again
            return None
        try:
            with self.lock:
                what, _, who = self.path[1:].partition("/")
                said = self.said(what, who, body)
        except (SecureSumError, ValueError):
            return self.answer(403)
        return self.answer(410) if said is None else self.answer(200, said)

    def said(self, what: str, who: str, body: bytes) -> bytes | None:
        if what == "challenge":
            return self.door.challenge(int(who))
        if what == "token":
            return self.door.token(int(who), body).encode()
        peer = self.door.owner(self.headers.get("Authorization"))
        return None if self.session is None else self.session.handle(peer, body, time.monotonic())

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def longest(server: Server | None) -> int:
    """Bytes of the longest request of a session: an upload, or something for each of the others."""
    if server is None:
        return 2**10
    return 2**16 + 2**10 * server.session.invited.count + 8 * server.session.packing.length


def listening(desk: type[Desk], certificate: Path, key: Path) -> ThreadingHTTPServer:
    """On a free port of this machine; who stalls in the handshake is in a thread of its own."""
    http, tls = ThreadingHTTPServer(("127.0.0.1", 0), desk), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    return http
