"""Envoy's own administration, on a socket in the mesh directory."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

__all__ = ["ask_envoy"]

TIMEOUT_S = 2.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


def ask_envoy(admin: Path, page: str, *, method: str = "GET") -> bytes | None:
    """A page of Envoy's admin socket; None if it doesn't answer, or not with that. Waits for seconds at most."""
    connection = _Connection(admin)
    try:
        connection.request(method, page)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == http.client.OK else None
