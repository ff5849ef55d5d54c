"""What becomes of refusals, with an Envoy that refuses what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any as Untyped
from typing import cast

import grpc

from gateway.snapshot.build import CLUSTER, ENDPOINTS, EXTENSION, ROUTES, SCOPE, Resource
from gateway.snapshot.tls import SECRET
from gateway.xds.delta import SERVICE
from gateway.xds.messages import make, message_type, serialize
from gateway.xds.publish import Publisher
from tests.envoy import serve_xds

OLD, NEW, NEWER = Resource("1", b""), Resource("2", b""), Resource("3", b"")
_RESPONSE = "envoy.service.discovery.v3.DeltaDiscoveryResponse"
_REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"


def names_of(response: Untyped) -> list[str]:
    """What one response holds, as name=version; -name for what it removes."""
    sent = [f"{resource.name}={resource.version}" for resource in response.resources]
    return sent + [f"-{name}" for name in response.removed_resources]


class Stub:
    """An Envoy that answers each response. refuses: whether it refuses one; responses: all it got, in order."""

    def __init__(self) -> None:
        self.refuses: Callable[[Untyped], bool] = lambda _: False
        self.responses: list[list[str]] = []
        self.told: list[str] = []
        self.publisher = Publisher(on_refused=lambda name, _: self.told.append(name), on_accepted=self.told.append)

    async def answer(self, stream: Untyped, *subscribed: tuple[str, tuple[str, ...]]) -> None:
        """Ask for these, then for all clusters and scopes, and answer until cancelled."""
        for url, names in (*subscribed, *((each, ()) for each in (CLUSTER, SCOPE))):
            await stream.write(serialize(make(_REQUEST, type_url=url, resource_names_subscribe=names)))
        async for raw in stream:
            response: Untyped = message_type(_RESPONSE).FromString(raw)
            self.responses.append(names_of(response))
            error = {"error_detail": {"code": 3, "message": "no"}} if self.refuses(response) else {}
            answer = make(_REQUEST, type_url=response.type_url, response_nonce=response.nonce, **error)
            await stream.write(serialize(answer))

    async def caught_up(self) -> None:
        """Wait until all that is wanted was answered for."""
        assert await self.publisher.caught_up(within_s=60)


@asynccontextmanager
async def stub(*subscribed: tuple[str, tuple[str, ...]]) -> AsyncGenerator[Stub]:
    made = Stub()
    with TemporaryDirectory(prefix="nack") as folder:
        path = Path(folder) / "xds.sock"
        async with serve_xds(made.publisher, path), grpc.aio.insecure_channel(f"unix:{path}") as channel:
            stream: Untyped = cast("Untyped", channel).stream_stream(f"/{SERVICE}/DeltaAggregatedResources")()
            task = asyncio.create_task(made.answer(stream, *subscribed))
            try:
                yield made
            finally:
                stream.cancel()
                task.cancel()
                await asyncio.wait([task])


async def test_filters_and_secrets_are_sent_one_at_a_time() -> None:
    async with stub((EXTENSION, ("verify", "caller")), (SECRET, ("port", "tools"))) as made:
        for version in (OLD, NEW):
            await made.publisher.publish(
                {EXTENSION: {"verify": version, "caller": version}, SECRET: {"port": version, "tools": version}}
            )
            await made.caught_up()

        assert sorted(made.responses) == sorted(
            [f"{name}={version}"] for name in ("verify", "caller", "port", "tools") for version in (1, 2)
        )


async def test_an_envoy_that_refuses_every_version_is_left_in_peace() -> None:
    async with stub((ROUTES, ("a",))) as made:
        await made.publisher.publish({ROUTES: {"a": OLD}})
        await made.caught_up()
        made.refuses = lambda response: response.type_url == ROUTES
        for version in (NEW, NEWER):
            made.responses.clear()
            await made.publisher.publish({ROUTES: {"a": version}})
            await made.caught_up()
            assert made.responses == [[f"a={version.version}"], *([["a=1"]] if version is NEW else [])]
        assert made.publisher.nacks == 3
        assert made.publisher.refused_names == {"a": False}


async def test_a_removal_that_is_refused_is_tried_again_with_the_next_change() -> None:
    async with stub((ENDPOINTS, ())) as made:
        await made.publisher.publish({CLUSTER: {"a": OLD, "b": OLD}})
        await made.caught_up()
        made.refuses = lambda response: bool(response.removed_resources)
        await made.publisher.publish({CLUSTER: {"b": OLD}})
        await made.caught_up()
        assert made.responses[1:] == [["-a"]]

        made.refuses = lambda _: False
        await made.publisher.publish({CLUSTER: {"b": NEW}})
        await made.caught_up()
        assert made.responses[2:] == [["b=2"], ["-a"]]
