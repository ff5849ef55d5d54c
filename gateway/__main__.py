"""The gateway's process: `python -m gateway`.

Wiring and nothing else: this is the one place that knows every part.
sources -> reading -> discovery -> catalog -> snapshot -> Envoy, and the mesh's own
services, until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache

import grpc.aio

from gateway.blocks.blocks import Blocks
from gateway.blocks.store import TABLES as BLOCK_TABLES
from gateway.blocks.store import BlocksLostError
from gateway.blocks.store import Store as BlockStore
from gateway.bootstrap import UNUSABLE, add_settings, policy_files, why_not
from gateway.catalog import CatalogBoard, Tool
from gateway.certificates import Certificates
from gateway.clock import Clock, SystemClock
from gateway.config import Config, read_config
from gateway.control import Control
from gateway.cuts import Cuts
from gateway.database import open_database
from gateway.discovery.discovery import Discovery
from gateway.doors import Doors, check_alone
from gateway.fanout.counts import Counts
from gateway.fanout.legs import Legs
from gateway.fanout.lines import Lines
from gateway.fanout.sight import Sight
from gateway.fanout.takers import Takers
from gateway.identities import Identities
from gateway.keys import Keys
from gateway.listener.quotas import stated
from gateway.operations.metrics import Metrics, Watched
from gateway.operations.server import serve_operations
from gateway.operations.status import Facts
from gateway.policy import PolicyFiles
from gateway.prompts import Prompts
from gateway.reading.reflect import Limits
from gateway.records.ingest import Ingest
from gateway.records.judgement import Judge
from gateway.records.store import TABLES as RECORD_TABLES
from gateway.records.store import Records
from gateway.search.embedding import OwnCalls
from gateway.search.learner import Learner
from gateway.services.blocks import Blocking
from gateway.services.mesh import MeshServicer
from gateway.services.platform import platform_tools
from gateway.services.records import RecordServicer
from gateway.services.serve import Permissions, Served, serve
from gateway.services.tokens import Tokens, mint
from gateway.services.visible import View
from gateway.snapshot.blocks import BLOCKS
from gateway.snapshot.caller import CALLER, VERIFY
from gateway.snapshot.parts import service_of
from gateway.sources.file import FileSource
from gateway.sources.lease import Leases
from gateway.state import Store
from gateway.xds.delta import MAX_MESSAGE_BYTES, DeltaDiscovery
from gateway.xds.publish import Publisher
from governance.delegation import ISSUER, Delegation
from governance.words import Caller
from llmesh.home import SUCCEEDS, Home
from llmesh.log import configure_logging
from llmesh.mesh_file import join_host_port

log = logging.getLogger("gateway")

# What Envoy takes up for all tools at once.
FILTERS = (VERIFY, CALLER, BLOCKS)


def look_limits(config: Config) -> Limits:
    """How much an endpoint may take to say what it serves."""
    stated = config.limits
    return Limits(
        file_bytes=stated.file_bytes,
        files=stated.files,
        endpoint_bytes=stated.endpoint_bytes,
        definitions=stated.definitions,
        timeout_s=stated.look_timeout_s,
        at_once=stated.looks_at_once,
    )


def blocks_of(config: Config, home: Home, *, clock: Clock) -> Blocks:
    """What is blocked. Raises BlocksLostError."""
    opened = cache(lambda: open_database(config.database or f"sqlite:///{home.database}", BLOCK_TABLES))
    return Blocks(BlockStore(opened, home.blocks), clock=clock)


def ingest_of(config: Config, home: Home, judge: Judge, *, clock: Clock) -> Ingest:
    """What makes records of the call log."""

    def opened() -> Records:
        return Records(open_database(config.database or f"sqlite:///{home.records}", RECORD_TABLES))

    return Ingest(home.call_log, opened, judge, settings=config.records, clock=clock)


def judge_of(shown: CatalogBoard, platform: Sequence[Tool]) -> Judge:
    """What judges calls of the tools that are shown, and of the platform's own."""
    own = {tool.service: tool for tool in platform}
    return Judge(lambda name: own.get(name) or shown.current.tools.get(name))


