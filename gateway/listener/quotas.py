"""The filters that count a caller's calls: all of them, and those to methods of each class of cost.

Every caller, as the issuer and the subject that caller.lua has derived, has a
bucket of its own, which Envoy's workers share. A delegated call is its
subject's. A caller nobody has seen for longest loses its bucket, and with it
what it has used up, only when there are more than CALLERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.snapshot.quotas import filter_name
from gateway.xds.messages import make, pack
from llmesh.mesh_file import LimitSettings

# The quota of all calls, whatever they cost.
CALLS = "calls"
# Envoy's default of 20 would give 21 callers as much as they like.
CALLERS = 50_000
# In which a bucket fills that was used up.
FILL_S = 1
# What Envoy says of a call that was one too many, and the header of its answer that says by which quota.
DETAILS = "local_rate_limited"
NAMED_IN = "x-llmesh-quota"

_ALWAYS: Mapping[str, Untyped] = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
_CALLER = ("issuer", "subject")


def stated(limits: LimitSettings) -> Mapping[str, int]:
    """The quotas that there are: name -> calls in a second."""
    found = {CALLS: limits.calls_per_s, **limits.quotas.model_dump()}
    return {name: calls_per_s for name, calls_per_s in found.items() if calls_per_s}


def limit_calls(limits: LimitSettings) -> list[dict[str, Untyped]]:
    """The filter, if any, before the rules: what they refuse counts too."""
    return [_filter(name, calls_per_s) for name, calls_per_s in stated(limits).items() if name == CALLS]


def limit_classes(limits: LimitSettings) -> list[dict[str, Untyped]]:
    """The filters behind the rules: before them, who may not see a tool could tell by its quota that it is there."""
    return [
        {**_filter(name, calls_per_s), "disabled": True}
        for name, calls_per_s in stated(limits).items()
        if name != CALLS
    ]


def _filter(name: str, calls_per_s: int) -> dict[str, Untyped]:
    return {"name": filter_name(name), "typed_config": pack(_limit(name, calls_per_s))}


def _limit(name: str, calls_per_s: int) -> Message:
    bucket = {
        "max_tokens": calls_per_s,
        "tokens_per_fill": {"value": calls_per_s},
        "fill_interval": {"seconds": FILL_S},
    }
    read = [{"request_headers": {"header_name": f"x-llmesh-{part}", "descriptor_key": part}} for part in _CALLER]
    return make(
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix=f"quota.{name}",
        # Of those without a caller, whom no rule permits anything.
        token_bucket=bucket,
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        descriptors=[{"entries": [{"key": part} for part in _CALLER], "token_bucket": bucket}],
        rate_limits=[{"actions": read}],
        max_dynamic_descriptors={"value": CALLERS},
        always_consume_default_token_bucket={"value": False},
        rate_limited_as_resource_exhausted=True,
        response_headers_to_add=[{"header": {"key": NAMED_IN, "value": name}}],
    )
