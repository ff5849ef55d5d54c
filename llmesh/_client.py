"""A client of the mesh: an ordinary gRPC channel that adds the token and raises the kinds of `llmesh.errors`.

gRPC's own interceptors raise at different moments for each call shape, and
not at all from read(). So the calls are wrapped instead: whatever a call does
is gRPC's own, but for the error that comes out of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import grpc

from llmesh._tracing import calling
from llmesh._tracing import configure as configure_tracing
from llmesh._warnings import hear
from llmesh.errors import DeadlineExceeded, MeshError
from llmesh.fanout import FansOut, Opened
from llmesh.status import error_from_rpc

Metadatum = tuple[str, str | bytes]
# Asked with the path of the method that is called.
Metadata = Callable[[str], Sequence[Metadatum]]
T = TypeVar("T")

DEFAULT_ADDRESS = "127.0.0.1:8700"
# Names a file, PEM: the authorities that vouch for the mesh's certificate.
AUTHORITY_VARIABLE = "LLMESH_AUTHORITY"
_HTTPS = "https://"
# What a header's value may hold of a token: visible ASCII, no space.
_TOKEN = re.compile(r"[!-~]+")
# By so much the mesh may find a deadline passed before its caller does.
_CLOCKS_APART_S = 0.01
_SCHEME = re.compile(r"(?:https://|dns:(?://[^/]*/)?|ipv4:|ipv6:)")
_OPTIONS = (
    # The mesh allows 16 MiB a message by default and more where a contract says so; what it let through is read.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 64 * 1024),
    # What could not be read of one tool's answer would stay in the table that later answers of all tools refer to.
    ("grpc.http2.hpack_table_size.decoder", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
)
# A proxy must never see what is meant for this machine.
_LOCAL_OPTIONS = (("grpc.enable_http_proxy", 0),)
# A socket's path is no host name.
_PLAIN_OPTIONS = (("grpc.default_authority", "localhost"),)


class Mesh(FansOut):
    """The mesh, as one caller: `async with llmesh.Mesh(address, token) as mesh: Stub(mesh.channel)`.

    Calls of the channel's stubs raise a kind of llmesh.MeshError when they
    fail, whatever their shape. What an answer's reader must be told, by its
    provenance, goes to the log `llmesh.client`.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        token: str | Callable[[], str] | None = None,
        *,
        tls: bool = False,
        root_certificates: bytes | None = None,
        server_name: str = "",
    ) -> None:
        """Nothing is opened yet.

        address: "host:port", "https://host:port" or "unix:/path". token: sent
        with each call; a callable is asked each time, so that it can refresh it.
        tls: the same as https. root_certificates: PEM, whom to believe; implies
        tls; if None, those in the file that $LLMESH_AUTHORITY names, else gRPC's
        own. server_name: what the mesh's certificate names; if empty, the
        address's host. Raises ValueError for a token that would travel beyond
        this machine without TLS, or that no header can hold, and for roots that
        cannot be read; what a callable gives raises it where the call is made.
        Whitespace around a token, as a file has it, is no part of it.
        """
        self._address = address.removeprefix(_HTTPS)
        self._token = token if token is None or callable(token) else _bare(token)
        tls = tls or address.startswith(_HTTPS) or root_certificates is not None
        self._credentials = grpc.ssl_channel_credentials(root_certificates or _roots()) if tls else None
        self._server_name = server_name
        if token is not None and self._credentials is None and not is_local(address):
            message = (
                f"a token would travel to `{address}` in the clear: write https://{address}, or pass "
                "root_certificates, or connect to the mesh on this machine"
            )
            raise ValueError(message)
        self._channel: MeshChannel | None = None

    @property
    def channel(self) -> grpc.aio.Channel:
        """What stubs take. Raises RuntimeError outside `async with`."""
        if self._channel is None:
            message = "the mesh is not connected: use `async with llmesh.Mesh(...) as mesh`"
            raise RuntimeError(message)
        return self._channel

    async def __aenter__(self) -> Self:
        """Open the channel; it connects with the first call."""
        configure_tracing()
        self._channel = MeshChannel(self.connect(), metadata=self._metadata)
        return self

    def ways(self) -> tuple[Callable[[], grpc.aio.Channel], Opened]:
        """Its channel, and one that is opened for who runs in no loop."""

        @asynccontextmanager
        async def opened() -> AsyncGenerator[grpc.aio.Channel]:
            async with copy(self) as another:
                yield another.channel

        return (lambda: self.channel), opened

    def connect(self) -> grpc.aio.Channel:
        """A channel of gRPC's own to the mesh, without the token; whoever asks for it closes it."""
        return open_channel(self._address, self._credentials, server_name=self._server_name)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the channel; calls in flight are cancelled."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _metadata(self, _: str) -> Sequence[Metadatum]:
        token = _bare(self._token()) if callable(self._token) else self._token
        return (("authorization", f"Bearer {token}"),) if token else ()


def open_channel(
    address: str, credentials: grpc.ChannelCredentials | None = None, *, server_name: str = ""
) -> grpc.aio.Channel:
    """A channel of gRPC's to the address, with the mesh's limits. server_name: in the certificate, if not the host."""
    local = is_local(address)
    options = (*_OPTIONS, *(_LOCAL_OPTIONS if local else ()))
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=(*options, *(_PLAIN_OPTIONS if local else ())))
    if server_name:
        options = (*options, ("grpc.ssl_target_name_override", server_name))
    return grpc.aio.secure_channel(address, credentials, options=options)


