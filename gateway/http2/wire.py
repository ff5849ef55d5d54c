"""Calls to one server, by one connection at a time: made when it is needed, and anew when it has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

from grpc import StatusCode

from gateway.http2.call import Call
from gateway.http2.connection import Connection

__all__ = ["Wire"]

# A server that is gone is there again within a second.
RETRY_FIRST_S, RETRY_LAST_S = 0.05, 0.5


class Wire:
    """Calls to the server at a Unix socket.

    A call is sent once, unless the server says that it has not looked at it: then it is sent once more, if it is still
    wanted. While there is no server, calls wait; whoever starts one cancels it when it has waited too long.
    """

    def __init__(self, socket: Path) -> None:
        """Nothing is connected before the first call."""
        self._socket = socket
        # The one by which calls are sent, and those that are left until the calls on them have ended.
        self._connection: Connection | None = None
        self._open: set[Connection] = set()
        # Not sent yet, in their order.
        self._waiting: dict[Call, None] = {}
        self._connecting: asyncio.Task[None] | None = None

    def start(self, call: Call) -> None:
        """Send a call, now or once that is possible."""
        connection = self._connection
        if connection is not None and not self._waiting and connection.is_open:
            connection.send(call)
            return
        self._waiting[call] = None
        self._go_on()

    def cancel(self, call: Call) -> None:
        """End a call that has not ended."""
        if call in self._waiting:
            del self._waiting[call]
            call.fail(StatusCode.CANCELLED, "not needed any more")
        elif call.bearer is not None:
            call.bearer.cancel(call)

    async def close(self) -> None:
        """End every call, and the connections."""
        waiting, self._waiting = self._waiting, {}
        if self._connecting is not None:
            self._connecting.cancel()
        for call in waiting:
            call.fail(StatusCode.UNAVAILABLE, "the gateway stops")
        for connection in list(self._open):
            await connection.close()

    def _go_on(self) -> None:
        """Send those that wait, as far as that is possible."""
        while self._waiting and self._connection is not None and self._connection.is_open:
            call = next(iter(self._waiting))
            del self._waiting[call]
            self._connection.send(call)
        if self._waiting and self._connection is None and self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        loop, wait_s = asyncio.get_running_loop(), RETRY_FIRST_S
        while self._waiting:
            try:
                await loop.create_unix_connection(lambda: Connection(self), str(self._socket))
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_LAST_S)
            else:
                break
        self._connecting = None
        self._go_on()

    # What connections tell: see `Owner`.

    def made(self, connection: Connection) -> None:
        """Send by it from now on."""
        self._open.add(connection)
        self._connection = connection
        self._go_on()

    def has_room(self, connection: Connection) -> None:
        """Send more by it."""
        if self._waiting and connection is self._connection:
            self._go_on()

    def refused(self, call: Call) -> None:
        """Send it once more."""
        self.start(call)

    def leaving(self, connection: Connection) -> None:
        """Send nothing more by it."""
        if connection is self._connection:
            self._connection = None
        self._go_on()

    def lost(self, connection: Connection) -> None:
        """Connect anew if there is anything to send."""
        self._open.discard(connection)
        self.leaving(connection)