@dataclass(frozen=True, slots=True)
class Parts:
    """What a gateway is made of. Nothing of it runs yet."""

    home: Home
    clock: Clock
    shown: CatalogBoard
    policies: PolicyFiles
    publisher: Publisher
    certificates: Certificates
    keys: Keys
    blocks: Blocks
    control: Control
    leases: Leases
    mesh_file: FileSource
    discovery: Discovery
    ingest: Ingest
    platform: tuple[Tool, ...]

    def owner_of(self, service: str) -> str | None:
        """The domain that owns a service's package; None if none does."""
        return self.control.loaded.ownership.owner_of(service)

    def mint(self, delegation: Delegation) -> str:
        """The token that says so."""
        return mint(delegation, self.keys.signing())


def make_parts(config: Config) -> Parts:
    """The parts, joined. Raises HomeError, PolicyError, CertificateError or BlocksLostError."""
    home, clock = Home(config.home).create(), SystemClock()
    found, shown = CatalogBoard(), CatalogBoard()
    policies = policy_files(config)
    publisher = _publisher(policies, lambda: discovery)
    platform = platform_tools(f"unix:{home.services_socket}")
    certificates, keys = Certificates(config.tls, config.tool_tls, home), Keys(home, clock)
    blocks = blocks_of(config, home, clock=clock)
    control = Control(
        *(found, shown, publisher, policies, platform),
        keys=keys,
        certificates=certificates,
        quotas=stated(config.limits),
        blocks=blocks,
    )
    mesh_file, leases = FileSource(config.mesh_file, clock=clock), Leases(home.leases, clock=clock)
    discovery = Discovery(
        found,
        [mesh_file, leases],
        ownership=lambda: control.loaded.ownership,
        limits=look_limits(config),
        store=Store(home.catalog),
        clock=clock,
        credentials=certificates.credentials,
    )
    ingest = ingest_of(config, home, judge_of(shown, platform), clock=clock)
    _follow(control, discovery, ingest)
    return Parts(
        *(home, clock, shown, policies, publisher, certificates, keys, blocks, control),
        *(leases, mesh_file, discovery, ingest, platform),
    )


def _publisher(policies: PolicyFiles, discovery: Callable[[], Discovery]) -> Publisher:
    """What tells Envoy what to serve, and whoever it is of what Envoy refuses."""

    def refused(name: str, words: str) -> None:
        if name in FILTERS:
            policies.refuse(name, words)
        else:
            discovery().refuse(service_of(name), "ENVOY_REFUSED", words)

    def accepted(name: str) -> None:
        if name in FILTERS:
            policies.accept(name)
        else:
            discovery().accept(service_of(name))

    return Publisher(on_refused=refused, on_accepted=accepted)


def _follow(control: Control, discovery: Discovery, ingest: Ingest) -> None:
    """Have discovery and the records told of policies, and discovery of tools that cannot be compiled."""

    def follow_policy() -> None:
        discovery.recheck()
        ingest.in_force(control.loaded)

    control.on_policy = follow_policy
    control.compiled.on_broken = lambda service, words: discovery.refuse(service, "INTERNAL", words)
    control.compiled.on_mended = discovery.accept


async def run(config: Config) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    parts = make_parts(config)
    doors, succeeds = Doors(parts.home), bool(os.environ.get(SUCCEEDS))
    if not succeeds:
        check_alone(parts.home)
    stopping, fan_outs = _told_to_stop(), Counts()
    async with (
        _legs(parts.home) as legs,
        _services(parts, legs, fan_outs) as served,
        _operations(config, parts, legs, fan_outs),
        serve_envoy(parts.home, parts.publisher, _tokens(config, parts, served.view)),
        asyncio.TaskGroup() as tasks,
    ):
        opening = tasks.create_task(doors.open(parts.shown, succeeds=succeeds))
        running = [
            tasks.create_task(_without_end(part))
            for part in (
                *(parts.leases.run(), parts.discovery.run(), parts.control.run(parts.clock)),
                *(parts.blocks.run(), parts.ingest.run(), served.searcher.run(served.view.changes())),
                _identities(config, parts).run(),
            )
        ]
        log.info("gateway started", extra={"home": str(parts.home.path)})
        await stopping.wait()
        doors.close()
        for task in (opening, *running):
            task.cancel()
    log.info("gateway stopped")


def _told_to_stop() -> asyncio.Event:
    """Set once SIGTERM or SIGINT comes."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


@asynccontextmanager
async def _legs(home: Home) -> AsyncGenerator[Legs]:
    """The gateway's own calls of tools, for as long as the block lasts."""
    legs = Legs(Lines(home.branches_socket))
    try:
        yield legs
    finally:
        await legs.close()


