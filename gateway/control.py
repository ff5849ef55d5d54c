"""The loop that keeps Envoy in step: every new catalog or policy becomes a snapshot.

Only tools that changed, or whose rules did, are compiled again. A catalog is
shown to callers once Envoy routes it, so a tool that is listed can be called.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing

from gateway.catalog import CatalogBoard, Method, Tool
from gateway.clock import Clock
from gateway.policy import Loaded, PolicyFiles
from gateway.snapshot.build import Resource, Resources, assemble, build_tool, facts
from gateway.xds.publish import Publisher
from governance.bundle import Bundle
from governance.decide import may_be_permitted
from governance.residue import Residue, specialise
from governance.words import Caller

log = logging.getLogger(__name__)

# How long callers wait to see a new catalog when Envoy is away.
SHOW_AFTER_S = 1.0


class Control:
    """Follows the found catalog and the policy files; publishes resources; posts the shown catalog."""

    def __init__(
        self,
        found: CatalogBoard,
        shown: CatalogBoard,
        publisher: Publisher,
        policies: PolicyFiles,
        platform: tuple[Tool, ...],
    ) -> None:
        """Load the policy. platform: the gateway's own tools. Raises PolicyError."""
        self._found = found
        self._shown = shown
        self._publisher = publisher
        self._policies = policies
        self._platform = {tool.service: tool for tool in platform}
        self._loaded = policies.load()
        self._built: dict[str, tuple[Tool, Bundle, Mapping[str, Resource]]] = {}
        self._residues: dict[tuple[str, str], tuple[Tool, Bundle, Residue]] = {}
        self._stale = asyncio.Event()
        # Told of each new policy, once it is in force.
        self.on_policy: Callable[[], None] = lambda: None

    @property
    def loaded(self) -> Loaded:
        """The policy in force."""
        return self._loaded

    def permitted(self, tool: Tool, caller: Caller) -> frozenset[str]:
        """Names of the tool's methods that some request of the caller's could be permitted."""
        return frozenset(
            method.name for method in tool.methods if may_be_permitted(self._residue(tool, method), caller)
        )

    def _residue(self, tool: Tool, method: Method) -> Residue:
        bundle = self._loaded.policy.bundle
        kept = self._residues.get((tool.service, method.name))
        if kept is not None and kept[0] is tool and kept[1] is bundle:
            return kept[2]
        residue = specialise(bundle, facts(tool, method))
        self._residues[tool.service, method.name] = (tool, bundle, residue)
        return residue

    async def run(self, clock: Clock) -> None:
        """Until cancelled. Nothing is published before discovery has posted its first catalog."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_policy(clock))
            tasks.create_task(self._follow_catalog())
            while True:
                await self._stale.wait()
                self._stale.clear()
                await self._step()

    async def _follow_policy(self, clock: Clock) -> None:
        async with aclosing(self._policies.watch(clock)) as policies:
            async for loaded in policies:
                self._loaded = loaded
                self._stale.set()
                self.on_policy()

    async def _follow_catalog(self) -> None:
        async with aclosing(self._found.watch()) as catalogs:
            async for _ in catalogs:
                self._stale.set()

    async def _step(self) -> None:
        catalog = self._found.current
        if catalog.version == 0:
            return
        await self._publisher.publish(self._resources(catalog.tools))
        await self._publisher.caught_up(within_s=SHOW_AFTER_S)
        await self._shown.post(catalog.tools, catalog.reports)

    def _resources(self, found: Mapping[str, Tool]) -> Resources:
        tools = {**found, **self._platform}
        bundle = self._loaded.policy.bundle
        for service in self._built.keys() - tools.keys():
            del self._built[service]
        for service, tool in tools.items():
            kept = self._built.get(service)
            if kept is None or kept[0] is not tool or kept[1] is not bundle:
                self._built[service] = (tool, bundle, build_tool(tool, bundle))
        return assemble({service: built for service, (_, _, built) in self._built.items()}, self._loaded.policy)
