"""Resources without what only says why a call is refused."""

from __future__ import annotations

from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.snapshot.access import PERMIT, deny_all
from gateway.snapshot.build import ROUTES, Resource, Resources
from gateway.xds.messages import message_type, serialize


def without_reasons(resources: Resources) -> Resources:
    """The resources with every matcher taken out that does not allow."""
    routes: dict[str, Resource] = {}
    for name, resource in resources[ROUTES].items():
        message: Untyped = message_type("envoy.config.route.v3.RouteConfiguration").FromString(resource.value)
        for host in message.virtual_hosts:
            for route in host.routes:
                own = route.typed_per_filter_config["llmesh.rules"]
                own.value = serialize(_only_allowing(own.value))
        routes[name] = Resource(resource.version + "-", serialize(message))
    return {**resources, ROUTES: routes}


def _only_allowing(value: bytes) -> Message:
    per_route: Untyped = message_type("envoy.extensions.filters.http.rbac.v3.RBACPerRoute").FromString(value)
    matchers = per_route.rbac.matcher.matcher_list.matchers
    kept = [matcher for matcher in matchers if matcher.on_match.action.name == PERMIT]
    del matchers[:]
    matchers.extend(kept)
    if not kept:
        per_route.rbac.CopyFrom(deny_all())
    return per_route
