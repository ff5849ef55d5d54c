"""How much one caller can have Envoy hold: connections, calls, headers, and time without a word."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import pytest

from gateway.listener import listener
from gateway.listener.bootstrap import Edge
from llmesh.mesh_file import LimitSettings
from tests import envoy
from tests.e2e.raw import RawConnection, frame
from tests.envoy import Mesh, bearer, mesh, token
from tests.eventually import WITHIN_S, eventually
from tests.hostile.connection import PREFACE

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
MANY = 8


@asynccontextmanager
async def bounded(monkeypatch: pytest.MonkeyPatch, limits: LimitSettings | None = None) -> AsyncGenerator[Mesh]:
    monkeypatch.setattr(envoy, "Edge", partial(Edge, limits=limits or LimitSettings()))
    async with mesh() as running:
        await running.publish(running.tool(SERVICE))
        yield running


def silent(running: Mesh, said: bytes = b"") -> socket.socket:
    """A connection on which this is said, and nothing more."""
    made = socket.create_connection(("127.0.0.1", running.port), timeout=WITHIN_S)
    made.sendall(said)
    return made


def is_ended(connection: socket.socket) -> bool:
    """Whether the other side ends it, rather than wait for ever."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def serves(running: Mesh) -> bool:
    """Whether a new connection is let in, and a call on it answered well."""
    try:
        with RawConnection(running.port) as connection:
            return connection.call(GET, *bearer(token()), body=frame(b"")).get("grpc-status") == "0"
    except OSError:
        return False


async def test_further_connections_than_there_may_be_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bounded(monkeypatch, LimitSettings(connections=MANY)) as running:
        # The first of them is the test's own channel.
        with ExitStack() as open_, RawConnection(running.port) as earlier:
            for _ in range(MANY - 2):
                open_.enter_context(silent(running))

            async def full() -> None:
                with silent(running) as further:
                    assert await asyncio.to_thread(is_ended, further)

            await eventually(full)
            answer = await asyncio.to_thread(earlier.call, GET, *bearer(token()), body=frame(b""))
            assert answer.get("grpc-status") == "0"

        async def room() -> None:
            assert await asyncio.to_thread(serves, running)

        await eventually(room)


# HEADERS on stream 1, without END_HEADERS: `:method: POST`.
BEGUN = PREFACE + bytes(3) + b"\4" + bytes(5) + b"\0\0\1\1\0\0\0\0\1\x83"


async def test_a_connection_that_makes_no_call_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "IDLE_S", 1)
    monkeypatch.setattr(listener, "HEADERS_S", 1)
    async with bounded(monkeypatch) as running:
        with ExitStack() as open_:
            said = (b"", PREFACE[:10], PREFACE, PREFACE + bytes(9), BEGUN)
            idle = [open_.enter_context(silent(running, each)) for each in said]
            ended = await asyncio.gather(*(asyncio.to_thread(is_ended, each) for each in idle))
    assert ended == [True] * len(said)
