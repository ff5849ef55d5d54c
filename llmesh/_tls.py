"""A server on TCP: what it shows, and how it knows that a call comes from the gateway.

Mutual TLS says only that a client's certificate is of the authority, as every
tool's is. So each call is refused unless the certificate is the gateway's own,
before anything of the call is read.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc

from llmesh._edge import refuse
from llmesh.certificates import GATEWAY, CertificateError, Stamp, read_authority, read_pair, stamp
from llmesh.errors import Unauthenticated

if TYPE_CHECKING:
    from llmesh._edge import Context, Handler

log = logging.getLogger("llmesh.server")

# Where gRPC puts the URIs of the peer's certificate.
_PEER_URIS = "peer_uri"
_REFUSAL = "this tool takes calls from the gateway alone: call it through the mesh"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files, PEM, for a tool that is served over TCP. Read again when they change.

    certificate: the tool's own, then those that vouch for it; it names the
    tool's host. key: its private key. authority: whom the gateway's certificate
    must be of.
    """

    certificate: str | Path
    key: str | Path
    authority: str | Path


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Credentials that ask for a client's certificate, and follow the files. Raises CertificateError."""
    files = _Files(tls)
    # gRPC takes None for "as before"; its types don't know.
    newer = cast("Callable[[], grpc.ServerCertificateConfiguration]", files.newer)
    return grpc.dynamic_ssl_server_credentials(files.read(), newer, require_client_authentication=True)


class _Files:
    """The files, and how they were when they were last read."""

    def __init__(self, tls: Tls) -> None:
        self._paths = Path(tls.certificate), Path(tls.key), Path(tls.authority)
        # Of what was taken up last.
        self._stamp: Stamp = ()
        self._told = ""

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What the files say. Raises CertificateError."""
        # First: what changes while they are read is read again.
        found = stamp(*self._paths)
        certificate, key, authority = self._paths
        pair, believed = read_pair(certificate, key), read_authority(authority)
        # What is refused is judged again: one that is not yet valid will be.
        self._stamp, self._told = found, ""
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], believed)

    def newer(self) -> grpc.ServerCertificateConfiguration | None:
        """What the files say, if they have changed and are right; None to go on as before. Asked at each connection."""
        if stamp(*self._paths) == self._stamp:
            return None
        try:
            newer = self.read()
        except CertificateError as err:
            if str(err) != self._told:
                self._told = str(err)
                log.error("certificates refused", extra={"error": self._told})  # noqa: TRY400 - the message says it all
            return None
        log.info("certificates loaded", extra={"path": str(self._paths[0])})
        return newer


class GatewayOnly(grpc.aio.ServerInterceptor):
    """Refuses every call, known method or not, whose peer's certificate is not the gateway's."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler that looks at the peer before the edge does."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        behaviour = cast(
            "Callable[[object, Context], Awaitable[Any]]",
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream,
        )

        async def answer(request: object, context: Context) -> Any:
            if GATEWAY.encode() not in context.auth_context().get(_PEER_URIS, ()):
                log.warning("call refused: not the gateway", extra={"peer": context.peer()})
                await refuse(context, Unauthenticated(_REFUSAL, reason="NOT_THE_GATEWAY"))
            return await behaviour(request, context)

        return _shaped(handler, answer)


def _shaped(handler: Handler, answer: Callable[[Any, Context], Awaitable[Any]]) -> Handler:
    """The handler with another behaviour; the edge's are all coroutines, whatever the shape of the call."""
    match bool(handler.request_streaming), bool(handler.response_streaming):
        case False, False:
            return grpc.unary_unary_rpc_method_handler(answer)
        case False, True:
            return grpc.unary_stream_rpc_method_handler(answer)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(answer)
        case _:
            return grpc.stream_stream_rpc_method_handler(answer)
