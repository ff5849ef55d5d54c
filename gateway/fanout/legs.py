"""The mesh's own calls of tools: through Envoy's private listener, where all that holds for callers holds for them.

One connection for all of them, so that Envoy and gRPC write much at once.
Whatever would end that connection would end everybody's calls; `release` sees
to it that giving up calls does not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any as Untyped

import grpc
import grpc.aio

from gateway.fanout.allowances import YOUNG_S, Allowance, resets
from llmesh.errors import OverQuota

__all__ = ["Call", "Leg", "Legs", "Metadata"]

Metadata = Sequence[tuple[str, str | bytes]]
# Bytes in, bytes out. What gRPC declares as Any: no type is known here.
Call = grpc.aio.UnaryUnaryCall[Untyped, Untyped] | grpc.aio.UnaryStreamCall[Untyped, Untyped]

# A response as large as the mesh's largest message has no room in a message of its own.
RESPONSE_MAX_BYTES = (16 << 20) - (64 << 10)
_OPTIONS = (
    ("grpc.max_receive_message_length", RESPONSE_MAX_BYTES),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.absolute_max_metadata_size", 64 << 10),
    # What a stream that nobody reads may have sent ahead. By default, gRPC takes several times as much as it is asked
    # for: 64 streams of 100 MB each, to a slow reader, came to 560 MB.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 16),
    # Envoy is started anew within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
# Calls under way at one time, those included that were given up and have not ended yet.
OF_A_CALLER = 1024
OF_A_TOOL = 512
RETRY_AFTER_S = 1.0
# How long a call whose time is up may take to be ended by Envoy, which ends it just then.
EXPIRY_S = 0.25


@dataclass(eq=False, slots=True)
class Leg:
    """One call. began_s: by the loop's clock. answered: it has given a response."""

    call: Call
    began_s: float
    answered: bool = False
    # Set while it is to be cancelled later.
    cancelling: asyncio.TimerHandle | None = None


@dataclass(eq=False, slots=True)
class Legs:
    """All legs of this process. socket: the private listener's. resets: of young legs that are broken off."""

    socket: Path
    resets: Allowance = field(default_factory=resets)
    _channel: grpc.aio.Channel = field(init=False)
    # Those that have not ended, given up or not.
    _open: set[Leg] = field(default_factory=set[Leg])
    _of_callers: Counter[object] = field(default_factory=Counter[object])
    _of_tools: Counter[object] = field(default_factory=Counter[object])
    # Those that read streams.
    _readers: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        """Nothing is connected before the first call."""
        self._channel = grpc.aio.insecure_channel(f"unix:{self.socket}", options=_OPTIONS)

    @property
    def count(self) -> int:
        """How many have not ended, those included that were given up."""
        return len(self._open)

    async def close(self) -> None:
        """End every leg, and the connection."""
        await self._channel.close(None)

    def check_room(self, caller: object, count: int) -> None:
        """Raise OverQuota if so many more would be more than a caller may have under way."""
        if self._of_callers[caller] + count > OF_A_CALLER:
            message = (
                f"more than {OF_A_CALLER} branches of your fan-outs would be under way: wait until some have ended"
            )
            raise OverQuota(message, retry_after_s=RETRY_AFTER_S, quota="branches of a caller")

    def start(
        self,
        path: str,
        request: bytes,
        metadata: Metadata,
        *,
        streams: bool,
        caller: object,
        ended: Callable[[Leg], None],
    ) -> Leg:
        """Call a method. streams: whether it answers with a stream. ended: told once when the leg is over.

        Raises OverQuota if the tool has as many legs as it may.
        """
        tool = path.rpartition("/")[0]
        if self._of_tools[tool] >= OF_A_TOOL:
            message = f"{OF_A_TOOL} branches of fan-outs to `{tool[1:]}` are under way"
            raise OverQuota(message, retry_after_s=RETRY_AFTER_S, quota="branches of a tool")
        # Without types: what is sent and given are bytes.
        channel: Untyped = self._channel
        method = channel.unary_stream(path) if streams else channel.unary_unary(path)
        leg = Leg(method(request, metadata=metadata, wait_for_ready=True), asyncio.get_running_loop().time())
        self._open.add(leg)
        self._of_tools[tool] += 1
        self._of_callers[caller] += 1

        def end(_: object) -> None:
            self._end(leg)
            _decrease(self._of_tools, tool)
            _decrease(self._of_callers, caller)
            ended(leg)

        leg.call.add_done_callback(end)
        return leg

    def keep(self, reader: asyncio.Task[None]) -> None:
        """Hold a task that reads a leg's stream; it ends with the leg."""
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    def _end(self, leg: Leg) -> None:
        self._open.discard(leg)
        if leg.cancelling is not None:
            leg.cancelling.cancel()
        if not leg.call.cancelled():
            self.resets.earn()

    def release(self, leg: Leg, *, expired: bool = False) -> None:
        """Give a leg up: it is cancelled now, or once that harms no other. expired: its time is up."""
        if leg.call.done():
            return
        loop = asyncio.get_running_loop()
        age_s = loop.time() - leg.began_s
        if expired:
            leg.cancelling = loop.call_later(EXPIRY_S, self.release, leg)
        elif leg.answered or age_s > YOUNG_S or self.resets.use():
            _cancel(leg.call)
        else:
            leg.cancelling = loop.call_later(YOUNG_S - age_s, _cancel, leg.call)


def _decrease(counter: Counter[object], key: object) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _cancel(call: Call) -> None:
    # `call.cancel()` also cancels the task that waits for the answer, and gRPC then keeps 0.9 KB of each call for ever
    # (grpc/grpc#43360, 1.85).
    untyped: Untyped = call
    untyped._cython_call.cancel("not needed any more")  # noqa: SLF001
