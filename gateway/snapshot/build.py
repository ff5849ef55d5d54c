"""The snapshot: (Catalog, Policy) -> Resources. Pure: equal inputs give equal bytes.

Every resource's version is a hash of its content, so what did not change is
never sent again, by this process or the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.message import Message

from gateway.blocks.words import Block
from gateway.catalog import Method, Tool
from gateway.snapshot import caller, service, tls
from gateway.snapshot.blocks import BLOCKS, Surroundings, blocks
from gateway.snapshot.caller import CALLER, VERIFY
from gateway.snapshot.parts import parts, service_of
from gateway.xds.messages import make, pack, serialize, type_url
from governance import words
from governance.bundle import Bundle
from governance.contract.facts import facts_of
from governance.issuers import Issuers
from governance.residue import Residue, specialise

CLUSTER = type_url("envoy.config.cluster.v3.Cluster")
ENDPOINTS = type_url("envoy.config.endpoint.v3.ClusterLoadAssignment")
ROUTES = type_url("envoy.config.route.v3.RouteConfiguration")
SCOPE = type_url("envoy.config.route.v3.ScopedRouteConfiguration")
EXTENSION = type_url("envoy.config.core.v3.TypedExtensionConfig")


@dataclass(frozen=True, slots=True)
class Resource:
    """One Envoy resource. version: a hash of value, to be compared for equality only."""

    version: str
    value: bytes


NO_SECRETS: Mapping[str, Message] = MappingProxyType({})

# Type URL -> name -> resource.
Resources = Mapping[str, Mapping[str, Resource]]
# No tool's.
NO_RESOURCES: Resources = MappingProxyType({url: MappingProxyType({}) for url in (CLUSTER, ENDPOINTS, ROUTES, SCOPE)})


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that decides who may call.

    keys: issuer name -> JWKS. delegation_keys: path of the file of the mesh's own, a JWKS; without one, Envoy takes
    nothing of the policy.
    """

    bundle: Bundle
    issuers: Issuers
    keys: Mapping[str, str]
    delegation_keys: str = ""


def facts(tool: Tool, method: Method) -> words.Tool:
    """One method as rules see it."""
    return facts_of(tool.service, method.name, domain=tool.domain, tool=tool.sheet, stated=method)


def residues(tool: Tool, bundle: Bundle) -> Mapping[str, Residue]:
    """Method name -> residue."""
    return {method.name: specialise(bundle, facts(tool, method)) for method in tool.methods}


def build(
    tools: Mapping[str, Tool],
    policy: Policy,
    *,
    secrets: Mapping[str, Message] = NO_SECRETS,
    quotas: Collection[str] = (),
) -> Resources:
    """The resources that route to every tool and let in whom the policy permits."""
    over_tls = tls.TOOLS in secrets
    built: dict[str, Mapping[str, Resource]] = {}
    for service_name, tool in tools.items():
        built[service_name] = build_tool(tool, residues(tool, policy.bundle), over_tls=over_tls, quotas=quotas)
        built.update(build_parts(tool, over_tls=over_tls))
    return assemble(built, policy, secrets=secrets)


def assemble(
    built: Mapping[str, Mapping[str, Resource]], policy: Policy, *, secrets: Mapping[str, Message] = NO_SECRETS
) -> Resources:
    """The whole snapshot from each tool's resources.

    built: what build_tool and build_parts made, by name. secrets: by name.
    """
    made: dict[str, dict[str, Resource]] = {url: {} for url in NO_RESOURCES}
    for name, resources in built.items():
        for url, resource in resources.items():
            made[url][name] = resource
    return whole(made, policy, secrets=secrets)


def whole(made: Resources, policy: Policy, *, secrets: Mapping[str, Message] = NO_SECRETS) -> Resources:
    """The whole snapshot. made: tools' resources. secrets: by name."""
    kept = {tls.SECRET: {name: _resource(secret) for name, secret in secrets.items()}} if secrets else {}
    return {EXTENSION: _filters(policy), **made, **kept}


def build_tool(
    tool: Tool, residues: Mapping[str, Residue], *, over_tls: bool = False, quotas: Collection[str] = ()
) -> Mapping[str, Resource]:
    """One tool's resources by type URL; each is named for its service.

    residues: method name -> residue. over_tls: whether the mesh reaches tools over TLS. quotas: names of those
    that the mesh has.
    """
    return {
        CLUSTER: _resource(service.cluster(tool, over_tls=over_tls)),
        ENDPOINTS: _resource(service.endpoints(tool, over_tls=over_tls)),
        ROUTES: _resource(service.routes(tool, residues, quotas=quotas)),
        SCOPE: _resource(service.scope(tool)),
    }


def closed(service_name: str) -> Resource:
    """Routes of a service that lead nowhere: whatever is called, there is no such method."""
    return _resource(make("envoy.config.route.v3.RouteConfiguration", name=service_name))


def build_parts(tool: Tool, *, over_tls: bool = False) -> Mapping[str, Mapping[str, Resource]]:
    """What the tool's parts need beside that: by name, then by type URL."""
    return {
        part.name: {
            CLUSTER: _resource(service.cluster(tool, over_tls=over_tls, part=part)),
            ENDPOINTS: _resource(service.endpoints(tool, over_tls=over_tls, part=part)),
        }
        for part in parts(tool)
    }


def stages(before: Resources, after: Resources, *, new_parts: Collection[str]) -> Sequence[Resources]:
    """What to publish in turn, each once Envoy holds the one before, to come from one snapshot to another.

    new_parts: names of parts that come. Callers of a part's methods call the
    tool's cluster until then: the part must be there before their routes lead
    to it, and those before the tool gets endpoints that lack the methods.
    """
    tools = {service_of(name) for name in new_parts} & before.get(ROUTES, {}).keys()
    if not tools:
        return [after]
    held = {url: {**after[url], **{name: before[url][name] for name in tools}} for url in (CLUSTER, ENDPOINTS, ROUTES)}
    return [{**after, **held}, {**after, **held, ROUTES: after[ROUTES]}, after]


def blocking(resources: Resources, blocked: Resource) -> Resources:
    """The resources, with other blocks in force. blocked: what build_blocks made."""
    return {**resources, EXTENSION: {**resources.get(EXTENSION, {}), BLOCKS: blocked}}


def build_blocks(in_force: Iterable[Block], surroundings: Surroundings) -> Resource:
    """What stops calls before the rules are asked."""
    return _filter(BLOCKS, blocks(in_force, surroundings))


def _filters(policy: Policy) -> dict[str, Resource]:
    return {
        VERIFY: _filter(VERIFY, caller.verify(policy.issuers, policy.keys, delegation_keys=policy.delegation_keys)),
        CALLER: _filter(CALLER, caller.derive(policy.issuers)),
        BLOCKS: NOTHING_BLOCKED,
    }


def _filter(name: str, message: Message) -> Resource:
    return _resource(make("envoy.config.core.v3.TypedExtensionConfig", name=name, typed_config=pack(message)))


def _resource(message: Message) -> Resource:
    value = serialize(message)
    return Resource(hashlib.sha256(value).hexdigest()[:32], value)


NOTHING_BLOCKED = build_blocks((), Surroundings({}, (), {}))
