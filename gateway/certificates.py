"""The mesh's certificates: read from their files, judged, watched.

A change takes effect only if it is right; otherwise the last good ones stay,
and what is wrong is told. Keys are kept nowhere but in memory, here and in Envoy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import grpc
from google.protobuf.message import Message

from gateway.clock import Clock
from gateway.snapshot import tls
from llmesh.certificates import GATEWAY, CertificateError, Pair, Stamp, read_authority, read_pair, stamp
from llmesh.home import Home, write_atomically
from llmesh.mesh_file import TlsSettings, ToolTlsSettings

log = logging.getLogger(__name__)

POLL_S = 0.5


class Certificates:
    """What the mesh port shows, what tools are shown, and whom tools' certificates must be of."""

    def __init__(self, port: TlsSettings | None, tools: ToolTlsSettings | None, home: Home) -> None:
        """Read what there is. port, tools: None where the mesh file says nothing of it."""
        self._port_files = port
        self._tool_files = tools
        self._home = home
        self._port: Pair | None = None
        self._tools: Pair | None = None
        self._authority = b""
        self._stamp: Stamp = ()
        # What the disk has.
        self._kept: dict[Path, bytes] = {}
        self.error = ""
        self._load()

    @property
    def over_tls(self) -> bool:
        """Whether tools can be called over TLS."""
        return self._tool_files is not None

    @property
    def secrets(self) -> Mapping[str, Message]:
        """What Envoy is to have, by name."""
        found: dict[str, Message] = {}
        if self._port:
            found[tls.PORT] = tls.certificate(tls.PORT, self._port.certificate, self._port.key)
        if self._tools:
            found[tls.TOOLS] = tls.certificate(tls.TOOLS, self._tools.certificate, self._tools.key)
            found[tls.TOOLS_AUTHORITY] = tls.authority(tls.TOOLS_AUTHORITY, self._authority)
        return found

    def credentials(self) -> grpc.ChannelCredentials | None:
        """How the gateway itself calls tools over TLS; None if it cannot."""
        if self._tools is None:
            return None
        return grpc.ssl_channel_credentials(self._authority, self._tools.key, self._tools.certificate)

    async def watch(self, clock: Clock) -> AsyncGenerator[None]:
        """Once for each change that was taken up."""
        while True:
            await clock.sleep(POLL_S)
            held = (self._port, self._tools, self._authority)
            # A disk that is slow must not keep all else waiting.
            await asyncio.to_thread(self._look)
            if held != (self._port, self._tools, self._authority):
                log.info("certificates loaded")
                yield

    def _look(self) -> None:
        if self.error or self._ended() or stamp(*self._paths()) != self._stamp:
            self._load()

    def _paths(self) -> list[Path]:
        return [path for files in (self._port_files, self._tool_files) if files for _, path in files]

    def _ended(self) -> bool:
        now = datetime.now(UTC)
        return any(now > pair.ends for pair in (self._port, self._tools) if pair)

    def _load(self) -> None:
        """Take up what is right, and tell what is not."""
        self._stamp = stamp(*self._paths())
        errors: list[str] = []
        for load in (self._load_port, self._load_tools):
            try:
                load()
            except CertificateError as error:
                errors.append(str(error))
        self._tell("; ".join(errors))

    def _load_port(self) -> None:
        # Kept for clients on this machine, who need no authority to know the mesh of their own directory.
        if self._port_files is None:
            self._keep(self._home.port_certificate, b"")
        else:
            self._port = read_port(self._port_files)
            self._keep(self._home.port_certificate, self._port.certificate)

    def _load_tools(self) -> None:
        if self._tool_files is not None:
            self._tools, self._authority = read_tools(self._tool_files)

    def _tell(self, error: str) -> None:
        if error and error != self.error:
            log.error("certificates refused", extra={"error": error})
        self.error = error
        self._keep(self._home.tls_error, error.encode(errors="replace"))

    def _keep(self, path: Path, content: bytes) -> None:
        """Write it, or take it away if there is nothing to say: if the disk lets us."""
        if self._kept.get(path) == content:
            return
        try:
            if content:
                write_atomically(path, content)
            else:
                path.unlink(missing_ok=True)
            self._kept[path] = content
        except OSError:
            log.exception("not kept", extra={"path": str(path)})


def read_port(files: TlsSettings) -> Pair:
    """What the mesh port shows. Raises CertificateError."""
    pair = read_pair(files.certificate, files.key)
    if not pair.hosts:
        raise CertificateError(
            f"the certificate in `{files.certificate}` names no host: clients look for one among its "
            "subject alternative names"
        )
    return pair


def read_tools(files: ToolTlsSettings) -> tuple[Pair, bytes]:
    """What tools are shown, and whom their certificates must be of. Raises CertificateError."""
    pair = read_pair(files.certificate, files.key)
    if GATEWAY not in pair.uris:
        raise CertificateError(
            f"the certificate in `{files.certificate}` does not name the URI {GATEWAY}, by which tools know the gateway"
        )
    return pair, read_authority(files.authority)
