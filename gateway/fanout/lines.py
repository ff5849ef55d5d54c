"""Callers' connections to Envoy, by which their branches go.

Each caller has their own, so that much is written at once. None is shared:
what ends a connection, to Envoy or from Envoy to a tool, ends every call on
it (docs/adr/014).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from gateway.fanout.allowances import Allowance, resets
from gateway.http2.wire import Wire

__all__ = ["RESPONSE_MAX_BYTES", "Line", "Lines"]

# With what is told beside it, a response fits a message of 4 MiB, the most that gRPC's clients take of themselves.
RESPONSE_MAX_BYTES = (4 << 20) - (256 << 10)
IDENTITY_ONLY = 1
_OPTIONS = (
    ("grpc.max_receive_message_length", RESPONSE_MAX_BYTES),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.absolute_max_metadata_size", 64 << 10),
    # Nothing that unpacks to more than was received.
    ("grpc.compression_enabled_algorithms_bitset", IDENTITY_ONLY),
    # gRPC keeps what it could not read of one answer in the table that later ones refer to: one tool's malformed
    # trailers would fail every branch after them.
    ("grpc.http2.hpack_table_size.decoder", 0),
    # What a stream that nobody reads may have sent ahead. By default, gRPC takes several times as much as it is asked
    # for: 64 streams of 100 MB each, to a slow reader, came to 560 MB.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 16),
    # Envoy is started anew within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # gRPC would have channels that are alike share a connection.
    ("grpc.use_local_subchannel_pool", 1),
)
# How long connections stay that have no calls.
IDLE_S = 10.0


@dataclass(eq=False, slots=True)
class Line:
    """One caller's connections. wire: for one answer to a call. channel: for streams.

    wire_resets, channel_resets: of young legs on each that are broken off.
    """

    wire: Wire
    channel: grpc.aio.Channel
    wire_resets: Allowance
    channel_resets: Allowance
    # Calls that have not ended.
    open: int = 0
    # Set while it has none.
    closing: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """End every call, and the connections."""
        await self.wire.close()
        await self.channel.close(None)


@dataclass(eq=False, slots=True)
class Lines:
    """All lines of this process. socket: the private listener's. resets: what each connection may have broken off."""

    socket: Path
    resets: Callable[[], Allowance] = resets
    _lines: dict[Hashable, Line] = field(default_factory=dict[Hashable, Line])
    _closing: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._lines)

    def take(self, caller: Hashable) -> Line:
        """The caller's line, for one call more. Nothing is connected before the first one."""
        line = self._lines.get(caller)
        if line is None:
            channel = grpc.aio.insecure_channel(f"unix:{self.socket}", options=_OPTIONS)
            line = self._lines[caller] = Line(Wire(self.socket), channel, self.resets(), self.resets())
        if line.closing is not None:
            line.closing.cancel()
            line.closing = None
        line.open += 1
        return line

    def give_back(self, caller: Hashable, line: Line) -> None:
        """One of its calls has ended."""
        line.open -= 1
        # A line that was closed meanwhile is nobody's any more.
        if not line.open and self._lines.get(caller) is line:
            line.closing = asyncio.get_running_loop().call_later(IDLE_S, self._close, caller)

    def _close(self, caller: Hashable) -> None:
        closing = asyncio.create_task(self._lines.pop(caller).close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End every call, and the connections: nothing of them is left when this returns."""
        lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            if line.closing is not None:
                line.closing.cancel()
            await line.close()
        if self._closing:
            await asyncio.wait(self._closing)
