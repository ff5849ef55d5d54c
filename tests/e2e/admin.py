"""What Envoy says of itself, on its admin socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

TIMEOUT_S = 60.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


def get(admin_socket: Path, path: str) -> str:
    """The page at the path."""
    connection = _UnixConnection(admin_socket)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def taken_up(admin_socket: Path) -> str:
    """All that Envoy has taken up from the gateway, when, and how often: equal if nothing has come since."""
    dump = json.loads(get(admin_socket, "/config_dump"))
    kept = [each for each in dump["configs"] if not each["@type"].endswith("BootstrapConfigDump")]
    # Endpoints are not in the dump without their health, which changes by itself.
    counts = get(admin_socket, "/stats?filter=update_success")
    return json.dumps(kept, indent=1, sort_keys=True) + counts


def stat(admin_socket: Path, name: str) -> int:
    """One counter or gauge."""
    lines = dict(line.split(": ", 1) for line in get(admin_socket, f"/stats?filter=^{name}$").splitlines() if line)
    return int(lines.get(name, "0"))