class MeshChannel(grpc.aio.Channel):
    """A channel whose calls carry further metadata, raise MeshError, and log what their answers warn of."""

    def __init__(
        self, inner: grpc.aio.Channel, *, metadata: Metadata, remaining: Callable[[], float | None] = lambda: None
    ) -> None:
        """Wrap inner.

        metadata is asked at each call; a call's own comes after it. remaining:
        the timeout of calls that say none, asked at each; None for none.
        """
        self._inner = inner
        self._metadata = metadata
        self._remaining = remaining

    # gRPC's stubs pass what they like here, each version its own.
    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A method of one request and one response."""
        return self._wrap(_path(*args, **kwargs), self._inner.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A method of one request and a stream of responses."""
        return self._wrap(_path(*args, **kwargs), self._inner.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A method of a stream of requests and one response."""
        return self._wrap(_path(*args, **kwargs), self._inner.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A method of streams both ways."""
        return self._wrap(_path(*args, **kwargs), self._inner.stream_stream(*args, **kwargs))

    def _wrap(self, path: str, method: Callable[..., grpc.aio.Call]) -> Callable[..., _Call]:
        def start(
            *args: object,
            metadata: Iterable[Metadatum] | None = None,
            timeout: float | None = None,
            **kwargs: object,
        ) -> _Call:
            timeout = self._remaining() if timeout is None else timeout
            end = _End(timeout)
            whole = (*self._metadata(path), *(metadata or ()))
            span = calling(path, whole)
            sent = (*whole, *span.metadata()) if span else whole
            call = method(*args, metadata=sent, timeout=timeout, **kwargs)
            call.add_done_callback(end.note)
            call.add_done_callback(partial(hear, path))
            if span:
                call.add_done_callback(span.end)
            return _Call(call, end)

        return start

    async def close(self, grace: float | None = None) -> None:
        """Close; calls in flight have grace seconds, None for none."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 gRPC's own
        """As gRPC's own."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As gRPC's own."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """As gRPC's own."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        """As gRPC's own."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


def _path(method: str, *_: object, **__: object) -> str:
    """The method of a stub's arguments, by its name or its place."""
    return method


class _End:
    """When a call's time is up, and when it was over, which may be long before its failure is read."""

    def __init__(self, timeout_s: float | None) -> None:
        self._deadline = None if timeout_s is None else monotonic() + timeout_s
        self._over: float | None = None

    def note(self, _: object) -> None:
        """The call is over now."""
        self._over = monotonic()

    def is_late(self) -> bool:
        """Whether the call was over as its time was up, or is so now if nobody said that it is over."""
        over = monotonic() if self._over is None else self._over
        return self._deadline is not None and over >= self._deadline - _CLOCKS_APART_S


class _Call:
    """gRPC's call of any shape; its failures are MeshErrors, each caused by gRPC's own error."""

    def __init__(self, call: grpc.aio.Call, end: _End) -> None:
        self._call = cast("Any", call)
        self._end = end

    def __getattr__(self, name: str) -> object:
        """All else is gRPC's own."""
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, object]:
        """The one response."""
        return _told(self._end, self._call).__await__()

    def __aiter__(self) -> AsyncIterator[object]:
        """The responses."""
        return _Responses(self._call, self._end)

    async def read(self) -> object:
        """The next response; grpc.aio.EOF after the last."""
        return await _told(self._end, self._call.read())

    async def write(self, request: object) -> None:
        """Send a request."""
        await self._written(self._call.write(request))

    async def done_writing(self) -> None:
        """Send no more requests."""
        await self._written(self._call.done_writing())

    async def _written(self, writing: Awaitable[None]) -> None:
        try:
            await _told(self._end, writing)
        except asyncio.InvalidStateError as err:
            # gRPC says no more than that the call is over; its status says why.
            call = self._call
            status = (await call.code(), await call.initial_metadata(), await call.trailing_metadata())
            if status[0] is grpc.StatusCode.OK:
                raise
            raise _error(self._end, grpc.aio.AioRpcError(*status, details=await call.details())) from err

    async def wait_for_connection(self) -> None:
        """Return once the call has reached a server."""
        await _told(self._end, self._call.wait_for_connection())


class _Responses:
    def __init__(self, call: Any, end: _End) -> None:
        self._end = end
        self._responses: AsyncIterator[object] = call.__aiter__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        return await _told(self._end, self._responses.__anext__())


async def _told(end: _End, waiting: Awaitable[T]) -> T:
    try:
        return await waiting
    except grpc.aio.AioRpcError as err:
        raise _error(end, err) from err


def _error(end: _End, err: grpc.aio.AioRpcError) -> MeshError:
    """The kind that a failed call is; one that the mesh resets as the time is up is late, not broken."""
    found = error_from_rpc(err)
    reset = err.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in found.message
    if not reset or not end.is_late():
        return found
    late = DeadlineExceeded("the time that the call had is up")
    late.call_id = found.call_id
    return late


def _roots() -> bytes | None:
    """The certificates of the authorities to believe; None for gRPC's own. Raises ValueError."""
    path = os.environ.get(AUTHORITY_VARIABLE, "")
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as err:
        message = f"`{path}`, which {AUTHORITY_VARIABLE} names, cannot be read: {err.strerror}"
        raise ValueError(message) from err


def _bare(token: str) -> str:
    """The token without whitespace around it. Raises ValueError if no header can hold it."""
    bare = token.strip()
    if bare and not _TOKEN.fullmatch(bare):
        message = "the token is none: it holds spaces, line breaks or characters beyond ASCII"
        raise ValueError(message)
    return bare


def is_local(address: str) -> bool:
    """Whether the address is on this machine for certain: a Unix socket, or loopback by number or as "localhost"."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = _SCHEME.sub("", address, count=1).rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
