"""Endpoints with different contracts of one service: each method goes only where it exists, and no call fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.catalog import Contract, Endpoint, Tool, Variant
from gateway.snapshot.build import CLUSTER, build
from gateway.snapshot.parts import parts, service_of
from tests.e2e.traffic import Traffic
from tests.envoy import Backend, Mesh, backend_at, bearer, method_of, policy_of, token, tool_of
from tests.gateway.test_control import Controlled, controlled

SERVICE = "acme.support.v1.Tickets"
OLD, NEW = f"/{SERVICE}/Old", f"/{SERVICE}/New"
FIRST, SECOND, THIRD = (Contract(letter * 64, ()) for letter in "abc")


def served(*variants: tuple[Contract, tuple[str, ...], tuple[str, ...]]) -> Tool:
    """The tool with these contracts, the largest first: each with its methods, and the addresses that serve it."""
    found = [
        Variant(contract, frozenset(methods), tuple(Endpoint(address, "file") for address in addresses))
        for contract, methods, addresses in variants
    ]
    endpoints = tuple(sorted(endpoint for variant in found for endpoint in variant.endpoints))
    tool = tool_of(SERVICE, "", *(method_of(name) for name in variants[0][1]))
    facts = {"contract": found[0].contract, "endpoints": endpoints, "ready": frozenset(endpoints)}
    return replace(tool, **facts, variants=tuple(found) if len(found) > 1 else ())


def test_a_method_goes_where_it_exists() -> None:
    tool = served(
        (THIRD, ("A", "B", "C"), ("unix:/c",)), (SECOND, ("A", "B"), ("unix:/b",)), (FIRST, ("A",), ("unix:/a",))
    )
    only, some = parts(tool)
    assert (only.methods, [each.address for each in only.endpoints]) == ({"C"}, ["unix:/c"])
    assert (some.methods, [each.address for each in some.endpoints]) == ({"B"}, ["unix:/b", "unix:/c"])
    assert build({SERVICE: tool}, policy_of())[CLUSTER].keys() == {SERVICE, only.name, some.name}
    assert {service_of(name) for name in (SERVICE, only.name, some.name)} == {SERVICE}


def test_contracts_with_the_same_methods_need_no_part() -> None:
    assert parts(served((SECOND, ("A",), ("b",)), (FIRST, ("A",), ("a",)))) == ()
    assert parts(served((SECOND, ("A", "B"), ("b",)))) == ()


@asynccontextmanager
async def calling(running: Mesh, path: str) -> AsyncGenerator[Traffic]:
    signed_in = tuple(bearer(token()))
    channel: Any = running.channel
    async with Traffic(lambda: channel.unary_unary(path)(b"", metadata=signed_in, timeout=30), at_once=2) as traffic:
        yield traffic
    assert traffic.failures == {}


async def test_contracts_come_and_go_below_traffic_without_a_failed_call(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made, backend_at(made.mesh.folder / "new.sock") as new:
        old = made.mesh.backend
        both = served((SECOND, ("Old", "New"), (new.address,)), (FIRST, ("Old",), (old.address,)))
        only_old = served((FIRST, ("Old",), (old.address,)))
        only_new = served((SECOND, ("Old", "New"), (new.address,)))
        await change(made, only_old)
        async with calling(made.mesh, OLD) as traffic:
            await change(made, both)
            async with calling(made.mesh, NEW) as more:
                await reached(traffic, new)
                # Rolled out, taken back while the new method has callers, and rolled out again; twice.
                for tool in (only_new, both) * 2:
                    await change(made, tool)
                    await more.more(20)
            await change(made, only_old)
            await traffic.more(20)
        assert made.mesh.refused == []
    assert (old.calls[NEW], new.calls[NEW] > 60) == (0, True)


async def test_a_limit_comes_and_goes_below_traffic_without_a_failed_call(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        free = served((SECOND, ("Old", "New"), (made.mesh.backend.address,)))
        limited = replace(free, methods=(method_of("Old"), method_of("New", max_concurrency=64)))
        await change(made, free)
        async with calling(made.mesh, NEW) as traffic:
            for tool in (limited, free) * 3:
                await change(made, tool)
                await traffic.more(20)
        assert made.mesh.refused == []


async def change(made: Controlled, tool: Tool) -> None:
    """Let the tool be found, and return once it is shown."""
    await made.found.post({SERVICE: tool}, {})
    async with asyncio.timeout(60):
        async for catalog in made.shown.watch():
            if catalog.tools.get(SERVICE) is tool:
                return


async def reached(traffic: Traffic, backend: Backend) -> None:
    """Return once a call has gone to the backend."""
    for _ in range(100):
        if backend.calls[OLD]:
            return
        await traffic.more(5)
    raise AssertionError("no call went there")
