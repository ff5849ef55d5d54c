"""The loop that keeps Envoy in step: every new catalog or policy becomes a snapshot.

A catalog is shown to callers once Envoy routes it, so a tool that is listed can
be called.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType

from gateway.bearing import Bearing
from gateway.blocks.blocks import Blocks
from gateway.catalog import CatalogBoard, Tool
from gateway.certificates import Certificates
from gateway.clock import Clock
from gateway.compiled import Compiled
from gateway.keys import Keys
from gateway.policy import Loaded, PolicyFiles
from gateway.snapshot.blocks import BLOCKS
from gateway.snapshot.build import (
    CLUSTER,
    NO_SECRETS,
    Policy,
    Resources,
    blocking,
    stages,
    whole,
)
from gateway.snapshot.parts import is_part, service_of
from gateway.tally import Tally
from gateway.xds.publish import Publisher
from governance.decide import foresee, may_act, may_be_permitted
from governance.residue import Residue
from governance.words import Caller, Decision

log = logging.getLogger(__name__)

# How long callers wait to see a new catalog when Envoy is away.
SHOW_AFTER_S = 1.0
# The same when one is there and says nothing, as it does for seconds while it takes up thousands of tools.
SILENT_AFTER_S = 3.0
# The same of one stage of a change, until Envoy holds the one before; calls fail if it comes too soon.
STAGE_AFTER_S = 10.0


class Control:
    """Follows the found catalog and the policy files; publishes resources; posts the shown catalog."""

    def __init__(
        self,
        found: CatalogBoard,
        shown: CatalogBoard,
        publisher: Publisher,
        policies: PolicyFiles,
        platform: tuple[Tool, ...],
        *,
        keys: Keys,
        certificates: Certificates | None = None,
        quotas: Collection[str] = (),
        blocks: Blocks | None = None,
    ) -> None:
        """Load the policy. Raises PolicyError.

        platform: the gateway's own tools. keys: sign what tools may call. certificates: None for no TLS. quotas: names
        of those that the listener has. blocks: None where nothing is ever blocked.
        """
        self._found = found
        self._shown = shown
        self._publisher = publisher
        self._policies = policies
        self._certificates = certificates
        self._keys = keys
        self._platform = {tool.service: tool for tool in platform}
        self._loaded = policies.load()
        # Says of tools which cannot be compiled, and which can be again.
        self.compiled = Compiled(quotas=quotas)
        # What was published last, and the names of tools' parts in it.
        self._published: Resources = MappingProxyType({})
        self._parts: set[str] = set()
        # What that was made of, unless something else than tools has changed since.
        self._tools: Mapping[str, Tool] | None = None
        # The stage of it that Envoy is to hold now, and what blocks make of it.
        self._stage: Resources = MappingProxyType({})
        self._blocks = blocks
        self._bearing = Bearing(self._residues)
        self._stale = asyncio.Event()
        # How snapshots are made, for those who run the mesh.
        self.builds = Tally()
        # Told of each new policy, once it is in force.
        self.on_policy: Callable[[], None] = lambda: None

    @property
    def loaded(self) -> Loaded:
        """The policy in force."""
        return self._loaded

    def permitted(self, tool: Tool, caller: Caller) -> frozenset[str]:
        """Names of the tool's methods that some request of the caller's could be permitted."""
        known = self._residues(tool)
        return frozenset(name for name, residue in known.items() if may_be_permitted(residue, caller))

    def may_act(self, tool: Tool, method: str, acting: Caller) -> bool | None:
        """Whether an acting tool itself may make a call of one of the tool's methods.

        None for one that it hasn't, and for what it may not call of a hidden tool: nobody learns that it is there.
        """
        residue = self._residues(tool).get(method)
        may = residue is not None and may_act(residue, acting)
        return None if residue is None or (tool.sheet.hidden and not may) else may

    def foreseen(self, tool: Tool, method: str, caller: Caller) -> Decision | None:
        """What would become of a call of one of the tool's methods; None where it hangs on how the call comes."""
        return foresee(self._residues(tool)[method], caller)

    def _residues(self, tool: Tool) -> Mapping[str, Residue]:
        return self.compiled.residues(tool, self._loaded.policy.bundle)

    async def run(self, clock: Clock) -> None:
        """Until cancelled. Nothing is published before discovery has posted its first catalog."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_policy(clock))
            tasks.create_task(self._follow_certificates(clock))
            tasks.create_task(self._follow_keys())
            tasks.create_task(self._follow_catalog())
            tasks.create_task(self._follow_blocks())
            tasks.create_task(self._follow_refusals())
            while True:
                await self._stale.wait()
                self._stale.clear()
                await self._step(clock)

    async def _follow_policy(self, clock: Clock) -> None:
        async with aclosing(self._policies.watch(clock)) as policies:
            async for loaded in policies:
                self._loaded = loaded
                self._renew()
                self.on_policy()

    async def _follow_certificates(self, clock: Clock) -> None:
        if self._certificates is not None:
            async with aclosing(self._certificates.watch(clock)) as changes:
                async for _ in changes:
                    self._renew()

    async def _follow_keys(self) -> None:
        async with aclosing(self._keys.watch()) as changes:
            async for _ in changes:
                self._renew()

    def _renew(self) -> None:
        """Something else than the catalog has changed that the snapshot is made of."""
        self._tools = None
        self._stale.set()

    async def _follow_blocks(self) -> None:
        """What is blocked waits for nothing that is being compiled."""
        if self._blocks is not None:
            async with aclosing(self._blocks.watch()) as changes:
                async for _ in changes:
                    await self.enforce_blocks()

    async def _follow_refusals(self) -> None:
        """Envoy may say at any time that it cannot have what is blocked."""
        async with aclosing(self._publisher.revisions()) as revisions:
            async for _ in revisions:
                await self._hush()

    async def _hush(self) -> None:
        """Where Envoy refuses what is blocked, try it without what hidden tools' rules make of it."""
        if BLOCKS in self._publisher.refused_names and self._bearing.hush():
            await self._publish(self._stage)

    async def enforce_blocks(self) -> bool:
        """Have Envoy stop what is blocked now, and nothing else. Whether it does when this returns, soon."""
        if not self._stage:
            return False
        await self._publish(self._stage)
        if self._shown.current.version:
            await self._shown.renew()
        return await self._blocks_are_taken()

    async def _blocks_are_taken(self) -> bool:
        """Whether Envoy has answered for all that it is told, and has taken the blocks."""
        answered = await self._publisher.caught_up(within_s=SHOW_AFTER_S)
        if answered and BLOCKS in self._publisher.refused_names:
            await self._hush()
            answered = await self._publisher.caught_up(within_s=SHOW_AFTER_S)
        return answered and BLOCKS not in self._publisher.refused_names

    async def _publish(self, stage: Resources, *, rules: str = "") -> None:
        self._stage = stage
        if self._blocks is not None:
            tools = {**self._found.current.tools, **self._platform}
            blocked = self._bearing.resource(self._blocks.current, tools, self._loaded.ownership.prefixes)
            stage = blocking(stage, blocked)
        await self._publisher.publish(stage, rules=rules)

    async def _follow_catalog(self) -> None:
        async with aclosing(self._found.watch()) as catalogs:
            async for _ in catalogs:
                self._stale.set()

    async def _step(self, clock: Clock) -> None:
        catalog = self._found.current
        if catalog.version == 0:
            return
        if self._tools is not catalog.tools:
            # Most of what is found bears on reports alone.
            self._tools = catalog.tools
            await self._route(catalog.tools, clock)
        # Many tools take a slow Envoy longer than that: it is waited for while it gets on with them.
        if await self._publisher.settled(silent_s=SILENT_AFTER_S if self._publisher.streams else SHOW_AFTER_S):
            await self._blocks_are_taken()
        shown = await self._shown.post(self._callable(catalog.tools), catalog.reports)
        log.info("catalog was posted", extra={"version": shown.version, "tools": len(shown.tools)})

    async def _route(self, tools: Mapping[str, Tool], clock: Clock) -> None:
        """Publish what routes to these tools, in as many stages as that takes."""
        rules = self._loaded.policy.bundle.digest
        with self.builds.timed(clock):
            resources = await self._resources(tools)
        parts = set(filter(is_part, resources[CLUSTER]))
        *before, last = stages(self._published, resources, new_parts=parts - self._parts)
        for stage in before:
            await self._publish(stage)
            await self._publisher.settled(silent_s=STAGE_AFTER_S)
        await self._publish(last, rules=rules)
        self._published, self._parts = resources, parts

    def _callable(self, found: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """The tools as they can be called; the same object where all of them can be, as they were found."""
        refused = self._publisher.refused_names
        return dict(self._as_they_are(found)) if refused or self.compiled.broken else found

    def _as_they_are(self, found: Mapping[str, Tool]) -> Iterator[tuple[str, Tool]]:
        """Each tool; where Envoy refused one, as it was before, if it was there before."""
        refused: dict[str, bool] = {}
        for name, held in self._publisher.refused_names.items():
            refused[service_of(name)] = refused.get(service_of(name), True) and held
        for service, tool in found.items():
            if service in self.compiled.broken:
                continue
            if service not in refused:
                yield service, tool
                continue
            last = self._shown.current.tools.get(service)
            if last is not None and refused[service]:
                yield service, replace(last, endpoints=tool.endpoints, ready=tool.ready)

    async def _resources(self, found: Mapping[str, Tool]) -> Resources:
        """All of them, of these tools and of the policy and certificates that are in force as it begins."""
        policy, secrets = self._policy, self._certificates.secrets if self._certificates else NO_SECRETS
        made = await self.compiled.resources(
            {**found, **self._platform},
            policy.bundle,
            over_tls=self._certificates is not None and self._certificates.over_tls,
        )
        return whole(made, policy, secrets=secrets)

    @property
    def _policy(self) -> Policy:
        return replace(self._loaded.policy, delegation_keys=self._keys.path)
