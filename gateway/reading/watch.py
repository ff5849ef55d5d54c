"""The life of one endpoint: connect, look, stay until it is lost, come back.

A contract can change only where the process behind the address does, so an
endpoint is looked at anew at each connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import grpc
import grpc.aio

from gateway.catalog import Endpoint, Step
from gateway.clock import Clock
from gateway.reading.calls import Credentials, no_credentials, open_channel, tls_failure, until_lost
from gateway.reading.candidate import Candidate
from gateway.reading.contracts import read_contracts
from gateway.reading.health import Health, health_checked, watch_health
from gateway.reading.pinned import pinned
from gateway.reading.reflect import Limits, Reading
from gateway.reading.refusal import Refusal, Unreachable
from gateway.tally import Tally

__all__ = ["Lanes", "Look", "Observer", "Watcher"]

log = logging.getLogger(__name__)

# A lost connection may be a server that closes old ones: it has this long to
# take a new one before it counts as down.
GRACE_S = 0.2
CONNECT_S = 5.0
BACK_OFF_S = (0.05, 2.0)
# What fails to reflect and stays connected is asked again after the first, then ever less often.
ASK_AGAIN_S = (1.0, 30.0)
# Reasons that say nothing of what the endpoint serves.
UNSURE = ("TIMEOUT", "NO_ANSWER", "REFLECTION_FAILED", "INTERNAL")
UNPROTECTED = "unprotected transport: plain TCP"
# A connection that ends sooner than this was never a good one.
STEADY_S = 1.0
# Who changes its contracts so often in so short a time is left alone for a while.
CHANGES_MAX = 5
CHANGES_S = 60.0
UNSTABLE_S = 30.0


class Lanes:
    """How many endpoints are looked at at one time, shared by all watchers.

    Who takes long in the quick lane goes on beside it while there is room,
    and else goes on in the slow one, in turn: nobody waits for a server that hangs.
    """

    def __init__(self, at_once: int, quick_s: float) -> None:
        """Nobody is looked at yet. quick_s: how long a look may stay in the quick lane."""
        self.slow = asyncio.Semaphore(max(1, at_once // 4))
        self.looks = Tally()
        self._quick = asyncio.Semaphore(at_once)
        self._quick_s = quick_s
        self._room = max(1, at_once // 4)

    @asynccontextmanager
    async def quick(self) -> AsyncGenerator[None]:
        """A turn in the quick lane. Raises TimeoutError if it takes long and there is no room beside the lane."""
        await self._quick.acquire()
        beside = False

        def move() -> None:
            nonlocal beside
            if self._room:
                self._room -= 1
                beside = True
                self._quick.release()
            else:
                turn.reschedule(loop.time())

        loop = asyncio.get_running_loop()
        moving = loop.call_later(self._quick_s, move)
        try:
            async with asyncio.timeout(None) as turn:
                yield
        finally:
            moving.cancel()
            if beside:
                self._room += 1
            else:
                self._quick.release()


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an endpoint showed.

    steps: connect, reflect and link. health_checked: services whose health
    the server tells by their names. size_bytes: of all files that it sent.
    """

    candidates: tuple[Candidate, ...]
    steps: tuple[Step, ...]
    live: bool
    health_checked: frozenset[str]
    size_bytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything it serves could be read."""
        return all(step.passed or step.name != "reflect" for step in self.steps)

    @property
    def blind(self) -> bool:
        """Whether it says nothing of what is served: the endpoint as a whole could not be read."""
        return any(not step.passed and step.name == "reflect" and not step.service for step in self.steps)

    @property
    def late(self) -> bool:
        """Whether it took longer than it was given."""
        return any(step.reason == "TIMEOUT" for step in self.steps)

    @property
    def contracts(self) -> frozenset[tuple[str, str]]:
        """Each service with the version of its contract."""
        return frozenset((each.service, each.version) for each in self.candidates)

    @property
    def unread(self) -> frozenset[str]:
        """Services that could not be read this time, which says nothing against them."""
        return frozenset(step.service for step in self.steps if not step.passed and step.reason in UNSURE)


class Observer(Protocol):
    """Is told what becomes of one endpoint."""

    def seen(self, look: Look) -> None:
        """It was looked at."""
        ...

    def lost(self, step: Step) -> None:
        """It does not answer."""
        ...

    def health(self, *, live: bool) -> None:
        """Its own health service says whether it serves."""
        ...


class Watcher:
    """Follows one endpoint for as long as its task runs."""

    def __init__(
        self,
        endpoint: Endpoint,
        observer: Observer,
        *,
        limits: Limits,
        lanes: Lanes,
        clock: Clock,
        credentials: Credentials = no_credentials,
    ) -> None:
        """lanes: shared by all watchers."""
        self._endpoint = endpoint
        self._observer = observer
        self._limits = limits
        self._lanes = lanes
        self._clock = clock
        self._credentials = credentials
        self._late = False
        self._contracts: frozenset[tuple[str, str]] | None = None
        self._changes_s: deque[float] = deque(maxlen=CHANGES_MAX)

    async def run(self) -> None:
        """Follow the endpoint until cancelled."""
        pause_s, longest_s = BACK_OFF_S
        patience_s = CONNECT_S
        while True:
            try:
                await self._visit(patience_s)
            except Unreachable as refusal:
                self._observer.lost(refusal.step("connect"))
                await self._clock.sleep(pause_s)
                pause_s, patience_s = min(2 * pause_s, longest_s), CONNECT_S
            else:
                pause_s, patience_s = BACK_OFF_S[0], GRACE_S
            if self._unstable:
                self._observer.lost(_unstable().step("connect"))
                await self._clock.sleep(UNSTABLE_S)

    async def _visit(self, patience_s: float) -> None:
        """Connect, look, and stay. Returns when a good connection was lost. Raises Unreachable."""
        began_s = self._clock.monotonic_s()
        async with open_channel(
            self._endpoint.address,
            message_bytes=self._limits.message_bytes,
            tls_name=self._endpoint.tls_name,
            credentials=self._credentials,
        ) as channel:
            await _connect(channel, self._endpoint, patience_s)
            lost = False
            again_s, longest_s = ASK_AGAIN_S
            reading = self._new_reading()
            while not lost:
                health = await watch_health(channel)
                look = await self._look_in_turn(channel, health, reading)
                if not look.late:
                    reading = self._new_reading()
                self._note_changes(look)
                self._observer.seen(look)
                lost = await self._stay(channel, health, span_s=None if look.complete else again_s)
                again_s = min(2 * again_s, longest_s)
        if self._clock.monotonic_s() - began_s < STEADY_S:
            raise Unreachable("UNREACHABLE", "the connection was lost at once")

    def _new_reading(self) -> Reading:
        return Reading(self._limits, pinned=pinned())

    async def _look_in_turn(self, channel: grpc.aio.Channel, health: Health | None, reading: Reading) -> Look:
        """Look when it is our turn; who takes long takes turns with its like."""
        look: Look | None = None
        if not self._late:
            with suppress(TimeoutError):
                async with self._lanes.quick():
                    look = await self._look(channel, health, reading)
        if look is None:
            async with self._lanes.slow:
                look = await self._look(channel, health, reading)
        self._late = look.late
        return look

    def _note_changes(self, look: Look) -> None:
        if not look.complete:
            return
        if self._contracts is not None and self._contracts != look.contracts:
            self._changes_s.append(self._clock.monotonic_s())
        self._contracts = look.contracts

    @property
    def _unstable(self) -> bool:
        times = self._changes_s
        return len(times) == CHANGES_MAX and self._clock.monotonic_s() - times[0] < CHANGES_S

    async def _look(self, channel: grpc.aio.Channel, health: Health | None, reading: Reading) -> Look:
        size_bytes = 0
        told = "" if self._endpoint.protected else UNPROTECTED
        steps = [Step("connect", passed=True, message=told)]
        candidates: list[Candidate] = []
        try:
            with self._lanes.looks.timed(self._clock):
                reflected = await reading.go_on(channel)
            size_bytes = reflected.size_bytes
            steps += [Step("reflect", passed=True), *reflected.failures]
            # Linking megabytes of a stranger's contract must not hold up everyone else.
            for read in await asyncio.to_thread(read_contracts, reflected.services, self._endpoint, self._limits):
                if isinstance(read, Candidate):
                    candidates.append(read)
                    steps.append(Step("link", passed=True, service=read.service))
                else:
                    steps.append(read)
        except Unreachable:
            raise
        except Refusal as refusal:
            steps.append(refusal.step("reflect"))
        # The edge to what a stranger sent: whatever it makes of our code stays its own problem.
        except Exception:
            log.exception("endpoint could not be read", extra={"address": self._endpoint.address})
            steps.append(Refusal("INTERNAL", "the gateway failed to read this endpoint; see its log").step("reflect"))
        checked = await health_checked(channel, (each.service for each in candidates))
        live = health is None or health.serving
        return Look(tuple(candidates), tuple(steps), live=live, health_checked=checked, size_bytes=size_bytes)

    async def _stay(self, channel: grpc.aio.Channel, health: Health | None, *, span_s: float | None) -> bool:
        """Wait until the connection is lost (True) or the span has passed (False), passing health on."""
        async with asyncio.TaskGroup() as group:
            following = group.create_task(health.follow(self._tell)) if health is not None else None
            try:
                async with asyncio.timeout(span_s):
                    await until_lost(channel)
            except TimeoutError:
                return False
            finally:
                if following is not None:
                    following.cancel()
        return True

    def _tell(self, serving: bool) -> None:  # noqa: FBT001 - the callback's only word
        self._observer.health(live=serving)


def _unstable() -> Refusal:
    return Refusal(
        "UNSTABLE_CONTRACT",
        f"what it serves changed {CHANGES_MAX} times within {CHANGES_S:g} s: it is looked at again in "
        f"{UNSTABLE_S:g} s; serve one contract for as long as the process lives",
    )


async def _connect(channel: grpc.aio.Channel, endpoint: Endpoint, patience_s: float) -> None:
    """Return when connected. Raises Unreachable."""
    address = endpoint.address
    failure = Unreachable("UNREACHABLE", f"nothing answers at {address}: start the tool, or take the endpoint out")
    try:
        async with asyncio.timeout(patience_s):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                    if endpoint.tls_name:
                        failure = await tls_failure(channel, address=address, tls_name=endpoint.tls_name)
                    raise failure
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise failure from None
