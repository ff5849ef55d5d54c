"""A tool's lease on a place in the mesh: taken when it serves, kept while it does, given back when it stops.

The gateway may come and go. A tool serves on without it, and asks again at
growing intervals until it is back; the log tells each change once.
"""

from __future__ import annotations

import asyncio
import logging
import random
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
_CALL_TIMEOUT_S = 2.0
_RELEASE_TIMEOUT_S = 1.0


class Lease:
    """The lease of one address at the gateway that serves the registry socket."""

    def __init__(self, registry: Path, address: str) -> None:
        """For address ("unix:/path"), at the gateway behind the socket registry."""
        self._target = f"unix:{registry}"
        self._address = address
        self._lease_id = ""
        self._ttl_s = 0.0
        self._told = ""

    @property
    def held(self) -> bool:
        """Whether the gateway has given a lease that it hasn't ended, as far as we know."""
        return bool(self._lease_id)

    async def hold(self) -> None:
        """Take the lease and keep it, until cancelled."""
        retry_s = _RETRY_FIRST_S
        # A channel of its own pool, with short pauses: gRPC would wait up to two minutes.
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.default_authority", "localhost"),
            ("grpc.enable_http_proxy", 0),
        ]
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            stub = RegistryServiceStub(channel)
            while True:
                try:
                    await self._renew_or_register(stub)
                except grpc.aio.AioRpcError as err:
                    self._lose(err)
                    # Spread out, so that a gateway that returns isn't met by all at once.
                    await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 no secret
                    retry_s = min(retry_s * 2, _RETRY_MOST_S)
                else:
                    retry_s = _RETRY_FIRST_S
                    await asyncio.sleep(self._ttl_s / 3)

    async def release(self) -> None:
        """Give the lease back, if there is one; a gateway that is away ends it by itself."""
        if not self._lease_id:
            return
        request = registry_pb2.ReleaseRequest(lease_id=self._lease_id)
        self._lease_id = ""
        async with grpc.aio.insecure_channel(
            self._target, options=[("grpc.default_authority", "localhost")]
        ) as channel:
            try:
                await RegistryServiceStub(channel).Release(request, timeout=_RELEASE_TIMEOUT_S)
            except grpc.aio.AioRpcError as err:
                log.warning("lease not released", extra={"address": self._address, "code": err.code().name})
            else:
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
                return
        register = registry_pb2.RegisterRequest(address=self._address)
        given = await stub.Register(register, timeout=_CALL_TIMEOUT_S)
        self._lease_id, self._ttl_s, self._told = given.lease_id, _seconds(given.ttl), ""
        log.info("lease taken", extra={"address": self._address, "ttl_s": self._ttl_s})

    def _lose(self, err: grpc.aio.AioRpcError) -> None:
        """Forget the lease, and say so once for each reason."""
        code = err.code().name
        facts = {"address": self._address, "code": code, "why": err.details()}
        if self._lease_id:
            self._lease_id = ""
            log.warning("lease lost", extra=facts)
        elif self._told != code:
            log.warning(
                "lease refused" if err.code() is not grpc.StatusCode.UNAVAILABLE else "gateway away", extra=facts
            )
        self._told = code


def _seconds(ttl: Duration) -> float:
    """The ttl in seconds; at least 50 ms, lest a gateway's zero make us spin."""
    return max(ttl.ToMicroseconds() / 1_000_000, 0.05)
