"""What Envoy and the gateway say of themselves, by HTTP on sockets in the mesh directory."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

__all__ = ["STATUS_PAGE", "ask_socket"]

# Of the gateway, on its operations socket.
STATUS_PAGE = "/status"

TIMEOUT_S = 2.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


def ask_socket(path: Path, page: str, *, method: str = "GET") -> bytes | None:
    """A page of the server behind a socket; None if it doesn't answer, or not with that. Waits for seconds at most."""
    connection = _Connection(path)
    try:
        connection.request(method, page)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == http.client.OK else None
