"""Quotas: how often one caller may call methods of a class of cost in a second.

Each is a filter of the listener (listener/quotas.py), which stands there
disabled: the routes of its class's methods turn it on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any as Untyped

from gateway.catalog import Method
from gateway.xds.messages import make, pack
from llmesh.api.options.v1 import options_pb2 as options

# Class of cost -> the quota's name.
CLASSES: Mapping[int, str] = {
    options.COST_LOW: "low",
    options.COST_MEDIUM: "medium",
    options.COST_HIGH: "high",
}


def filter_name(quota: str) -> str:
    """What the filter of a quota is called."""
    return f"llmesh.quota.{quota}"


def turned_on(method: Method, quotas: Collection[str]) -> dict[str, Untyped]:
    """What a route says of filters, for its method to count. quotas: names of those that the mesh has."""
    quota = CLASSES.get(method.options.cost, CLASSES[options.COST_HIGH])
    return {filter_name(quota): _on()} if quota in quotas else {}


@cache
def _on() -> dict[str, Untyped]:
    return pack(make("envoy.config.route.v3.FilterConfig", config={}))
