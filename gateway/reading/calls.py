"""Calls to servers that nobody vouches for yet: the channel and its traps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import grpc
import grpc.aio

from gateway.reading.refusal import Refusal, Unreachable

__all__ = [
    "Credentials",
    "as_sent",
    "ask_once",
    "no_credentials",
    "open_channel",
    "read_next",
    "tls_failure",
    "until_lost",
]

Request = TypeVar("Request")

WHY_S = 1.0
_NOT_VERIFIED = "CERTIFICATE_VERIFY_FAILED"
# What gRPC says of a handshake that failed, and what that means; the first that fits.
_TLS_FAILURES = (
    (
        _NOT_VERIFIED,
        "CERTIFICATE_NOT_BELIEVED",
        "the certificate at {address} is not believed ({told}): it must be of an authority in `tool_tls`, and in force",
    ),
    (
        "Hostname Verification",
        "CERTIFICATE_OF_ANOTHER",
        "the certificate at {address} does not name `{name}`, the endpoint's `tls_name`",
    ),
    (
        "Socket closed",
        "TLS_REFUSED",
        "{address} ended the TLS handshake: it does not believe the mesh's certificate, or needs another one",
    ),
    ("andshake failed", "NO_TLS", "{address} does not speak TLS as the mesh does: serve it with `tls=`"),
)
# 2^31 - 1: never, in options that count milliseconds.
NEVER_MS = 2147483647
IDENTITY_ONLY = 1


# How the gateway calls over TLS, now; None: it cannot.
Credentials = Callable[[], grpc.ChannelCredentials | None]


def no_credentials() -> None:
    """There is no TLS."""


def open_channel(
    address: str, *, message_bytes: int, tls_name: str = "", credentials: Credentials = no_credentials
) -> grpc.aio.Channel:
    """A channel of its own to one endpoint. message_bytes: the largest message it receives.

    tls_name: what the endpoint's certificate must name; empty for no TLS. Raises Unreachable if there are no
    credentials for it.
    """
    options: tuple[tuple[str, int | str], ...] = (
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_metadata_size", 16 << 10),
        # A connection that is shared with another channel shares its back-off.
        ("grpc.use_local_subchannel_pool", 1),
        # A quiet channel must not look like a dead server.
        ("grpc.client_idle_timeout_ms", NEVER_MS),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        # The name of a host says nothing about how to call it.
        ("grpc.service_config_disable_resolution", 1),
        # Nothing that unpacks to more than was received.
        ("grpc.compression_enabled_algorithms_bitset", IDENTITY_ONLY),
    )
    if not tls_name:
        return grpc.aio.insecure_channel(address, options=options)
    shown = credentials()
    if shown is None:
        raise Unreachable("NO_CREDENTIALS", "the mesh has no certificate to show: see `tool_tls` in the mesh file")
    return grpc.aio.secure_channel(address, shown, options=(*options, ("grpc.ssl_target_name_override", tls_name)))


async def ask_once(
    path: str,
    request: bytes,
    address: str,
    *,
    message_bytes: int,
    timeout_s: float,
    tls_name: str,
    credentials: Credentials,
) -> bytes:
    """The answer to one call, as it came; the rest as for `open_channel`. Raises AioRpcError, Unreachable."""
    async with open_channel(
        address, message_bytes=message_bytes, tls_name=tls_name, credentials=credentials
    ) as channel:
        ask = channel.unary_unary(path, request_serializer=as_sent, response_deserializer=as_sent)
        return await ask(request, timeout=timeout_s)


async def until_lost(channel: grpc.aio.Channel) -> None:
    """Return when the channel, which is connected, no longer is."""
    while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
        await channel.wait_for_state_change(state)


async def tls_failure(channel: grpc.aio.Channel, *, address: str, tls_name: str) -> Unreachable:
    """Why no connection over TLS came about, of a channel that has just failed to make one."""
    try:
        # It is told to calls alone; this one fails at once.
        await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=WHY_S)
    except grpc.aio.AioRpcError as err:
        words = err.details() or ""
    else:
        words = ""
    for sign, reason, message in _TLS_FAILURES:
        if sign in words:
            told = words.rpartition(f"{sign}: ")[2].removesuffix(": OK") if sign == _NOT_VERIFIED else ""
            return Unreachable(reason, message.format(address=address, name=tls_name, told=told))
    return Unreachable("UNREACHABLE", f"nothing answers at {address}: start the tool, or take the endpoint out")


async def read_next(
    call: grpc.aio.UnaryStreamCall[Request, bytes],
) -> bytes:
    """The next message. Raises AioRpcError for a failure, Refusal if the stream ended or was cancelled by the peer."""
    try:
        answer = await call.read()
    except asyncio.CancelledError as err:
        raise _cancelled(err) from err
    if not isinstance(answer, bytes):
        raise Refusal("NO_ANSWER", "the server ended the stream without an answer")
    return answer


def as_sent(content: bytes) -> bytes:
    """A message as it came: decoding is ours, so that a broken one is an error like any other."""
    return content


def _cancelled(err: asyncio.CancelledError) -> BaseException:
    """What a cancellation means: grpc.aio raises it also where the *peer* ended the call with CANCELLED."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return err
    return Refusal("NO_ANSWER", "the server cancelled the call")
