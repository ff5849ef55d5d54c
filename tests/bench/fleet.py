"""A fleet of tools: how soon all can be called, how soon one more can, and what each costs.

The tools' processes run before the clock does; everything else is in it: the
gateway's start, Envoy's bootstrap and start, reflection, admission, and a call
of each tool. CPU time tells a slow machine from a slow mesh.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any as Untyped

import grpc.aio

from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from tests.bench.figures import Figure
from tests.bench.fleet_mesh import Fleet, change_s, fleet

ROUNDS = 3
CHANGES = 5
CALLS = 1500
LARGE, HUGE = 1_000, 10_000
COLD_LIMIT_S = 600
PROGRAMS = ("gateway", "envoy", "tools")
# Between two lists of all tools, which cost the gateway some time of its own.
LIST_PAUSE_S = 1.0


def measure() -> list[Figure]:
    """The figures of a fleet of 1,000 and of one of 10,000."""
    empty_mib = _uncalled_envoy_mib(0)
    held_kib = (_uncalled_envoy_mib(LARGE) - empty_mib) * 1024 / LARGE
    rounds = [_large(empty_mib) for _ in range(ROUNDS)]
    with fleet(HUGE) as huge:
        huge.start()
        asyncio.run(_until_listed(huge))
        hugely = _changes(huge)
    return [
        *(_middle(each) for each in zip(*rounds, strict=True)),
        Figure("envoy_kb_per_tool", held_kib, "KiB", 70),
        *_named("fleet10000", hugely, target_ms=250),
    ]


def _middle(figures: Sequence[Figure]) -> Figure:
    """The median of one figure's rounds."""
    first = figures[0]
    return Figure(first.name, median(each.value for each in figures), first.unit, first.target, first.comparison)


def _uncalled_envoy_mib(count: int) -> float:
    """What Envoy holds of so many tools that nobody has called."""
    with fleet(count) as uncalled:
        uncalled.start()
        asyncio.run(_until_listed(uncalled))
        return uncalled.memory_mib("envoy")


def _large(empty_mib: float) -> list[Figure]:
    """One round with 1,000 tools, each time on a new mesh."""
    with fleet(LARGE) as large:
        with _cpu(large) as spent:
            began_s = time.monotonic()
            large.start()
            asyncio.run(asyncio.wait_for(large.until_callable(range(LARGE)), COLD_LIMIT_S))
            cold_s = time.monotonic() - began_s
        called_mib, gateway_mib = large.memory_mib("envoy"), large.memory_mib("gateway")
        last_vs_first = asyncio.run(_last_vs_first(large))
        changed = _named("fleet1000", _changes(large), target_ms=100)
    return [
        Figure("fleet1000_cold_start_s", cold_s, "s", 5),
        *(Figure(f"fleet1000_cold_start_{name}_cpu_s", spent[name], "CPU-s") for name in PROGRAMS),
        *changed,
        Figure("fleet1000_last_vs_first", last_vs_first, "ratio", 1.1),
        Figure("envoy_kb_per_called_tool", (called_mib - empty_mib) * 1024 / LARGE, "KiB"),
        Figure("gateway_mb_1000", gateway_mib, "MiB", 300),
    ]


def _named(name: str, changes: tuple[float, int], *, target_ms: float) -> list[Figure]:
    milliseconds, failed = changes
    return [
        Figure(f"{name}_change_ms", milliseconds, "ms", target_ms),
        Figure(f"{name}_change_failed_calls", failed, "calls", 0),
    ]


@contextmanager
def _cpu(running: Fleet) -> Generator[dict[str, float]]:
    """CPU time that each program takes within the block."""
    spent = {"gateway": 0.0, "envoy": 0.0, "tools": running.cpu_s("tools")}
    yield spent
    for name, before in spent.items():
        spent[name] = running.cpu_s(name) - before


def _changes(running: Fleet) -> tuple[float, int]:
    """Milliseconds until a tool that is added can be called, the median; and the others' calls that failed."""

    async def changing() -> tuple[float, int]:
        ended = asyncio.Event()
        others = asyncio.create_task(running.failures(ended))
        spans = [await change_s(running, running.count + number) for number in range(CHANGES)]
        ended.set()
        return 1000 * median(spans), await others

    return asyncio.run(changing())


async def _last_vs_first(running: Fleet) -> float:
    """How long a call of the last tool takes, as a part of one of the first: medians of calls that take turns."""
    spans: dict[int, list[float]] = {0: [], running.count - 1: []}
    async with running.channel() as channel:
        for _ in range(CALLS):
            for number, taken in spans.items():
                began_s = time.perf_counter()
                await running.call(channel, number)
                taken.append(time.perf_counter() - began_s)
    return median(spans[running.count - 1]) / median(spans[0])


async def _until_listed(running: Fleet) -> None:
    """Return when the catalog shows every tool, which it does once Envoy routes it."""
    async with asyncio.timeout(COLD_LIMIT_S), running.channel() as channel:
        stub = CatalogServiceStub(channel)
        while await _listed(stub, running) < running.count:  # noqa: ASYNC110 - what another process does has no event
            await asyncio.sleep(LIST_PAUSE_S)


async def _listed(stub: Untyped, running: Fleet) -> int:
    """How many of the fleet's tools the catalog shows; -1 if it does not answer."""
    found, token = 0, ""
    while True:
        request = catalog.ListToolsRequest(page_size=1000, page_token=token)
        try:
            page = await stub.ListTools(request, metadata=running.bearer, timeout=10)
        except grpc.aio.AioRpcError:
            return -1
        found += sum(tool.service.startswith("acme.") for tool in page.tools)
        token = page.next_page_token
        if not token:
            return found
