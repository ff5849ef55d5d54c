"""Calls to servers that nobody vouches for yet: the channel and its traps."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import grpc
import grpc.aio

from gateway.discovery.refusal import Refusal

__all__ = ["as_sent", "open_channel", "read_next"]

Request = TypeVar("Request")

# 2^31 - 1: never, in options that count milliseconds.
NEVER_MS = 2147483647
IDENTITY_ONLY = 1


def open_channel(address: str, *, message_bytes: int) -> grpc.aio.Channel:
    """A channel of its own to one endpoint. message_bytes: the largest message it receives."""
    options = (
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
    return grpc.aio.insecure_channel(address, options=options)


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
