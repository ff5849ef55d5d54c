"""The catalog: which tools are on the mesh, and what became of each endpoint.

Discovery is its one writer; everyone else reads an immutable Catalog or
watches for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from types import MappingProxyType

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from llmesh.api.options.v1 import options_pb2 as options


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One address that serves tools.

    address: "unix:/absolute/path.sock" or "host:port". source: who named it.
    grants: what the mesh file states for a server that carries no LL-Mesh
    options: service name -> its grant. tls_name: the DNS name that its
    certificate must have; empty where it is reached without TLS. held: the
    source no longer names it, and it is kept (gateway/sources/hold.py); it is
    the same endpoint all the same.
    """

    address: str
    source: str
    grants: tuple[Grant, ...] = ()
    tls_name: str = ""
    held: bool = field(default=False, compare=False)

    @property
    def protected(self) -> bool:
        """Whether the transport is protected: mutual TLS, or a Unix socket in a 0700 directory."""
        return bool(self.tls_name) or self.address.startswith("unix:")

    def grant_for(self, service: str) -> Grant | None:
        """What the mesh file states for a service here; None if nothing."""
        return next((grant for grant in self.grants if grant.service == service), None)


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """What the mesh file states for one service of a foreign server.

    effects: method name -> "read", "write" or "destructive"; a method that is
    not named is destructive.
    """

    service: str
    domain: str
    owner_team: str
    effects: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """One rpc of a tool, its options read and unset values made restrictive.

    deadline: unary and client-streaming: the whole call; else the longest a
    stream may last. idle: the longest a stream may be silent; None for the
    others. Both are capped already.
    """

    name: str
    request_type: str
    response_type: str
    client_streaming: bool
    server_streaming: bool
    effect: int
    idempotent: bool
    deadline: timedelta
    idle: timedelta | None
    max_concurrency: int
    data_classes: tuple[str, ...]
    unclassified: bool
    options: options.Method


@dataclass(frozen=True, slots=True)
class Contract:
    """A tool's descriptors, normalised.

    files: the service's file and all it imports, each after its imports. Those
    that the platform pins are the same objects in every contract.
    digest: sha256 of the deterministic bytes of the set of them, in hex.
    """

    digest: str
    files: tuple[FileDescriptorProto, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """One of several contracts that a tool is served with, and who serves it. methods: names of those it has."""

    contract: Contract
    methods: frozenset[str]
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """One service on the mesh, and the endpoints that serve it, in order.

    variants: where endpoints serve different contracts, of which each adds to
    the next: all of them, the largest first, which is the tool's own. Empty
    where there is one.
    """

    service: str
    domain: str
    sheet: options.Tool
    methods: tuple[Method, ...]
    contract: Contract
    endpoints: tuple[Endpoint, ...]
    ready: frozenset[Endpoint] = frozenset()
    health_checked: bool = False
    variants: tuple[Variant, ...] = ()


class State(Enum):
    """What has become of an endpoint; the words of catalog.proto."""

    PENDING = 1
    READY = 2
    DOWN = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an endpoint's admission. reason is UPPER_SNAKE, empty if passed."""

    name: str
    passed: bool
    service: str = ""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """An endpoint's state and the steps that led to it. changed_s: Unix seconds."""

    endpoint: Endpoint
    state: State
    steps: tuple[Step, ...] = ()
    services: tuple[str, ...] = ()
    changed_s: float = 0.0
    held: bool = False


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that is on the mesh at one moment. version only grows."""

    version: int = 0
    tools: Mapping[str, Tool] = field(default_factory=lambda: MappingProxyType({}))
    reports: Mapping[str, Report] = field(default_factory=lambda: MappingProxyType({}))


class CatalogBoard:
    """Where the newest Catalog is posted. One writer, any number of readers."""

    def __init__(self) -> None:
        """Start with an empty catalog, version 0."""
        self._current = Catalog()
        self._changed = asyncio.Condition()

    @property
    def current(self) -> Catalog:
        """The newest catalog."""
        return self._current

    async def post(self, tools: Mapping[str, Tool], reports: Mapping[str, Report]) -> Catalog:
        """Replace the catalog by one with the next version, and wake every watcher.

        Tools of an earlier catalog are the same object in this one: whoever reads them knows that none changed.
        """
        kept = tools if isinstance(tools, MappingProxyType) else MappingProxyType(dict(tools))
        async with self._changed:
            self._current = Catalog(self._current.version + 1, kept, MappingProxyType(dict(reports)))
            self._changed.notify_all()
        return self._current

    async def renew(self) -> None:
        """Post the same catalog as the next version: what is told of it has changed."""
        async with self._changed:
            self._current = replace(self._current, version=self._current.version + 1)
            self._changed.notify_all()

    async def watch(self) -> AsyncGenerator[Catalog]:
        """The newest catalog, then each newer one; a slow reader skips to the newest."""
        seen: Catalog | None = None
        while True:
            async with self._changed:
                while self._current is seen:
                    await self._changed.wait()
                seen = self._current
            yield seen
