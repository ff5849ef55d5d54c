"""A tool's lease on a place in the mesh: taken when it serves, kept while it does, given back when it stops.

The gateway may come and go. A tool serves on without it, and asks again at
growing intervals until it is back; the log tells each change once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from llmesh.api.registry.v1 import registry_pb2
from llmesh.api.registry.v1.registry_pb2_grpc import RegistryServiceStub

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from llmesh.api.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub

log = logging.getLogger("llmesh.lease")

_RETRY_FIRST_S = 0.1
_RETRY_MOST_S = 2.0
# How often a gateway is looked for that has no socket.
_LOOK_S = 0.1
_CALL_TIMEOUT_S = 2.0
# The gateway answers when calls are no longer sent to us.
_RELEASE_TIMEOUT_S = 2.0
# Short pauses between attempts to connect: gRPC would wait up to two minutes.
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
)


class Lease:
    """The lease of one address at the gateway that serves the registry socket."""

    def __init__(self, registry: Path, address: str) -> None:
        """For address ("unix:/path"), at the gateway behind the socket registry."""
        self._registry = registry
        self._address = address
        self._lease_id = ""
        self._ttl_s = 0.0
        self._told = ""
        # What of this endpoint is refused, as the log has told: service -> reason.
        self._refused: dict[str, str] = {}
        self._ending = asyncio.Event()
        self._was_released = False

    @property
    def was_released(self) -> bool:
        """Whether a lease was given back, so that calls may still be on their way here."""
        return self._was_released

    def end(self) -> None:
        """Let hold() give the lease back and return."""
        self._ending.set()

    async def hold(self) -> None:
        """Take the lease and keep it until end(); then give it back.

        A call to the gateway is never broken off: it could give a lease that nobody knows of.
        """
        retry_s = _RETRY_FIRST_S
        async with grpc.aio.insecure_channel(f"unix:{self._registry}", options=_OPTIONS) as channel:
            stub = RegistryServiceStub(channel)
            while await self._gateway_is_there():
                try:
                    await self._renew_or_register(stub)
                except grpc.aio.AioRpcError as err:
                    self._lose(err)
                    # Spread out, so that a gateway that returns isn't met by all at once.
                    await self._pause(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 no secret
                    retry_s = min(retry_s * 2, _RETRY_MOST_S)
                else:
                    retry_s = _RETRY_FIRST_S
                    await self._pause(self._ttl_s / 3)
            await self._release(stub)

    async def _gateway_is_there(self) -> bool:
        """Wait for a gateway that has a socket; whether the lease is still wanted then.

        To look for one costs next to nothing. One that was called and is not there is called again ever more seldom.
        """
        while not self._ending.is_set():
            if self._registry.exists():
                return True
            self._tell_away("UNAVAILABLE", f"no gateway has made `{self._registry}` yet")
            await self._pause(_LOOK_S)
        return False

    async def _pause(self, pause_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._ending.wait()

    async def _release(self, stub: RegistryServiceAsyncStub) -> None:
        if not self._lease_id:
            return
        request = registry_pb2.ReleaseRequest(lease_id=self._lease_id)
        try:
            await stub.Release(request, timeout=_RELEASE_TIMEOUT_S)
        except grpc.aio.AioRpcError as err:
            # It ends by itself when its time is over.
            log.warning("lease not released", extra={"address": self._address, "code": err.code().name})
        else:
            self._was_released = True
            log.info("lease released", extra={"address": self._address})

    async def _renew_or_register(self, stub: RegistryServiceAsyncStub) -> None:
        if self._lease_id:
            renew = registry_pb2.RenewRequest(lease_id=self._lease_id)
            try:
                renewed = await stub.Renew(renew, timeout=_CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as err:
                # The gateway ended the lease, or was away so long that it may have. Ask for a new one at once.
                self._lose(err)
            else:
                self._ttl_s = _seconds(renewed.ttl)
                self._tell_refusals(renewed.refusals)
                return
        register = registry_pb2.RegisterRequest(address=self._address)
        given = await stub.Register(register, timeout=_CALL_TIMEOUT_S)
        self._lease_id, self._ttl_s, self._told = given.lease_id, _seconds(given.ttl), ""
        log.info("lease taken", extra={"address": self._address, "ttl_s": self._ttl_s})

    def _tell_refusals(self, refusals: Iterable[registry_pb2.Refusal]) -> None:
        """Say once of each service that it is refused and why, and once that it no longer is."""
        found = {each.service: each for each in refusals}
        for service, each in found.items():
            if self._refused.get(service) != each.reason:
                facts = {"service": service, "step": each.step, "reason": each.reason, "why": each.message}
                log.error("refused by the mesh", extra={"address": self._address, **facts})
        for service in self._refused.keys() - found.keys():
            log.info("no longer refused by the mesh", extra={"address": self._address, "service": service})
        self._refused = {service: each.reason for service, each in found.items()}

    def _lose(self, err: grpc.aio.AioRpcError) -> None:
        """Forget the lease, and say so once for each reason."""
        code = err.code().name
        if self._lease_id:
            self._lease_id = ""
            log.warning("lease lost", extra={"address": self._address, "code": code, "why": err.details()})
            self._told = code
        else:
            self._tell_away(code, err.details() or "")

    def _tell_away(self, code: str, why: str) -> None:
        """Say that there is no lease to be had, once for each reason."""
        if self._told != code:
            event = "gateway away" if code == grpc.StatusCode.UNAVAILABLE.name else "lease refused"
            log.warning(event, extra={"address": self._address, "code": code, "why": why})
        self._told = code


def _seconds(ttl: Duration) -> float:
    """The ttl in seconds; at least 50 ms, lest a gateway's zero make us spin."""
    return max(ttl.ToMicroseconds() / 1_000_000, 0.05)