def _services(parts: Parts, legs: Legs, fan_outs: Counts) -> AbstractAsyncContextManager[Served]:
    """The mesh's own services, and what they answer from."""
    control = parts.control
    blocking = Blocking(
        parts.blocks,
        control.enforce_blocks,
        cut=Cuts(
            parts.shown,
            own=parts.platform,
            credentials=parts.certificates.credentials,
        ).cut,
        domains=lambda: control.loaded.ownership.domains,
        issuers=lambda: [ISSUER, *(issuer.name for issuer in control.loaded.policy.issuers.issuers)],
        clock=parts.clock,
    )
    takers = Takers(lambda: parts.shown.current.tools)

    def others(view: View) -> tuple[object, ...]:
        sight = Sight(takers, view.permitted, rules=lambda: control.loaded)
        servicer = MeshServicer(*(sight, legs), parts.mint, fan_outs, clock=parts.clock)
        return RecordServicer(parts.ingest, view, clock=parts.clock), servicer

    return serve(
        *(parts.home, parts.shown, parts.leases),
        own=parts.platform,
        permissions=Permissions(control.permitted, control.foreseen, parts.owner_of, lambda: control.loaded),
        blocking=blocking,
        prompts_of=Prompts(credentials=parts.certificates.credentials).of,
        learner=Learner(
            OwnCalls(parts.home.branches_socket, parts.mint, clock=parts.clock).embed, parts.home.tool_vectors
        ),
        clock=parts.clock,
        others=others,
    )


def _operations(config: Config, parts: Parts, legs: Legs, fan_outs: Counts) -> AbstractAsyncContextManager[None]:
    """The gateway's side of the operations port."""
    watched = Watched(
        *(parts.shown, parts.control, parts.discovery, parts.publisher),
        *(parts.policies, parts.leases, parts.certificates, parts.ingest, parts.blocks),
        *(legs, fan_outs),
    )
    facts = Facts(
        *(parts.shown, parts.control, parts.publisher, parts.policies),
        owner_of=parts.owner_of,
        mesh_file_fault=lambda: parts.mesh_file.problem,
        addresses={"operations": config.operations, "traces": config.traces.otlp if config.traces else ""},
        ingest=parts.ingest,
        blocks=parts.blocks,
        unkept=lambda: {"the catalog": parts.discovery.unkept, "the leases": parts.leases.unkept},
    )
    return serve_operations(parts.home, metrics=Metrics(watched), facts=facts, clock=parts.clock)


async def _without_end(part: Coroutine[None, None, None]) -> None:
    """Run a part of the gateway. One that ends, however, takes the gateway with it, which is then started anew."""
    await part
    raise RuntimeError(f"a part of the gateway ended: {part.__qualname__}")


def _tokens(config: Config, parts: Parts, view: View) -> Tokens:
    def may_act(path: str, acting: Caller) -> bool | None:
        service, _, method = path[1:].partition("/")
        tool = view.catalog.tools.get(service)
        return None if tool is None else parts.control.may_act(tool, method, acting)

    return Tokens(parts.keys.signing, may_act=may_act, address=mesh_address(config))


def _identities(config: Config, parts: Parts) -> Identities:
    return Identities(
        *(parts.shown, parts.mint),
        address=mesh_address(config),
        clock=parts.clock,
        credentials=parts.certificates.credentials,
    )


def mesh_address(config: Config) -> str:
    """Where the mesh's tools find it."""
    address = config.address or join_host_port(config.host, config.port)
    return f"https://{address}" if config.tls else address


@asynccontextmanager
async def serve_envoy(home: Home, publisher: Publisher, tokens: Tokens) -> AsyncGenerator[None]:
    """Tell Envoy what to serve, and what tools may call, for as long as the block lasts."""
    size = ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)
    server = grpc.aio.server(options=[size, ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)])
    server.add_generic_rpc_handlers((DeltaDiscovery(publisher).handler(), tokens.handler()))
    server.add_insecure_port(f"unix:{home.own(home.xds_socket)}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    add_settings(parser)
    arguments = parser.parse_args()
    configure_logging()
    # What was imported stays: to look through it for cycles held everything up for 65 ms at a time, and not for 10.
    gc.freeze()
    try:
        asyncio.run(run(read_config(arguments.home, arguments.mesh_file)))
    except (*UNUSABLE, BlocksLostError) as error:
        log.critical("gateway ended", extra={"error": why_not(error)})
        sys.exit(1)
    except Exception:
        # Told as all else is, and not as a traceback among lines of JSON.
        log.critical("gateway failed", exc_info=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
